// The workers of one version of a plugin: carries out what their supervisor decides, with real processes, and tells it
// what becomes of them. It knows nothing of calls but how many each worker has.
//
// All of a pool shares one lock; functions marked (locked) expect it held. What workers report comes on any thread and
// takes it by itself.
#pragma once

#include "host_core.hpp"
#include "supervision/supervisor.hpp"
#include "worker_process.hpp"
#include "worker_watcher.hpp"

namespace bulkhead {

class group_core;

class worker_set final : public worker_owner, public reactor::target, public std::enable_shared_from_this<worker_set> {
 public:
  struct member {
    supervision::worker_id id = 0;
    std::weak_ptr<worker_set> set;
    std::shared_ptr<worker_process> process;  // none until its spawn was granted
    supervision::spawner::ticket spawn = 0;
    std::size_t place = 0;
    bool draining = false;
    bool pinged = false;  // and has not answered yet
    // Of its state, if it keeps one.
    bool restoring = false, restored = false;  // restored: its state is the one that counts
    bool changed = false;                      // since it was saved
    bool parked = false;                       // gets no calls until resume_calls()
    bool handed_over = false;                  // its state was saved after its last call
    unsigned saves = 0;                        // under way
    std::string save_failure{};                // of the last one, if it failed
    std::optional<exit_reason> killed;
    unsigned in_progress = 0;                   // calls given to it and not yet given back
    std::uint64_t served = 0, served_then = 0;  // then: when its memory was looked at
    struct given_up_call {
      std::uint32_t id;  // in the worker
      std::size_t fingerprint;
      std::string method;
    };
    std::deque<given_up_call> given_up;  // the last ones: one of them may be what it hangs in
    unsigned pings = 0;                  // since it began
  };
  using lease = std::shared_ptr<member>;

  class listener : public instance_owner {
   public:
    // There may be workers for calls that wait, or these calls are to fail. The lock is not held.
    virtual void on_change() = 0;
    // It was killed for its hang. The lock is not held.
    virtual void on_hung(const member& worker) = 0;
  };

  worker_set(std::shared_ptr<host_core> core, std::shared_ptr<worker_settings> settings,
             std::shared_ptr<std::mutex> mutex, std::weak_ptr<listener> pool, std::shared_ptr<group_core> group);

  // From now on, until it leaves, its group decides when it is restarted. (locked)
  void join(std::size_t member) { member_ = member; }
  std::optional<std::size_t> leave() { return std::exchange(member_, std::nullopt); }
  std::optional<std::size_t> membership() const { return member_; }

  // Starts all and waits until they are ready; throws call_error when the first try of one fails, when none is left.
  void start(std::unique_lock<std::mutex>& held);
  // Ends all in good order, for good, without waiting. Calls that wait for a worker fail, for this reason. (locked)
  void stop(const std::string& reason);
  // The same until start_again(). (locked)
  void pause(const std::string& reason, bool calls_wait);
  void start_again();
  // Blocks until all have ended, or are undead. For the last time: nothing of them or of the plugin's file is left here.
  void wait_stopped(std::unique_lock<std::mutex>& held);
  // Forgets all failures and starts what does not run, unless start_again() will. (locked)
  void reset(bool start = true);
  // Each worker, or the one with this pid, is replaced by a fresh one; false when there is none. (locked)
  bool recycle(std::optional<pid_t> pid = {});

  // Those that take calls, in the order of their places; some may have just died. (locked)
  const std::vector<lease>& serving() const { return serving_; }
  // Why calls can't be had at present, and fail at once. (locked)
  const std::optional<std::string>& failing() const { return failing_; }
  // A call has ended. (locked)
  static void give_back(const lease& worker);

