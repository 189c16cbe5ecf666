// What a supervisor is told and what it asks for. Workers are named by numbers that the supervisor gives out, each once.
#pragma once

#include "spawn_budget.hpp"
#include <bulkhead/error.hpp>

#include <variant>

namespace bulkhead::supervision {

using worker_id = std::uint64_t;

// How a worker ended, as far as a restart depends on it.
enum class exit_class {
  normal,     // exit(0)
  abnormal,   // a signal, another exit code, killed by the driver for a call that overran, or it could not be spawned
  violation,  // of the protocol, or a system call that seccomp killed it for
  rejected,   // before it was ready: the plugin can't be loaded, or may not be, and another try would end the same way
};

namespace events {

// To the plugin.
struct start {};            // its first start, or the next one after stopped
struct stop {               // ends all workers in good order; actions::stopped follows
  bool calls_wait = false;  // until the next start, rather than fail
  bool for_good = false;    // none comes: how its workers end no longer matters
  std::string reason{};     // for the calls that fail
};
struct reset {        // forgets all failures, leaves any of the states that restart nothing
  bool start = true;  // else: stopped
};
struct tick {};  // wake_at() has come

// About one worker. What concerns a worker that has ended, or comes in the wrong state, is ignored.
struct started {  // it has been spawned, or has reached a later phase of its start
  worker_id worker;
  phase reached;
};
struct ready {
  worker_id worker;
};
struct drained {  // no call is in progress in it
  worker_id worker;
};
struct leaving {  // it says that it must go
  worker_id worker;
};
struct answered {  // a sign of life from the thread that runs calls; or it was busy when actions::ping asked for one
  worker_id worker;
};
struct usage {
  worker_id worker;
  std::uint64_t calls = 0;  // served since it was spawned
  std::size_t memory = 0;   // its resident set, in bytes
};
struct recycle {  // somebody asks for a fresh one in its place
  worker_id worker;
};
struct exited {  // nothing is left of it. Each actions::spawn is answered by exactly one, even if nothing was spawned
  worker_id worker;
  exit_class how;
  bool calls_pending = false;
  std::shared_ptr<const crash_report> report{};
};

}  // namespace events

using event =
    std::variant<events::start, events::stop, events::reset, events::tick, events::started, events::ready,
                 events::drained, events::leaving, events::answered, events::usage, events::recycle, events::exited>;

namespace actions {

// To be done, in this order.
struct spawn {  // when the host's spawn_budget grants it; answered by events::started
  worker_id worker;
  std::size_t place;  // below the number of instances: to serve; else a spare
  spawn_kind kind;
};
struct serve {  // the worker may be given calls, as instance number `place`
  worker_id worker;
  std::size_t place;
};
struct ping {  // ask for a sign of life; a busy worker is not asked: events::answered at once
  worker_id worker;
};
struct drain {  // no new calls to it; events::drained when none is in progress
  worker_id worker;
};
struct shutdown {  // tell it to shut down
  worker_id worker;
};
struct kill {  // SIGKILL to all of it; a spawn that still waits is withdrawn
  worker_id worker;
  exit_reason reason;  // hung, start_timeout or shut_down
};
struct fail_calls {  // those that wait for a worker, and all that come: `unavailable`, at once
  std::string reason;
};
struct admit_calls {};  // calls may come again; they wait until there is a worker for them
struct ended {};        // all workers ended as they may, and none is restarted; after fail_calls
struct stopped {};      // nothing runs any more but workers that are undead

// For the driver of a group; never seen outside.
struct restart_group {  // a worker failed: stop and start what depends on it, not before `due`
  time_point due;
};
struct reset_group {};  // a plugin that was given up may be tried again

// To be told to the embedder.
struct restarting {
  worker_id worker;  // the one that ended
  std::chrono::nanoseconds delay;
};
struct degraded {  // fewer instances serve than should
  std::size_t serving, instances;
};
struct recovered {};  // all instances serve again
struct gave_up {
  std::string reason;
  std::vector<std::shared_ptr<const crash_report>> last_exits;  // up to five, the latest last; each has its log tail
};
struct quarantined {
  std::shared_ptr<const crash_report> report;
};
struct undead {  // killed, and yet the kernel does not report its end: it is waited for no longer
  worker_id worker;
};
struct soon_heavy {};  // a worker needed most of its memory limit within healthy_after of its start; told once

}  // namespace actions

using action =
    std::variant<actions::spawn, actions::serve, actions::ping, actions::drain, actions::shutdown, actions::kill,
                 actions::fail_calls, actions::admit_calls, actions::ended, actions::stopped, actions::restart_group,
                 actions::reset_group, actions::restarting, actions::degraded, actions::recovered, actions::gave_up,
                 actions::quarantined, actions::undead, actions::soon_heavy>;
using action_list = std::vector<action>;

}  // namespace bulkhead::supervision
