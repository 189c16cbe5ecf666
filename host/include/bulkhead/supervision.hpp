// How a plugin's workers are kept running: which of their ends are followed by a restart, how soon and how often, and
// when a worker is replaced in good order. The defaults suit most plugins; every one of them can be changed per plugin.
//
//   host.load("image.so", {.instances = 4, .supervision = {.restart = restart_kind::permanent, .spares = 1}});
//
// These are plain values: any thread may copy them, nothing blocks.
#pragma once

#include <bulkhead/export.hpp>

#include <chrono>
#include <cstdint>

namespace BULKHEAD_PUBLIC bulkhead {

// Which ends of a worker are followed by a restart. An exit(0) while calls were in progress counts as abnormal; a
// worker that the host has ended counts as neither. A violation (of the protocol, or one that seccomp has killed) is
// never followed by a restart, whatever the kind: the plugin is quarantined.
enum class restart_kind {
  permanent,  // each
  transient,  // abnormal ones: signals, exit codes other than 0, hangs, starts that took too long
  temporary,  // none
};

// How a failure in one plugin of a group reaches the others. Groups are started in order and stopped in reverse order.
enum class restart_strategy {
  one_for_one,   // not at all
  one_for_all,   // all are stopped and started again
  rest_for_one,  // those that were started after it are stopped and started again
};

// At most `restarts` in any `period`, of all workers of the plugin together (of a group other than one_for_one: of all
// its plugins together). One more, and the plugin is given up. Requested recycles and rejected loads never count.
// 0 restarts: the first failure gives it up.
struct restart_intensity {
  unsigned restarts = 5;                                       // how many
  std::chrono::nanoseconds period = std::chrono::seconds(60);  // in how long
};

// The delay before a restart: none the first time, then `first`, doubled each time until `longest`; each ± `jitter` of
// itself (0.2: 20 %; applied last, so a delay may exceed `longest` by as much). The first time comes again once the
// plugin has had all its workers ready for `healthy_after` without a failure.
struct restart_backoff {
  std::chrono::nanoseconds first = std::chrono::milliseconds(100);    // the second delay
  std::chrono::nanoseconds longest = std::chrono::seconds(10);        // to which it doubles
  double jitter = 0.2;                                                // a share of the delay
  std::chrono::nanoseconds healthy_after = std::chrono::seconds(60);  // how long well counts as well
};

// How a worker is ended in good order: it gets no new calls, then calls in progress may finish for `calls`, then it is
// told to shut down and may clean up for `shutdown`, then it is killed. One whose end the kernel has not reported
// `undead_after` the kill is reported as undead, and waited for no longer: calls in it end with `worker_lost`. Of those
// as many are replaced as the plugin has instances and spares; with one more it is given up.
struct drain_limits {
  std::chrono::nanoseconds calls = std::chrono::seconds(5);         // for calls in progress
  std::chrono::nanoseconds shutdown = std::chrono::seconds(1);      // for the plugin to clean up
  std::chrono::nanoseconds undead_after = std::chrono::seconds(5);  // after the kill
};

// When a healthy worker is replaced: the new one is started first, and the old one drained when it is ready; one worker
// of a plugin at a time. Each limit varies by ± `jitter` of itself from worker to worker. A replacement that does not
// get ready leaves the old worker where it is; it is tried again after restart_backoff::healthy_after. A worker that
// exceeds its share of memory sooner than that is replaced by one that may exceed it for as long, and the log says so.
struct recycle_limits {
  std::uint64_t calls = 0;          // served; 0: no limit
  std::chrono::nanoseconds age{0};  // since it got ready; 0: no limit
  double memory = 0.8;              // its resident set as a share of the memory limit in force; 0: no limit
  double jitter = 0.1;              // a share of each limit
};

// Idle workers are asked for a sign of life each `interval`, all at the same moments. The thread that runs calls answers;
// one that is silent for `silence` is killed as hung. A busy one is judged by its calls' deadlines instead. Interval 0:
// never asked.
struct heartbeat_limits {
  std::chrono::nanoseconds interval = std::chrono::seconds(1);  // between two questions
  std::chrono::nanoseconds silence = std::chrono::seconds(5);   // that is too long
};

// All of it together, for load_options::supervision.
struct supervision_options {
  restart_kind restart = restart_kind::transient;  // which ends are followed by a restart
  restart_intensity intensity{};                   // how often
  restart_backoff backoff{};                       // how soon
  drain_limits drain{};                            // how a worker is ended in good order
  recycle_limits recycle{};                        // when a healthy one is replaced
  heartbeat_limits heartbeat{};                    // when an idle one is taken for hung
  // Workers kept ready beside the instances; one of them takes the place of an instance that fails, at once.
  unsigned spares = 0;
  // When not 0: a plugin that was given up is tried again after this time, half open: one worker, which gets calls. If
  // it stays well for restart_backoff::healthy_after, all are started again; otherwise the plugin is given up again.
  // In a group other than one_for_one the whole group is started again instead. The usual value is 5 minutes. A
  // quarantined plugin is never tried again by itself.
  std::chrono::nanoseconds probe_after{0};
};

// What all plugins of a host may spend on spawns together: workers that start at the same time, and restarts (not first
// starts, not recycles). More wait for their turn.
struct spawn_limits {
  unsigned at_once = 4;                                      // workers that start at the same time
  restart_intensity restarts{50, std::chrono::seconds(10)};  // of all plugins together
};

}  // namespace bulkhead
