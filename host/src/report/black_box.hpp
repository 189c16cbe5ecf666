// The black box: one shared page that a worker keeps current and that outlives it. The host makes it (a sealed memfd)
// and reads it with pread() only, so nothing the worker does to it can fault the host. Everything in it is hostile
// once a plugin is loaded: it is copied, checked and believed only for reports, and for "that call has not begun".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace bulkhead {

struct black_box {
  static constexpr std::size_t size = 4096;

  std::atomic<std::uint32_t> phase;    // enum phase
  std::atomic<std::uint32_t> in_call;  // 1 while a method runs on the dispatch thread
  std::atomic<std::uint64_t> begun;    // calls taken up so far, in the order in which they were sent
  char method[64];                     // the one in progress

  // Filled in by the crash handler, `recorded` last.
  std::atomic<std::uint32_t> recorded;
  std::int32_t signal;
  std::int32_t code;
  std::uint32_t out_of_memory;
  std::uint64_t fault_address;

  std::atomic<std::uint32_t> violations;  // system calls denied so far, by the signal handler
  std::uint32_t supervised_violations;    // and by the fork server, which counts for itself

  char message[512];  // an uncaught exception's text, or why the worker could not start
};
static_assert(sizeof(black_box) <= black_box::size);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace bulkhead
