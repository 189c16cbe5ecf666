// The daemon behind `bulkhead run`: a host, its plugins by name, and the sockets they are served on. One thread runs the
// sockets and never waits; the thread in run() does what takes time: loading, reloading, draining.
#pragma once

#include "closer.hpp"
#include "listener.hpp"
#include "log_book.hpp"
#include "metrics_page.hpp"
#include "plugin_table.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <csignal>
#include <deque>
#include <set>
#include <thread>

namespace bulkhead::daemon {

// SIGHUP, SIGTERM and SIGINT for this process, blocked from the construction on: before there are threads.
class signal_mask {
 public:
  signal_mask();
  const sigset_t& set() const { return set_; }

 private:
  sigset_t set_;
};

class server final : service {
 public:
  // Takes the socket. Throws std::runtime_error.
  server(std::filesystem::path file, config settings, const signal_mask& signals);
  ~server() override;
  // Serves until it is told to stop; the exit status.
  int run();

 private:
  using job = std::function<void()>;

  // service
  std::shared_ptr<ipc::stream> call(const connection& from, std::string_view method, packed_arguments arguments,
                                    call_options options, std::unique_ptr<reply_handler> handler,
                                    std::shared_ptr<ipc::stream::link> onward) override;
  void describe(ipc::packer& into) override;
  void discard(std::vector<unique_fd> handles) override { closer_.take(std::move(handles)); }
  void gone(connection& which, const std::string& violation) override;

  // Control methods; see control.cpp.
  void control(const connection& from, std::string_view method, const packed_arguments& arguments,
               const call_options& options, std::unique_ptr<reply_handler> handler);
  void send_logs(const std::vector<std::string>& words, std::size_t count, bool follow, const call_options& options,
                 std::unique_ptr<reply_handler> handler);
  ipc::buffer status() const;

  void welcome(unique_fd socket, const peer& who);
  void post(job work);
  void watch_signals();
  void reload();
  void drain();
  void close_connections();
  void pet_watchdog();
  std::string summary() const;

  const std::filesystem::path file_;
  config settings_;
  const sigset_t signals_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  bulkhead::closer closer_;
  boost::asio::io_context io_{1};  // outlives all that has a share of loop_
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
  std::shared_ptr<reactor> loop_ = std::make_shared<reactor>(io_.get_executor());
  boost::asio::steady_timer watchdog_{io_};
  std::shared_ptr<listener> listener_;
  log_book log_;
  host host_;
  plugin_table plugins_{host_, log_};
  std::optional<metrics_page> metrics_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<job> jobs_;
  bool stopping_ = false;
  std::set<std::shared_ptr<connection>> connections_;
  std::shared_ptr<std::atomic<unsigned>> alive_ = std::make_shared<std::atomic<unsigned>>(0);

  unique_fd signals_end_;
  std::thread io_thread_, signal_thread_;
};

}  // namespace bulkhead::daemon
