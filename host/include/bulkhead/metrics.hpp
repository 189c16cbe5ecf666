// What a host has counted: snapshots of counters, gauges and latencies per plugin and method. Plain values; taking one
// costs microseconds and disturbs no call. As text for Prometheus: bulkhead/prometheus.hpp.
#pragma once

#include <bulkhead/error.hpp>
#include <bulkhead/plugin.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace BULKHEAD_PUBLIC bulkhead {

// How many outcomes there are.
inline constexpr std::size_t outcome_count = static_cast<std::size_t>(outcome::rejected) + 1;
// How many exit reasons there are.
inline constexpr std::size_t exit_reason_count = static_cast<std::size_t>(exit_reason::unknown) + 1;

// Times from the call to its outcome as its caller sees them, waiting for a worker included.
struct latency_histogram {
  // Upper bounds, in seconds.
  static constexpr std::array<double, 20> bounds{1e-5,  2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01,
                                                 0.025, 0.05,   0.1,  0.25, 0.5,    1,    2.5,  5,      10,   30};
  std::array<std::uint64_t, bounds.size() + 1> counts{};  // each its own calls only; the last: longer than all bounds
  double sum = 0;                                         // seconds
  std::uint64_t count() const;                            // of all calls
};

// Of the calls of one method.
struct method_metrics {
  std::string method;                                // its name
  std::array<std::uint64_t, outcome_count> calls{};  // that have ended, by outcome
  std::uint64_t in_flight = 0;       // calls without an outcome yet, those that wait for a worker included
  latency_histogram latency{};       // of those that have ended
  std::uint64_t argument_bytes = 0;  // as packed, handles not counted
  std::uint64_t result_bytes = 0;    // the same
  std::uint64_t ended() const;       // calls that have ended
  // Those of them that ended so.
  std::uint64_t ended(outcome how) const { return calls[static_cast<std::size_t>(how)]; }
};

// Of one plugin.
struct plugin_metrics {
  std::string plugin;      // its name
  plugin_status status{};  // how it is now
  // Those that the plugin has ever described, at most 256, in no order; and "other", for calls of all other names.
  std::vector<method_metrics> methods{};
  std::size_t starting = 0;        // worker processes that are not ready yet
  std::size_t idle = 0;            // ready and without a call, spares included
  std::size_t busy = 0;            // with calls in progress
  std::size_t draining = 0;        // that finish their calls and end
  std::size_t resident_bytes = 0;  // of all of them; pages they share counted for each
  std::uint64_t started = 0;       // worker processes ever started
  std::uint64_t restarts = 0;      // of them after failures
  std::uint64_t probes = 0;        // started besides, to read its file's manifest: none if the host knew it already
  std::array<std::uint64_t, exit_reason_count> exits{};  // of worker processes, by reason; shut_down is no failure
  // Of `exits`, those for one reason.
  std::uint64_t exited(exit_reason why) const { return exits[static_cast<std::size_t>(why)]; }

  // Adds what another counted under the same name.
  plugin_metrics& operator+=(const plugin_metrics& other);
};

}  // namespace bulkhead
