// The closed set of outcomes of a call. Each call gets exactly one.
#pragma once

#include <optional>
#include <string_view>

namespace bulkhead {

// How a call ended: exactly one for each.
enum class outcome {
  ok = 0,        // it gave a result
  plugin_error,  // the plugin answered with an error
  timeout,       // the deadline passed
  cancelled,     // the caller cancelled it
  not_sent,      // it never reached the plugin's code: safe to retry
  worker_lost,   // the worker died while the call may have been running
  protocol,      // the worker broke the protocol and was killed
  overloaded,    // too many calls or bytes are queued for the worker
  unavailable,   // there is no worker and none could be started
  rejected,      // the call is not allowed or not possible: no such method, too large, not granted
};

// The name as it stands on the wire, in JSON and in logs.
constexpr std::string_view to_string(outcome value) {
  switch (value) {
    case outcome::ok: return "ok";
    case outcome::plugin_error: return "plugin_error";
    case outcome::timeout: return "timeout";
    case outcome::cancelled: return "cancelled";
    case outcome::not_sent: return "not_sent";
    case outcome::worker_lost: return "worker_lost";
    case outcome::protocol: return "protocol";
    case outcome::overloaded: return "overloaded";
    case outcome::unavailable: return "unavailable";
    case outcome::rejected: return "rejected";
  }
  return "unknown";
}

// The outcome of that name; none for any other text.
constexpr std::optional<outcome> outcome_from_string(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(outcome::rejected); ++i)
    if (to_string(static_cast<outcome>(i)) == name) return static_cast<outcome>(i);
  return std::nullopt;
}

}  // namespace bulkhead
