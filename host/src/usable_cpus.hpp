// How many CPUs this process may run on, and whether there is time on them to spin.
#pragma once

#include <algorithm>
#include <optional>
#include <thread>

#include <sched.h>

namespace bulkhead {

inline unsigned usable_cpus() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  const bool known = ::sched_getaffinity(0, sizeof usable, &usable) == 0;
  return std::max(1u, known ? static_cast<unsigned>(CPU_COUNT(&usable)) : std::thread::hardware_concurrency());
}

// Where a cgroup counts it, time to spin is taken from the other side, or from the plugin's own work. `quota`: how many
// CPUs' time the host and its workers have together, if that is limited; `worker_milli_cpus`: what one worker has, 0: any.
inline bool may_spin(std::optional<double> quota, unsigned worker_milli_cpus) {
  return quota.value_or(2) >= 2 && (worker_milli_cpus == 0 || worker_milli_cpus >= 1000);
}

}  // namespace bulkhead
