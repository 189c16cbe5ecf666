// A daemon for tests: the real program, started from a configuration and awaited by systemd's own protocol; and a client
// that says what it likes.
#pragma once

#include "program.hpp"
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/system.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <optional>

namespace bulkhead::testing {

// The service manager's side of sd_notify(3).
class notify_socket {
 public:
  explicit notify_socket(const std::filesystem::path& path);
  // The next message that has a line beginning with `wanted`; fails the test after 30 s.
  std::string wait(const std::string& wanted) const;

 private:
  unique_fd socket_;
};

class running_daemon {
 public:
  // `config` gets a socket of its own in front. With `environment` ("NAME=value") in its environment.
  explicit running_daemon(const std::string& config, const std::vector<std::string>& environment = {});
  ~running_daemon();

  finished run(std::vector<std::string> words, const std::string& input = "") const;  // a command on its socket
  finished call(std::vector<std::string> words) const;
  nlohmann::json status() const;
  nlohmann::json plugin(const std::string& name) const;
  // Replaces the configuration and sends SIGHUP; back when it has been dealt with.
  void reload(const std::string& config);
  void signal(int number) const { program_->signal(number); }
  finished wait() { return program_->wait(); }
  const notify_socket& service_manager() const { return notify_; }
  std::string socket() const { return folder_ / "d.sock"; }
  std::filesystem::path file() const { return folder_ / "config.toml"; }
  const scratch_folder& folder() const { return folder_; }
  pid_t pid() const { return program_->pid(); }

 private:
  std::string full(const std::string& config) const { return "socket = \"d.sock\"\n" + config; }

  scratch_folder folder_;
  notify_socket notify_;
  std::optional<program> program_;
};

// "[plugins.NAME]\nfile = …\n", for plugins of the build.
std::string plugin_table(const std::string& name, const std::string& more = "", const std::string& file = "");

// A call of chaos.read_handle through the daemon that runs until the pipe is closed.
class held_call {
 public:
  explicit held_call(const running_daemon& daemon);
  finished release();

 private:
  const std::filesystem::path pipe_;
  program program_;
  unique_fd end_;
};

class raw_client {
 public:
  explicit raw_client(const std::string& socket);
  void send(const std::string& bytes) const;
  void send(ipc::buffer bytes) const;
  void hello(unsigned credit = 100);
  // Sends a request; `arguments` is one packed array.
  template <class... A>
  void request(std::uint32_t id, const std::string& method, const A&... arguments) {
    ipc::buffer out;
    ipc::packer packer(out);
    packer.pack_array(4).pack(0).pack(id).pack(method).pack_array(sizeof...(A));
    (packer.pack(arguments), ...);
    send(std::move(out));
  }
  template <class... A>
  void notify(const std::string& method, const A&... arguments) {
    ipc::buffer out = ipc::begin_notification(method);
    ipc::packer packer(out);
    packer.pack_array(sizeof...(A));
    (packer.pack(arguments), ...);
    send(std::move(out));
  }
  // The next message, as JSON; nothing when the daemon has closed. Fails the test after 30 s.
  std::optional<nlohmann::json> read();
  // The answer to `id`: [1, id, error, result]; other messages before it are dropped.
  nlohmann::json answer(std::uint32_t id);
  // Reads all there is until the daemon closes.
  bool closed();
  int fd() const { return socket_.get(); }

 private:
  unique_fd socket_;
  msgpack::unpacker unpacker_;
};

}  // namespace bulkhead::testing
