// How much shared memory and CPU time a lane may take: see lane.hpp.
#pragma once

#include <chrono>
#include <cstddef>

namespace bulkhead::ipc {

// What the fast path of a worker's calls, rings in shared memory, may take.
struct lane_options {
  // Off: everything goes over the socket, and a waiting side never spins.
  bool enabled = true;
  // Of each of the two rings of a worker: a power of two from 4 KiB to 16 MiB. Both are resident from its birth on.
  std::size_t ring = std::size_t{32} << 10;
  // How long a side that waits for the other looks for it before it goes to sleep, if its last waits were about as short.
  // It may look for twice the time that waking the other takes on this machine, if that is longer, but for no more than
  // four times as long as stated here. 0: it goes to sleep at once; so it does where a cgroup gives the host less than two
  // CPUs' time, or the worker less than one's.
  std::chrono::nanoseconds spin = std::chrono::microseconds(50);
  // The share of a CPU that each side may spend so in the long run, beyond what going to sleep would have cost: 0 to 1.
  double cpu_budget = 0.5;
};

}  // namespace bulkhead::ipc
