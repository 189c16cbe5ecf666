// A host that keeps what happened to its plugins, for tests of their supervision.
#pragma once

#include "fixture.hpp"

#include <algorithm>
#include <set>

namespace bulkhead::testing {

struct watched_host {
  using kind = enum lifecycle_event::kind;

  mailbox<lifecycle_event> events;
  mailbox<log_record> logs;
  host self{{.on_log = [this](const log_record& record) { logs.put(record); },
             .on_lifecycle = [this](const lifecycle_event& event) { events.put(event); },
             .spawns = any_number_of_spawns}};

  bool saw(kind what, std::size_t times = 1) {
    return events.wait([&](const auto& all) {
      return std::count_if(all.begin(), all.end(), [&](const auto& event) { return event.kind == what; }) >=
             static_cast<std::ptrdiff_t>(times);
    });
  }
  lifecycle_event last(kind what) {
    const auto all = events.values();
    const auto found = std::find_if(all.rbegin(), all.rend(), [&](const auto& event) { return event.kind == what; });
    return found == all.rend() ? lifecycle_event{} : *found;
  }
  std::size_t count(kind what) {
    const auto all = events.values();
    return static_cast<std::size_t>(
        std::count_if(all.begin(), all.end(), [&](const auto& event) { return event.kind == what; }));
  }
};

inline std::set<pid_t> pids(const plugin& of) {
  std::set<pid_t> found;
  for (const worker_info& each : of.workers()) found.insert(each.pid);
  return found;
}

}  // namespace bulkhead::testing
