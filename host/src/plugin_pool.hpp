// A loaded plugin: finds a worker for each call, lets calls wait for one, gives those that were not begun to another
// worker, and changes from one version of the plugin to the next.
#pragma once

#include "blobs/argument_blobs.hpp"
#include "group_core.hpp"
#include "in_process.hpp"
#include "worker_set.hpp"

#include <list>

namespace bulkhead {

class BULKHEAD_PRIVATE plugin_pool final : public worker_set::listener,
                                           public reactor::target,
                                           public std::enable_shared_from_this<plugin_pool> {
 public:
  plugin_pool(std::shared_ptr<host_core> core, std::string name, std::filesystem::path file,
              std::vector<std::string> argv, load_options options, std::shared_ptr<group_core> group,
              std::shared_ptr<worker_watcher> watcher = nullptr);
  ~plugin_pool() override;

  // Starts all instances and waits for them. Throws call_error. The group may be null.
  static plugin load(const std::shared_ptr<host_core>& core, const std::filesystem::path& file,
                     std::vector<std::string> argv, load_options options, const std::shared_ptr<group_core>& group,
                     std::shared_ptr<worker_watcher> watcher = nullptr);
  static plugin launch(const std::shared_ptr<host_core>& core, const std::vector<std::string>& argv,
                       load_options options, const std::shared_ptr<group_core>& group);

  // What the application holds: the plugin is unloaded, by the application's own thread, when the last of it is gone; by a
  // handler thread if that happens where nobody can wait: on the reactor's, with a callback that held it, or in a function
  // that a plugin in this process has called. Others may hold the pool itself meanwhile and never wait for anything.
  std::shared_ptr<plugin_pool> handle();

  reply call(std::string_view method, packed_arguments arguments, const call_options& options);
  void async_call(std::string_view method, packed_arguments arguments, const call_options& options,
                  std::unique_ptr<reply_handler> handler);
  std::shared_ptr<call_stream> open(std::string_view method, packed_arguments arguments, const call_options& options);
  // See relayed_call.hpp.
  std::shared_ptr<call_stream> relay(std::string_view method, packed_arguments arguments, const call_options& options,
                                     std::shared_ptr<ipc::stream::link> onward, std::unique_ptr<reply_handler> handler);
  static plugin_pool& of(const plugin& handle) { return handle.pool(); }
  using event_handler = std::function<void(const std::string&, const msgpack::object&, std::vector<unique_fd>&)>;
  void on_event(event_handler handler);
  plugin_info describe() const;
  std::vector<worker_info> workers() const;
  plugin_status status() const;
  plugin_metrics metrics() const;
  void reset();
  bool recycle(std::optional<pid_t> pid);
  void reload(const std::filesystem::path& file);
  std::vector<std::uint8_t> save_state();
  void unload();
  host_core& core() { return *core_; }
  argument_blobs& arguments() { return *arguments_; }

  // What its group decides. (locked)
  void stop_with_group(bool calls_wait, const std::string& reason);
  void start_with_group();
  void reset_with_group();

  // worker_set::listener
  void on_event(const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles) override;
  void on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) override;
  void on_violation(violation what) override { tell(std::move(what), 0); }
  void on_change() override;
  void on_hung(const worker_set::member& worker) override;
  // reactor::target
  void on_ready(int, std::uint32_t) override {}
  void on_timer() override;

 private:
  void start();
  void tell(violation what, std::uint64_t dropped);
  using lease = worker_set::lease;
  class pooled_call;
  struct sync_waiter;
  struct waiting;  // a call without a worker yet
  class queued_share;

  std::shared_ptr<worker_settings> make_settings(const std::filesystem::path& file, std::vector<std::string> argv,
                                                 const load_options& options);
  void heed_requests(worker_settings& settings, const std::string& sha256);
  void await_serving(worker_set& fresh, std::unique_lock<std::mutex>& held);

  // The way of a call; see pool_calls.cpp.
  void begin(call_request& request, std::string_view method, packed_arguments arguments,
             const call_options& options) const;
  std::shared_ptr<call_request> begin(std::string_view method, packed_arguments arguments,
                                      const call_options& options) const;
  std::size_t most_window() const;
  void start_stream(const std::shared_ptr<call_request>& request, std::unique_ptr<reply_handler> handler);
  std::optional<ipc::completion> refusal(const call_request& request) const;   // (locked)
  std::optional<ipc::completion> overload(const call_request& request) const;  // (locked)
  lease choose(const call_request& request);                                   // (locked)
  lease acquire(const call_request& request, bool again, ipc::completion& failure);
  lease wait_for_worker(const call_request& request, bool again, ipc::completion& failure);
  void release(const lease& worker);
  struct attempts {      // of a call so far, in vain
    unsigned lost = 0;   // workers that it was lost with
    unsigned moved = 0;  // workers that died before they began it
  };
  bool goes_on(const call_request& request, const reply& result, worker_set::member& worker, attempts& so_far);
  void submit(std::unique_ptr<pooled_call> call, bool again);
  reply call_worker(call_request& request);
  static void launch(const lease& worker, std::unique_ptr<pooled_call> call);
  void abandon_waiting(std::uint64_t ticket);
  void wake_by(ipc::time_point deadline);  // (locked)
  bool may_be_noted(const call_request& request) const;
  void note_killer(std::size_t fingerprint, std::string_view method);  // (locked)
  static std::size_t fingerprint(const call_request& request);
  static void count_end(call_request& request, const reply& result);
  class counted_handler;

  const std::shared_ptr<host_core> core_;
  const std::string name_;
  const load_options options_;
  mutable call_meter meter_;
  const std::shared_ptr<worker_counters> counters_ = std::make_shared<worker_counters>();
  const std::shared_ptr<kept_state> state_;  // null: none is kept
  const std::shared_ptr<argument_blobs> arguments_;
  const std::shared_ptr<worker_watcher> watcher_;
  const unsigned sent_ahead_;                   // calls that a busy worker gets
  std::string file_;                            // isolation::none
  std::shared_ptr<worker_settings> first_;      // until start()
  const std::shared_ptr<group_core> group_;     // coupled, or null
  const std::shared_ptr<std::mutex> mutex_;     // the group's, if there is one
  std::shared_ptr<in_process_instance> local_;  // isolation::none
  std::shared_ptr<worker_set> current_;
  std::vector<std::shared_ptr<worker_set>> retiring_;  // older versions that still end
  std::mutex reloading_;
  std::atomic<std::size_t> queued_bytes_{0};
  std::list<waiting> queue_;
  ipc::time_point next_timer_ = ipc::never;  // for the earliest deadline of asynchronous calls in there, or before it
  std::uint64_t last_ticket_ = 0;
  std::size_t next_place_ = 0;  // round robin
  static constexpr std::chrono::minutes poison_memory{10};
  struct suspect {
    unsigned killed = 0;
    ipc::time_point since;
  };
  std::map<std::size_t, suspect> suspects_;  // by fingerprint
  event_handler event_handler_;
  bool unloaded_ = false;
};

}  // namespace bulkhead
