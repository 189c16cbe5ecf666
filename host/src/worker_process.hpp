// One worker process, from spawn to reaping: its channel, its pidfd, its log, its black box. The account of every call
// is closed here: whatever becomes of the process, each open call gets exactly one outcome.
#pragma once

#include "blobs/worker_blobs.hpp"
#include "host_core.hpp"
#include "instance.hpp"
#include "log_stream.hpp"
#include "report/black_box.hpp"
#include "report/kept_requests.hpp"
#include <bulkhead/ipc/channel.hpp>

namespace bulkhead {

struct black_box_copy;

// A plugin's state, kept over its workers and versions. Under the pool's lock.
struct kept_state {
  std::optional<std::vector<std::uint8_t>> bytes;
  ipc::time_point saved{};
  bool unusable = false;  // a worker has ended while it restored it
};

// What to start: a plugin or a foreign program.
struct worker_settings {
  std::string name;
  std::string file;                         // the plugin's or program's, absolute
  std::string sha256;                       // of the plugin's contents
  std::shared_ptr<const unique_fd> plugin;  // the opened file
  std::vector<std::string> argv;            // of a foreign program
  load_options options;
  policy rules;                                   // of its sandbox, as it was worked out from the options
  std::shared_ptr<worker_counters> counters;      // none: not counted
  std::shared_ptr<kept_state> state;              // none: it keeps none
  std::shared_ptr<argument_blobs> arguments;      // none: no blobs
  std::shared_ptr<class worker_watcher> watcher;  // none: calls are all that it does
  bool internal = false;                          // the host's own: its end is nobody else's business
};

// Who is told what becomes of a worker; any thread, none of the worker's locks held.
class worker_owner : public instance_owner {
 public:
  struct ending {
    std::shared_ptr<const crash_report> report;
    bool rejected;       // it said that the file is no plugin
    bool calls_pending;  // it left calls unanswered
  };
  virtual void on_started(std::uint64_t id, pid_t pid) = 0;
  virtual void on_ready(std::uint64_t id) = 0;
  virtual void on_leaving(std::uint64_t id) = 0;
  virtual void on_exited(std::uint64_t id, const ending& how) = 0;
};

class worker_process final : public reactor::target,
                             ipc::channel::receiver,
                             ipc::channel::wakeups,
                             published_state::reader,
                             public std::enable_shared_from_this<worker_process> {
 public:
  // `id` is what the owner, which may be none, is told it by. No process yet.
  worker_process(std::shared_ptr<host_core> core, std::shared_ptr<const worker_settings> settings,
                 std::weak_ptr<worker_owner> owner, std::uint64_t id);
  ~worker_process() override;
  // Throws call_error unavailable when no process could be made. Does not wait for it to be ready.
  void start();

  // Blocks until the outcome.
  reply call(call_request& request);
  // Leaves `handler` as it is and returns an outcome other than ok when the call could not be started.
  outcome async_call(std::shared_ptr<call_request> request, std::unique_ptr<reply_handler>& handler);
  // Why a call could not be started, for people.
  static std::string not_started(outcome code, const call_request& request, const ipc::limits& limits);
  const ipc::limits& limits() const { return settings_->options.limits; }
  // Sends a request of the protocol's own, perhaps with one parameter; `answered` is called in the end, whatever comes
  // of it, if this returns true. One that is not answered by the deadline ends the worker.
  bool ask(std::string_view request, std::function<void(ipc::completion&&)> answered,
           ipc::time_point deadline = ipc::never, std::optional<ipc::byte_span> parameter = {});

  // Whether new calls can go to it.
  bool ready() const { return ready_; }
  bool alive() const { return !dead_ && !channel_.closed(); }
  worker_info info() const;
  // Whether the plugin's code runs for a call, be it one that was given up.
  bool in_call() const;
  // Calls in progress, those given up but not yet answered included.
  unsigned outstanding() const { return channel_.outstanding(); }
  // The call that it died in, or whose hang it was killed for; once it has ended.
  std::optional<std::uint32_t> fatal_call() const {
    std::lock_guard held(mutex_);
    return fatal_call_;
  }
  std::size_t resident_bytes() const;
  // What is published that it may read: no memory of its own.
  std::size_t published_bytes() const;
  // Whether all that was sent to it has been given to the kernel.
  bool all_sent() { return channel_.unsent() == 0; }
  // Whether something is not, for want of what the system sends it with.
  bool starved() { return channel_.starved(); }
  // Blocks until it is ready; throws call_error when it can't get ready.
  void wait_ready();
  // What it said of itself when it got ready.
  plugin_info description() const;
  bool idempotent(std::string_view method) const;  // by its own word

  void ask_to_leave();
  // SIGKILL to all of it; `reason` is reported unless it has ended by itself.
  void kill(exit_reason reason, const std::string& why = {});
  // It was killed, and its end is waited for no longer: its calls end now. Not under the pool's lock.
  void abandon();
  // Blocks until it has ended; kills it at `deadline`.
  void end(ipc::time_point deadline);

  // reactor::target
  void on_ready(int tag, std::uint32_t events) override;
  void on_timer() override;

 private:
  static constexpr unsigned event_credit = 1024, credit_batch = 256;
  static constexpr std::chrono::milliseconds exit_after_close{100};  // between closing its channel and exiting

  class carried_call;

  worker_process(std::shared_ptr<host_core> core, std::shared_ptr<const worker_settings> settings,
                 std::weak_ptr<worker_owner> owner, std::uint64_t id, std::pair<unique_fd, unique_fd> ends);
  std::unique_ptr<ipc::transport> make_transport(unique_fd socket);
  void spawn();
  void say_hello();
  void greeted(const ipc::completion& answer);
  void greet(std::uint32_t published);
  // published_state::reader
  void on_published(const std::string& name, const ipc::snapshot& value) noexcept override;
  void on_unpublished(const std::string& name, std::uint64_t version) noexcept override;
  // What the worker has been told of a name.
  struct told {
    std::uint64_t version = 0;  // whose memory was sent last
    bool on_its_way = false;    // it has not said that it took that
    bool announced = false;     // it knows that there is a newer one, which it will get
    bool there = false;         // it has not been told that the name is gone
  };
  void tell_published(const std::string& name, const ipc::snapshot& value) noexcept;
  void tell_unpublished(const std::string& name, told& known) noexcept;
  bool send_published(const std::string& name, const ipc::snapshot& value, bool with_memory);
  void owe_published() noexcept;
  void tell_what_is_owed() noexcept;
  void took_published(const std::string& name, std::uint64_t version);
  void tell_watcher() noexcept;
  std::weak_ptr<published_state::reader> as_reader();

  // ipc::channel::receiver
  void on_request(const ipc::message& request, std::vector<unique_fd> handles) override;
  void on_notification(const ipc::message& notification, std::vector<unique_fd> handles) override;
  void on_closed(const std::string& violation) override;
  const char* hold_blobs(ipc::byte_span result, ipc::held_blobs& into) override {
    return blobs_->hold_results(result, into);
  }
  void discard(std::vector<unique_fd> handles) override;
  struct untaken;
  void take_event(const ipc::message& notification, const std::shared_ptr<untaken>& came);
  void on_late_answer(std::uint32_t id) override;
  // ipc::channel::wakeups
  void arm(bool reading, bool writing) override;
  void schedule(ipc::time_point when) override;
  bool again() override;

  ipc::channel::started begin(call_request& request, ipc::waiter* sync, std::unique_ptr<ipc::async_completion>* async,
                              std::optional<std::uint32_t>* known_id);
  ipc::buffer bind_stream(std::uint32_t id, const std::shared_ptr<call_stream>& stream);
  // Sends what the worker has to know. One that makes more of it due than it reads is ended.
  bool tell(ipc::byte_span frame, std::vector<unique_fd> handles = {});
  void say_of_stream(std::uint32_t id, std::vector<std::uint8_t> frame);
  const char* tell_stream(const ipc::message& notification);
  void keep_request(std::uint32_t id, const call_request& request);
  void watch_progress(std::uint32_t id, const call_request& request);
  void forget_progress(std::uint32_t id);
  void forget_call(std::uint32_t id, outcome code);
  bool spend_event_credit(std::size_t bytes);
  void return_event_credit(std::size_t bytes);
  bool await_exit(ipc::time_point deadline);
  void stop_watching();
  bool has_ended(ipc::time_point deadline);
  void settle();  // after the process has ended: account, report, clean up
  ipc::completion verdict(const ipc::channel::open_call& call, const crash_report& report, std::uint64_t begun) const;
  struct ending_status;
  ending_status status_of_end();
  crash_report make_report(const black_box_copy& box);
  void read_log(bool to_the_end);
  void read_reports(bool to_the_end);

  const std::shared_ptr<host_core> core_;
  const std::shared_ptr<const worker_settings> settings_;
  const std::weak_ptr<worker_owner> owner_;
  const std::uint64_t id_;
  unique_fd worker_end_;           // of the socket, until the worker has it
  unique_fd lane_to_, lane_from_;  // the memory of its lanes, until they are in use
  const int socket_;               // the channel's own, for the reactor
  ipc::channel channel_;
  std::shared_ptr<log_stream> log_;
  unique_fd pidfd_, log_pipe_, reports_pipe_;
  unique_fd end_pipe_;  // of a program of others, which is the fork server's child
  std::atomic<pid_t> pid_{-1};
  std::atomic<ipc::time_point> started_{ipc::time_point{}};
  std::unique_ptr<sandbox::cgroup> cgroup_;
  std::string sandbox_;  // the layers in force, as the fork server said; before pid_
  const std::uint64_t socket_watch_, pidfd_watch_, log_watch_, reports_watch_;
  const unique_fd black_box_;
  const std::shared_ptr<const unique_fd> image_;
  kept_requests kept_;
  std::shared_ptr<worker_blobs> blobs_;
  const ipc::time_point start_deadline_;

  std::atomic<bool> end_lost_{false};  // the fork server has died before it could tell
  std::atomic<bool> ready_{false}, exited_{false}, dead_{false}, leaving_{false}, log_paused_{false};
  std::atomic<bool> abandoned_{false};
  std::atomic<ipc::time_point> next_timer_{ipc::never};
  std::atomic<ipc::time_point> kill_at_{ipc::never};  // it closed its channel and has not exited yet
  std::map<std::string, told> told_;                  // with the lock of what is published, as is the next
  bool acknowledges_ = false;                         // it says what of that it has taken
  std::atomic<bool> owes_published_{false};
  std::atomic<unsigned> host_calls_{0};
  std::pair<std::uint32_t, ipc::time_point> next_deadline_{0, ipc::never};  // of the call to the host that comes next
  std::atomic<unsigned> events_{0};                                         // that wait for their handler
  std::atomic<std::size_t> event_bytes_{0};
  unsigned events_to_credit_ = 0;  // handled; by callbacks_ alone, as are their bytes
  std::size_t bytes_to_credit_ = 0;

  std::mutex reading_reports_;
  std::string partial_report_;

  mutable std::mutex mutex_;
  std::condition_variable settled_;
  bool settling_ = false, is_settled_ = false;
  bool is_reaped_ = false;  // its status was had
  exit_reason condemned_ = exit_reason::unknown;
  std::string why_;
  violation killed_for_;
  bool no_plugin_ = false;
  plugin_info description_;
  std::shared_ptr<const crash_report> report_;
  std::optional<std::uint32_t> fatal_call_;
  std::map<std::uint32_t, std::shared_ptr<progress_reports>> progress_;
  std::map<std::uint32_t, std::shared_ptr<call_stream>> streams_;  // of calls that the worker has not answered
  serial_queue callbacks_{[this] { return core_->handlers(); }};
};

}  // namespace bulkhead
