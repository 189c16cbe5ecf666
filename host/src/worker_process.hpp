// One worker process, from spawn to reaping: its channel, its pidfd, its log, its black box. The account of every call
// is closed here: whatever becomes of the process, each open call gets exactly one outcome.
#pragma once

#include "host_core.hpp"
#include "instance.hpp"
#include "log_stream.hpp"
#include "report/black_box.hpp"
#include <bulkhead/ipc/channel.hpp>

namespace bulkhead {

// What to start. `plugin` is the opened file, or none for a foreign program.
struct worker_settings {
  std::string name;
  unique_fd plugin;
  std::vector<std::string> argv;  // of a foreign program
  load_options options;
  policy rules;  // of its sandbox, as it was worked out from the options
};

class worker_process final : public instance,
                             public reactor::target,
                             ipc::channel::receiver,
                             ipc::channel::wakeups,
                             public std::enable_shared_from_this<worker_process> {
 public:
  // Throws call_error unavailable when no process could be made. Does not wait for it to be ready.
  static std::shared_ptr<worker_process> spawn(std::shared_ptr<host_core> core,
                                               std::shared_ptr<const worker_settings> settings,
                                               std::weak_ptr<instance_owner> owner);
  ~worker_process() override;

  reply call(call_request& request) override;
  outcome async_call(call_request& request, std::unique_ptr<reply_handler>& handler) override;
  bool alive() const override { return !dead_ && !channel_.closed(); }
  bool ended() const override;
  worker_info info() const override;
  unsigned outstanding() const override { return channel_.outstanding(); }
  void wait_ready() override;
  plugin_info description() const override;
  void drain(ipc::time_point deadline) override;
  void ask_to_leave() override;
  void end(ipc::time_point deadline) override;

  // reactor::target
  void on_ready(int tag, std::uint32_t events) override;
  void on_timer() override;

 private:
  class carried_call;
  struct black_box_copy;

  worker_process(std::shared_ptr<host_core> core, std::shared_ptr<const worker_settings> settings,
                 std::weak_ptr<instance_owner> owner, unique_fd socket);
  void start(unique_fd worker_end);
  void say_hello();

  // ipc::channel::receiver
  void on_request(const ipc::message& request, std::vector<unique_fd> handles) override;
  void on_notification(const ipc::message& notification, std::vector<unique_fd> handles) override;
  void on_closed(const std::string& violation) override;
  // ipc::channel::wakeups
  void arm(bool reading, bool writing) override;
  void schedule(ipc::time_point when) override;

  ipc::channel::started begin(call_request& request, ipc::waiter* sync, std::unique_ptr<ipc::async_completion>* async,
                              std::optional<std::uint32_t>* known_id);
  void watch_progress(std::uint32_t id, call_request& request);
  void forget_progress(std::uint32_t id);
  bool spend_event_credit();
  void return_event_credit();
  void condemn(exit_reason reason, const std::string& why);
  bool await_exit(ipc::time_point deadline);
  void stop_watching();
  void settle();  // after the process has ended: account, report, clean up
  ipc::completion verdict(const ipc::channel::open_call& call, const crash_report& report, std::uint64_t begun) const;
  crash_report make_report(const black_box_copy& box);
  void read_log(bool to_the_end);
  void read_reports(bool to_the_end);

  const std::shared_ptr<host_core> core_;
  const std::shared_ptr<const worker_settings> settings_;
  const std::weak_ptr<instance_owner> owner_;
  const int socket_;  // the channel's own, for the reactor
  ipc::channel channel_;
  std::shared_ptr<log_stream> log_;
  unique_fd pidfd_, log_pipe_, reports_pipe_, black_box_;
  pid_t pid_ = -1;
  std::unique_ptr<sandbox::cgroup> cgroup_;
  std::string sandbox_;  // the layers in force, as the fork server said
  const std::uint64_t socket_watch_, pidfd_watch_, log_watch_, reports_watch_;
  const ipc::time_point start_deadline_;

  std::atomic<bool> ready_{false}, exited_{false}, dead_{false}, leaving_{false}, log_paused_{false};
  std::atomic<ipc::time_point> next_timer_{ipc::never};
  std::atomic<ipc::time_point> kill_at_{ipc::never};  // it closed its channel and has not exited yet
  std::atomic<unsigned> host_calls_{0};
  std::atomic<unsigned> events_{0}, events_to_credit_{0};

  std::mutex reading_reports_;
  std::string partial_report_;

  mutable std::mutex mutex_;
  std::condition_variable settled_;
  bool settling_ = false, is_settled_ = false;
  exit_reason condemned_ = exit_reason::unknown;
  std::string why_;
  bool no_plugin_ = false;
  plugin_info description_;
  std::shared_ptr<const crash_report> report_;
  std::map<std::uint32_t, std::shared_ptr<std::function<void(const msgpack::object&)>>> progress_;
  std::optional<boost::asio::strand<boost::asio::any_io_executor>> strand_;
};

}  // namespace bulkhead
