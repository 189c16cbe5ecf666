// One child: its end, its streams, its timers, its events. Everything that happens to it goes through a strand; signals and
// waiting also work from any thread.
#pragma once

#include "process/server_client.hpp"
#include "sandbox/cgroup.hpp"
#include <bulkhead/child.hpp>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <map>

namespace bulkhead {

class BULKHEAD_PRIVATE child_core : public std::enable_shared_from_this<child_core> {
 public:
  child_core(std::shared_ptr<process::server_client> servers, const boost::asio::any_io_executor& executor,
             std::shared_ptr<void> context, const process_options& options, process::spawned_child made, unique_fd end,
             std::unique_ptr<sandbox::cgroup> cgroup);

  // What the application keeps of what the child was given.
  void add_stream(std::size_t number, unique_fd end, bool output);
  void watch_reports(unique_fd reports);
  void add_channel(unique_fd socket, std::function<void(std::vector<unique_fd>)> discard);
  node_channel& channel();
  // Events begin. Once, after all streams have been added.
  void start();

  child_stream& stream(std::size_t number);
  bool kill(int signal, bool tree);
  bool kill_or_tell(int signal, bool tree);  // as kill(); a failure is an error event, too
  void kill_quietly();                       // all of it for good, if that is possible
  exit_status wait();
  std::optional<exit_status> wait_for(std::chrono::nanoseconds limit);
  void start_wait(detail::completion<boost::system::error_code, exit_status> done);
  // Kills the tree and waits for it to end, unless it is detached; without events: the launcher shuts down.
  void end_now();
  // Nobody is interested any more: closes its streams, kills at once what would be killed after the grace. If it has not
  // ended, it is reaped when it does.
  void abandon();
  // Kills it for this reason, politely at first.
  void give_up(std::atomic<bool>& why);
  // Called on the strand when no more is to come: it has been given up and killed for good, but had ended before that (what
  // it left behind may hold its streams for ever), or it lives on when the launcher shuts down.
  void on_given_up(std::function<void()> tell);
  std::vector<violation> violations();

  const pid_t pid;
  const sandbox_report sandbox;
  const boost::asio::any_io_executor executor;
  std::atomic<bool> timed_out{false}, stop_requested{false}, over_limit{false};
  std::atomic<bool> let_go{false};  // the launcher has shut down: nothing more is waited for

 private:
  bool reap();
  void watch_end();
  void watch_server();
  void watch_limits();
  bool given_up() const { return timed_out || stop_requested || over_limit; }
  void on_ended();
  void tell_exit();
  void on_disconnected();
  void check_closed();
  void try_kill(int signal);                                          // a failure is an error event
  void tell_error(boost::system::error_code code, std::string text);  // by itself: what it throws costs nothing else
  void read_reports();

  const std::shared_ptr<void> context_;  // of the executor, if it is the launcher's own
  const std::shared_ptr<process::server_client> servers_;
  const boost::asio::strand<boost::asio::any_io_executor> strand_;
  const child_events events_;
  const bool detached_;
  const std::chrono::nanoseconds timeout_, kill_grace_;
  const int kill_signal_;
  const kill_scope scope_;
  const bool has_init_;  // of ours, which the pidfd stands for
  const std::stop_token stop_;
  const unique_fd pidfd_;
  const int end_number_;
  boost::asio::posix::stream_descriptor end_;                          // where the server tells how it has ended
  std::optional<boost::asio::posix::stream_descriptor> pidfd_watch_;   // when that server has died
  std::optional<boost::asio::posix::stream_descriptor> server_watch_;  // its successor
  std::optional<int> inner_status_;                                    // of the program, when its init is yet to end
  boost::asio::steady_timer timer_;
  std::map<std::size_t, std::shared_ptr<child_stream>> streams_;
  std::size_t open_outputs_ = 0;  // of the strand, as are these
  std::shared_ptr<node_channel> channel_;
  const bool any_handle_, may_send_handles_;
  bool exit_waits_ = false, disconnected_ = false;
  bool exit_told_ = false, closed_ = false;
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;

  std::mutex mutex_;
  std::optional<exit_status> status_;        // once it has been reaped
  std::unique_ptr<sandbox::cgroup> cgroup_;  // until then
  std::vector<detail::completion<boost::system::error_code, exit_status>> waiters_;
  std::function<void()> given_up_;
  std::optional<boost::asio::posix::stream_descriptor> reports_;
  std::string report_line_;
  std::vector<char> report_bytes_;
  std::vector<violation> violations_;
};

}  // namespace bulkhead
