// A connection to a daemon (`bulkhead run`): calls its plugins, and the daemon's own methods, as docs/daemon.md has it.
#pragma once

#include "daemon_stream.hpp"
#include <bulkhead/ipc/channel.hpp>
#include <bulkhead/plugin.hpp>

#include <CLI/CLI.hpp>

#include <filesystem>
#include <stop_token>

namespace bulkhead::cli {

// Adds --socket; `out` begins with BULKHEAD_SOCKET, or with where daemons have theirs unless told otherwise.
void add_socket_option(CLI::App& app, std::filesystem::path& out);

class daemon_client final : ipc::channel::receiver {
 public:
  // Connects and waits for the daemon's greeting. Throws std::runtime_error that says what to do.
  explicit daemon_client(const std::filesystem::path& socket);

  // Calls "plugin.method" and waits for the outcome; `deadline` unset: the plugin's. One call at a time.
  reply call(const std::string& method, packed_arguments arguments, const call_options& options = {});
  // The same for a call that streams, without waiting.
  std::shared_ptr<daemon_stream> open(const std::string& method, packed_arguments arguments,
                                      const call_options& options);
  // The same as call() for arguments of its own; throws call_error.
  template <class... A>
  reply ask(const std::string& method, const A&... arguments) {
    reply made = call(method, pack_arguments(arguments...));
    made.throw_if_failed();
    return made;
  }
  // All methods there are, as "plugin.method".
  const plugin_info& description() const { return description_; }
  // Waits until the daemon closes the connection.
  void wait_closed();

 private:
  void on_request(const ipc::message& request, std::vector<unique_fd> handles) override;
  void on_notification(const ipc::message& notification, std::vector<unique_fd> handles) override;
  void on_closed(const std::string&) override;
  void greet();

  ipc::channel channel_;
  plugin_info description_;
  bool ready_ = false;
  std::string refusal_;
  std::function<void(const msgpack::object&)> on_progress_;
  std::shared_ptr<daemon_stream> stream_;  // of the last call that streams
  unsigned taken_ = 0;                     // progress since the last credit
};

}  // namespace bulkhead::cli
