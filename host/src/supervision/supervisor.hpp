// Decides which workers of one plugin run: events in, actions out. It does nothing itself and knows no clock, so every
// transition can be tested without a process.
//
// A driver holds a supervisor (or a group of them) under a lock of its own and
//   - passes every event with the time it happened to handle(), times never decreasing, and carries out the actions
//     that come back, in their order; what an action leads to comes back as another event, not from inside handle();
//   - sets one timer to wake_at() after each handle(), and passes events::tick when it fires;
//   - passes each actions::spawn through the host's spawn_budget, tells it done() when that worker is ready, has ended
//     or is undead, and answers each spawn with exactly one events::exited in the end;
//   - gives calls to the workers named by actions::serve, until drain, kill or their exit; calls without a worker wait,
//     or fail between fail_calls and admit_calls.
// host.load() throws if the first worker can't start: its driver sends events::stop before the exit of one that was not
// ready, or when such a one is killed. Left alone, the supervisor would try again as after any failure.
//
// Places 0 … instances-1 serve, those above are spares. What holds a place is its worker, or the time when one will be
// spawned. A successor is a worker on its way to replace one that still serves; it takes the place when it is ready,
// and only then the old one drains. Workers that drain hold no place.
#pragma once

#include "backoff.hpp"
#include "events.hpp"
#include "restart_window.hpp"

#include <map>
#include <optional>

namespace bulkhead::supervision {

struct supervisor_settings {
  supervision_options rules{};
  std::size_t instances = 1;
  // From a worker's spawn until it is ready; a slower one is killed. The time before, in which it waited for other
  // workers' spawns, does not count.
  std::chrono::nanoseconds start_limit = std::chrono::seconds(10);
  std::size_t memory_limit = 0;  // of a worker, in bytes; 0: none, so none is recycled for its memory
  bool coupled = false;          // its group decides when it restarts
};

enum class supervisor_state {
  stopped,  // not started yet, or stopped on request
  running,
  half_open,    // was given up, and is tried with one worker
  gave_up,      // too many failures: waits for reset, or for its probe
  quarantined,  // after a violation: waits for reset
  ended,        // every worker ended in a way that its restart kind does not restart, or was rejected: waits for reset
  stopping,
};

class supervisor {
 public:
  enum class worker_state { queued, starting, ready, draining, shutting_down, killed, undead };
  struct worker_view {
    worker_id id;
    worker_state state;
    phase reached;                     // of its start
    std::optional<std::size_t> place;  // serving or spare; a successor has its predecessor's
  };

  // `group_window`, if not null, counts the restarts instead of a window of its own, and outlives the supervisor.
  supervisor(supervisor_settings settings, jitter_source jitter, restart_window* group_window = nullptr);

  action_list handle(const event& what, time_point now);
  // What comes often, about each worker, and changes nothing else: as events::answered, without a look at all the others.
  void answered(worker_id id);
  // Whether events::usage has any effect.
  bool worn(const events::usage& e) const;
  // When to come with events::tick; `never`: when there is no need.
  time_point wake_at() const;

  supervisor_state state() const { return state_; }
  bool failing_calls() const { return failing_; }
  std::size_t serving() const;
  // Running, and nothing is missing but what is not to be restarted.
  bool whole() const;
  std::vector<worker_view> workers() const;  // in the order they were spawned

 private:
  struct worker {
    worker_state state = worker_state::queued;
    phase reached = phase::spawn;
    time_point deadline = never;  // of the state it is in
    time_point ready_at = never, ping_at = never;
    unsigned unanswered = 0;      // pings
    double limits = 1;            // its recycle limits are scaled by this
    bool expected = false;        // its end is; it holds no place
    bool serving = false;         // actions::serve was said
    bool recycle = false;         // it is to be recycled when its turn comes
    bool heavy = false;           // that is for its memory
    time_point heavy_from{};      // before, no memory is too much to keep it
    time_point leave_by = never;  // it said that it must go: with or without a successor
  };
  struct holder {      // of a place
    worker_id id = 0;  // 0: none
    supervisor::worker* at = nullptr;
    explicit operator bool() const { return id != 0; }
    bool is_ready() const { return at && at->state == worker_state::ready; }
  };
  struct place {
    holder worker, successor;
    time_point due = never;  // of the next spawn
    bool restart = false;    // the next spawn is one
    bool closed = false;     // none comes after this worker
  };

  void on(const events::start&);
  void on(const events::stop&);
  void on(const events::reset&);
  void on(const events::tick&) {}
  void on(const events::started&);
  void on(const events::ready&);
  void on(const events::drained&);
  void on(const events::leaving&);
  void on(const events::answered&);
  void on(const events::usage&);
  void on(const events::recycle&);
  void on(const events::exited&);

  // Transitions of the whole plugin.
  void open_places();
  void abandon_places();
  void fail(std::string reason);
  void admit();
  void forget_failures();
  void give_up(std::string reason);
  void quarantine(const std::shared_ptr<const crash_report>& report);
  // Of one place or worker.
  void lost(worker_id gone, const worker& was, exit_class how, bool calls_pending);
  bool admit_restart(worker_id gone, std::chrono::nanoseconds& delay);
  void close(place& where);
  void spawn(place& where);
  void seat(std::size_t where);
  void retire(worker_id id);
  void kill(worker_id id, exit_reason reason);
  // What falls due by itself; see supervisor_timers.cpp.
  void settle();
  void expire();
  void expire(worker_id id, worker& each);
  void check_alive(worker_id id, worker& each);
  time_point next_ping() const;
  std::size_t undead() const;
  void probe();
  void spawn_due();
  void recycle_one();
  bool heavy(const worker& each, std::size_t memory) const;
  void fill_from_spares();
  void conclude();
  void note_strength();

  worker* find(worker_id id);
  const worker* find(worker_id id) const { return const_cast<supervisor*>(this)->find(id); }
  place* place_of(worker_id id);
  const place* recycle_candidate() const;
  bool open() const { return state_ == supervisor_state::running || state_ == supervisor_state::half_open; }
  restart_window& window() { return group_window_ ? *group_window_ : own_window_; }
  template <class T>
  void emit(T what) {
    out_.push_back(std::move(what));
  }

  const supervisor_settings settings_;
  const jitter_source jitter_;
  restart_window own_window_;
  restart_window* const group_window_;

  time_point now_{};
  action_list out_;
  supervisor_state state_ = supervisor_state::stopped;
  std::map<worker_id, worker> workers_;
  worker_id last_id_ = 0;
  std::vector<place> places_;
  unsigned failures_ = 0;                    // in a row
  std::optional<time_point> healthy_since_;  // all places open to calls have been served since
  bool was_whole_ = false, degraded_ = false;
  bool failing_ = false;
  worker_id recycling_ = 0;  // the old one
  time_point next_recycle_ = time_point::min();
  bool told_heavy_ = false;
  time_point probe_at_ = never;  // gave_up: of the probe; half_open: when it will have passed
  bool for_good_ = false;        // it stops
  std::optional<std::shared_ptr<const crash_report>> violated_;  // while stopping
  std::vector<std::shared_ptr<const crash_report>> last_exits_;
};

}  // namespace bulkhead::supervision
