// The limits of a channel. Every one is enforced while bytes arrive, before anything is allocated for them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace bulkhead::ipc {

using clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC: wall clock jumps move no deadline
// When, on a clock that never jumps.
using time_point = clock::time_point;
// No deadline.
inline constexpr time_point never = time_point::max();

// What a channel takes. Each has a default that suits most plugins.
struct limits {
  std::size_t frame = std::size_t{16} << 20;         // bytes of one message
  unsigned depth = 64;                               // nested arrays and maps
  unsigned queued_calls = 256;                       // calls of ours without an answer
  std::size_t queued_bytes = std::size_t{16} << 20;  // bytes not yet written to the peer
  std::chrono::milliseconds frame_time{5000};        // from the first byte of a message to its last
  unsigned handles = 16;                             // file descriptors of one message
};

}  // namespace bulkhead::ipc
