// Sleeping on a word of memory until another thread, or another process that shares it, wakes whoever does.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead::ipc {

// `own`: of this process alone. `shared`: by the memory's place in its file, wherever each side has mapped it.
enum class futex : int { own = FUTEX_PRIVATE_FLAG, shared = 0 };

// Returns when it was woken, at once when the word is another, after `most` (max(): never), or for no reason at all.
inline void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::chrono::nanoseconds most,
                       futex whose) noexcept {
  const auto ns = std::max<std::int64_t>(most.count(), 0);
  const timespec timeout{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  const bool limited = most != std::chrono::nanoseconds::max();
  ::syscall(SYS_futex, &word, FUTEX_WAIT | static_cast<int>(whose), expected, limited ? &timeout : nullptr, nullptr, 0);
}

// How many it has woken. Looks at the address alone: the word may be gone.
inline long futex_wake(const std::atomic<std::uint32_t>& word, futex whose) noexcept {
  return ::syscall(SYS_futex, &word, FUTEX_WAKE | static_cast<int>(whose), INT_MAX, nullptr, nullptr, 0);
}

}  // namespace bulkhead::ipc
