// What a plugin_table holds of each plugin. For its own sources.
#pragma once

#include "plugin_table.hpp"

namespace bulkhead::daemon {

// Calls that have been begun and have no outcome yet.
struct plugin_table::open_calls {
  std::mutex mutex;
  std::condition_variable idle;
  std::size_t count = 0;
  void begun() {
    std::lock_guard held(mutex);
    ++count;
  }
  void ended() {
    std::lock_guard held(mutex);
    if (--count == 0) idle.notify_all();
  }
  bool wait_idle(ipc::time_point deadline) {
    std::unique_lock held(mutex);
    return idle.wait_until(held, deadline, [this] { return count == 0; });
  }
};

// What is loaded, and replaced, as one: the plugins of a group in their order, or one by itself.
struct plugin_table::unit {
  std::vector<plugin_config> members;
  std::string group;  // empty: none
  group_options options;
  bool coupled() const { return !group.empty() && options.strategy != restart_strategy::one_for_one; }
  std::string title() const { return group.empty() ? "plugin " + members.front().name : "group " + group; }
};

// A plugin as it was loaded, or was not. What is in it does not change; another takes its place.
struct plugin_table::entry {
  plugin_config from;
  std::shared_ptr<const unit> of;
  std::uint64_t number = 0;  // grows with each that is loaded
  bulkhead::plugin plugin;   // empty when there is none: then `state` and `reason` say why
  std::string state, reason;
  std::string stamp;
  std::shared_ptr<open_calls> calls = std::make_shared<open_calls>();  // of `plugin`

  // Fresh workers of its own would not do: it has none, or waits for others of its group.
  bool needs_whole_unit() const { return !plugin || (of->coupled() && !plugin.status().reason.empty()); }
};

}  // namespace bulkhead::daemon
