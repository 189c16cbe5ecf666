// A worker that nobody supervises: the worker program, started by exec, and a channel to it. What a call costs when there
// is nothing else.
#pragma once

#include <bulkhead/call.hpp>
#include <bulkhead/ipc/channel.hpp>

#include <csignal>
#include <stdexcept>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

namespace bench {

class bare_worker final : bulkhead::ipc::channel::receiver {
 public:
  bare_worker(std::string program, std::string plugin) : bare_worker(std::move(program), std::move(plugin), pair()) {}
  ~bare_worker() override {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  // One thread at a time.
  template <class... A>
  bulkhead::reply call(std::string_view method, const A&... arguments) {
    return send(method, bulkhead::pack_arguments(arguments...));
  }

 private:
  using ends = std::pair<bulkhead::unique_fd, bulkhead::unique_fd>;
  static ends pair() { return bulkhead::ipc::socket_transport::make_pair(); }

  bare_worker(std::string program, std::string plugin, ends both)
      : channel_(std::make_unique<bulkhead::ipc::socket_transport>(std::move(both.first)), {}, *this, nullptr) {
    ::fcntl(both.second.get(), F_SETFD, 0);
    std::string fd = "BULKHEAD_CHANNEL_FD=" + std::to_string(both.second.get()), protocol = "BULKHEAD_PROTOCOL=1";
    char* environment[] = {fd.data(), protocol.data(), nullptr};
    char* argv[] = {program.data(), plugin.data(), nullptr};
    if (::posix_spawn(&pid_, program.c_str(), nullptr, nullptr, argv, environment) != 0)
      throw std::runtime_error("posix_spawn " + program);
    both.second.reset();
    send("$/hello", bulkhead::pack_arguments(std::map<std::string, int>{{"protocol", 1}}));
    channel_.run([this] { return ready_; });
    if (!ready_) throw std::runtime_error("the bare worker did not start");
  }

  bulkhead::reply send(std::string_view method, const bulkhead::packed_arguments& arguments) {
    bulkhead::ipc::buffer frame = bulkhead::ipc::begin_request(method);
    frame.append(arguments.params.view());
    bulkhead::ipc::waiter waiter;
    channel_.start(frame.take(), {}, bulkhead::ipc::never, &waiter, nullptr);
    if (channel_.wait(waiter, bulkhead::ipc::never) != bulkhead::ipc::channel::wait_result::done)
      throw std::runtime_error("the bare worker has gone");
    bulkhead::reply result(std::move(waiter.result));
    result.throw_if_failed();
    return result;
  }

  void on_request(const bulkhead::ipc::message&, std::vector<bulkhead::unique_fd>) override {}
  void on_notification(const bulkhead::ipc::message& notification, std::vector<bulkhead::unique_fd>) override {
    ready_ = ready_ || notification.method == "$/ready";
  }
  void on_closed(const std::string&) override {}

  bulkhead::ipc::channel channel_;
  bool ready_ = false;
  pid_t pid_ = -1;
};

}  // namespace bench
