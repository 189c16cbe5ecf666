// The delay before the n-th restart in a row: 0, first, 2 first, 4 first … longest, each with jitter.
#pragma once

#include <bulkhead/supervision.hpp>

#include <algorithm>
#include <functional>

namespace bulkhead::supervision {

// A number between -1 and 1, evenly spread.
using jitter_source = std::function<double()>;

inline std::chrono::nanoseconds scaled(std::chrono::nanoseconds value, double factor) {
  constexpr auto longest = std::chrono::nanoseconds::max();
  const double product = static_cast<double>(value.count()) * factor;
  if (product >= static_cast<double>(longest.count())) return longest;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(product));
}

// `failures` in a row before this one.
inline std::chrono::nanoseconds backoff_delay(const restart_backoff& rules, unsigned failures, double jitter) {
  if (failures == 0) return std::chrono::nanoseconds(0);
  auto delay = std::min(rules.first, rules.longest);
  for (unsigned n = 1; n < failures && delay < rules.longest; ++n)
    delay = delay > rules.longest / 2 ? rules.longest : 2 * delay;  // never beyond what the type holds
  return scaled(delay, 1 + rules.jitter * jitter);
}

}  // namespace bulkhead::supervision
