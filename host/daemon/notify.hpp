// Tells systemd how the daemon is, as sd_notify(3) describes it: datagrams to the socket that NOTIFY_SOCKET names.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace bulkhead::daemon {

// Sends "READY=1" and the like; lines are separated by '\n'. Does nothing when nobody asked for it. Never blocks.
void notify_service_manager(const std::string& state);
// "RELOADING=1" with the time stamp that goes with it.
std::string reloading_state();
// How often systemd wants to hear WATCHDOG=1; nothing when it does not.
std::optional<std::chrono::microseconds> watchdog_interval();

}  // namespace bulkhead::daemon