  // State, see state_options; in worker_state.cpp.
  // Workers get no calls until admit_calls() or resume_calls(). (locked)
  void hold_calls() { held_ = true; }
  // As start(): waits until it serves, from the state that was handed over.
  void admit_calls(std::unique_lock<std::mutex>& held);
  // Waits until its calls have ended and its state is saved; calls wait. Throws call_error when that can't be.
  void hand_over(std::unique_lock<std::mutex>& held);
  // After that: it goes on. (locked)
  void resume_calls();
  // Waits for it. Throws call_error.
  std::vector<std::uint8_t> save_state(std::unique_lock<std::mutex>& held);

  supervision::supervisor_state state() const { return supervisor_.state(); }  // (locked)
  // After stop(): no worker is left, not even an undead one. (locked)
  bool gone() const { return supervisor_.state() == supervision::supervisor_state::stopped && members_.empty(); }
  const plugin_info& description() const { return description_; }  // (locked)
  std::vector<std::shared_ptr<worker_process>> processes() const;  // (locked)
  // Adds its workers to those counted there, by what they are at. (locked)
  void count(plugin_metrics& out) const;
  const worker_settings& settings() const { return *settings_; }

  // worker_owner
  void on_event(const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles) override;
  void on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) override;
  void on_violation(violation what) override;
  void on_started(std::uint64_t id, pid_t pid) override;
  void on_ready(std::uint64_t id) override;
  void on_leaving(std::uint64_t id) override;
  void on_exited(std::uint64_t id, const ending& how) override;
  // reactor::target
  void on_ready(int, std::uint32_t) override {}
  void on_timer() override;

 private:
  void decide(const supervision::event& what);
  void apply(const supervision::event& what);
  void wake_by(ipc::time_point when);
  void tell(const supervision::event& what);  // takes the lock
  template <class Action>
  void execute(const Action& action);
  void spawn(supervision::worker_id id);  // on the spawner's thread
  void note_usage(const lease& worker, std::size_t memory);
  void ping(const lease& worker, worker_process& process, bool look);  // takes the lock
  std::shared_ptr<worker_process> make_process(supervision::worker_id id);
  void never_spawned(const lease& worker);
  void check_drained(const lease& worker);
  void drained(const lease& worker);
  void admit(const lease& worker);
  void employ(const lease& worker);
  void wait_serving(std::unique_lock<std::mutex>& held);
  // Whether the first failure is the last: until its group has it, nobody would start a worker again.
  bool starts() const { return starting_ || (group_ && !member_); }
  void give_up_start();
  void start_failed(outcome code, const std::string& how, std::shared_ptr<const crash_report> report = {});
  void take_over();
  void restore(const lease& worker);
  void save(const lease& worker, std::function<void(const ipc::completion&)> done);
  void save_if_due(const lease& worker);
  void lifecycle(lifecycle_event event);
  void wait_change(std::unique_lock<std::mutex>& held, ipc::time_point until = ipc::never);
  void announce();
  lease find(supervision::worker_id id) const;

  const std::shared_ptr<host_core> core_;
  const std::shared_ptr<worker_settings> settings_;
  const std::shared_ptr<std::mutex> mutex_;
  const std::weak_ptr<listener> pool_;
  const std::shared_ptr<group_core> group_;
  std::optional<std::size_t> member_;  // of the group

  supervision::supervisor supervisor_;
  std::deque<supervision::action> actions_;  // not yet carried out
  bool executing_ = false;
  struct asked {  // for a sign of life
    lease worker;
    std::shared_ptr<worker_process> process;
    bool look;  // at its memory
  };
  std::vector<asked> to_ping_;
  ipc::time_point next_tick_ = ipc::never;
  std::map<supervision::worker_id, lease> members_;
  std::vector<lease> serving_;
  bool held_ = false;
  std::atomic<std::size_t> processes_{0};  // objects, those of workers that have ended included
  std::optional<std::string> failing_;
  std::string last_failure_;  // of a worker, for people
  bool starting_ = false;
  std::optional<call_error> start_failure_;
  plugin_info description_;
  std::condition_variable changed_;
};

}  // namespace bulkhead
