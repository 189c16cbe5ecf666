// Time as supervision sees it: always an argument, never asked for.
#pragma once

#include <chrono>

namespace bulkhead::supervision {

using time_point = std::chrono::steady_clock::time_point;
inline constexpr time_point never = time_point::max();

// An embedder may say "without limit" with the largest duration there is.
constexpr time_point after(time_point now, std::chrono::nanoseconds wait) {
  return wait >= never - now ? never : now + wait;
}

}  // namespace bulkhead::supervision
