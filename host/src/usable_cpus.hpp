// How many CPUs this process may run on.
#pragma once

#include <algorithm>
#include <thread>

#include <sched.h>

namespace bulkhead {

inline unsigned usable_cpus() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  const bool known = ::sched_getaffinity(0, sizeof usable, &usable) == 0;
  return std::max(1u, known ? static_cast<unsigned>(CPU_COUNT(&usable)) : std::thread::hardware_concurrency());
}

}  // namespace bulkhead
