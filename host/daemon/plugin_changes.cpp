// What a plugin_table does that takes time, on one thread: loading, replacing, stopping. Plugins by themselves and groups
// are the same to it, units of one or several; a new version is loaded beside the old one and takes its place whole, or not
// at all.
#include "plugin_entry.hpp"

#include <fmt/format.h>

#include <algorithm>

#include <sys/stat.h>

namespace bulkhead::daemon {
namespace {

// What changes when somebody puts another file there.
std::string stamp_of(const std::filesystem::path& file) {
  struct stat found {};
  if (::stat(file.c_str(), &found) != 0) return "";
  return fmt::format("{}:{}:{}:{}.{}", found.st_dev, found.st_ino, found.st_size, found.st_mtim.tv_sec,
                     found.st_mtim.tv_nsec);
}

// What a successor starts from; empty when the plugin is given up or the like and has left no state: its failures must not
// keep the settings from coming that are to end them.
std::vector<std::uint8_t> saved_state(const plugin& old) {
  try {
    return old.save_state();
  } catch (const call_error& e) {
    if (e.outcome() != outcome::unavailable || old.status().state == plugin_status::state::running) throw;
    return {};
  }
}

}  // namespace

// All of it; or none, and the reason is in each.
std::vector<plugin_table::pointer> plugin_table::load(const std::shared_ptr<const unit>& next) {
  std::vector<pointer> made;
  for (const plugin_config& from : next->members) {
    const pointer& each = made.emplace_back(std::make_shared<entry>());
    each->from = from;
    each->of = next;
    each->number = ++loaded_;
    each->stamp = stamp_of(from.file);
  }
  std::optional<plugin_group> group;
  if (!next->group.empty()) group = host_.group(next->options);
  for (const pointer& each : made) {
    const plugin_config& from = each->from;
    try {
      load_options options = from.options;
      if (const pointer old = find(from.name); old && old->plugin && old->from.options.state.keep && options.state.keep)
        options.state.initial = saved_state(old->plugin);
      each->plugin = group ? group->load(from.file, options) : host_.load(from.file, options);
      log_.info(fmt::format("plugin {}: loaded {}", from.name, from.file.string()));
    } catch (const std::exception& e) {
      log_.error(fmt::format("plugin {}: {}", from.name, e.what()));
      if (group) group->unload();
      for (const pointer& other : made) {
        other->plugin = {};
        other->state = "failed";
        other->reason =
            other == each ? e.what() : fmt::format("{} of its group can't be loaded: {}", from.name, e.what());
      }
      break;
    }
  }
  return made;
}

void plugin_table::retire(std::vector<pointer> old, std::chrono::nanoseconds drain) {
  std::sort(old.begin(), old.end(), [](const pointer& a, const pointer& b) { return a->number > b->number; });
  for (const pointer& each : old) {
    if (!each->plugin) continue;
    each->calls->wait_idle(ipc::clock::now() + drain);
    each->plugin.unload();
  }
}

// Another file alone takes no other plugin.
void plugin_table::reload(const pointer& old, const std::shared_ptr<const unit>& next, const plugin_config& with) {
  auto made = std::make_shared<entry>(*old);
  made->from = with;
  made->of = next;
  made->stamp = stamp_of(with.file);
  old->plugin.reload(with.file);
  put(with.name, made);
  log_.info(fmt::format("plugin {}: reloaded from {}", with.name, with.file.string()));
}

// Those of `gone` that were in the group leave with its old version.
void plugin_table::replace(const std::shared_ptr<const unit>& next, const std::vector<pointer>& gone,
                           std::chrono::nanoseconds drain) {
  const std::vector<pointer> made = load(next);
  if (!made.front()->plugin) {
    for (const pointer& each : made)
      if (const pointer old = find(each->from.name); !old || !old->plugin) put(each->from.name, each);
    throw call_error(outcome::unavailable, made.front()->reason);
  }
  std::vector<pointer> old;
  {
    std::unique_lock held(mutex_);
    for (const pointer& each : made)
      if (pointer before = std::exchange(entries_[each->from.name], each)) old.push_back(std::move(before));
    for (const pointer& each : gone)
      if (!next->group.empty() && each->from.group == next->group && entries_.erase(each->from.name) > 0)
        old.push_back(each);
  }
  retire(std::move(old), drain);
}

// Replaces it, or reloads of it what has another file.
void plugin_table::update(const std::shared_ptr<const unit>& next, const std::vector<pointer>& gone,
                          const std::set<std::string>& kept, std::chrono::nanoseconds drain) {
  std::vector<pointer> old;
  for (const plugin_config& with : next->members) {
    old.push_back(find(with.name));
    if (old.back() && kept.contains(old.back()->from.group))
      throw call_error(outcome::unavailable,
                       fmt::format("plugin {} stays in group {}", with.name, old.back()->from.group));
  }
  const auto other_file = [&](std::size_t i) {
    return !old[i]->from.same(next->members[i]) || old[i]->stamp != stamp_of(next->members[i].file);
  };
  for (std::size_t i = 0; i < old.size(); ++i)
    if (!old[i] || old[i]->from.settings != next->members[i].settings || old[i]->state == "failed" ||
        (other_file(i) && old[i]->needs_whole_unit()))
      return replace(next, gone, drain);
  for (std::size_t i = 0; i < old.size(); ++i)
    if (other_file(i)) reload(old[i], next, next->members[i]);
}

// Something of it is there, in whatever version.
bool plugin_table::serves(const unit& of) const {
  const auto served = all();
  return std::any_of(served.begin(), served.end(), [&](const pointer& each) {
    const auto& names = of.members;
    const bool member =
        std::any_of(names.begin(), names.end(), [&](const auto& m) { return m.name == each->from.name; });
    return each->plugin && (member || (!of.group.empty() && each->from.group == of.group));
  });
}

std::size_t plugin_table::become(const config& wanted) {
  std::vector<std::shared_ptr<unit>> units;
  for (const group_config& group : wanted.groups) {
    auto& made = units.emplace_back(std::make_shared<unit>());
    made->group = group.name;
    made->options = group.options;
    for (const std::string& each : group.plugins) made->members.push_back(wanted.plugins.at(each));
  }
  for (const auto& [name, with] : wanted.plugins)
    if (with.group.empty()) units.emplace_back(std::make_shared<unit>())->members.push_back(with);

  std::vector<pointer> gone = all();
  std::erase_if(gone, [&](const pointer& each) { return wanted.plugins.contains(each->from.name); });
  std::set<std::string> kept;  // groups whose old version goes on, with all that were in it
  // A group comes before what its plugins leave it for: they stay if its new version can't be loaded.
  const auto waits = [&](const std::shared_ptr<unit>& next) {
    return std::ranges::any_of(next->members, [&](const plugin_config& with) {
      const pointer old = find(with.name);
      return old && !old->from.group.empty() && old->from.group != next->group &&
             std::ranges::find(units, old->from.group, &unit::group) != units.end();
    });
  };
  std::size_t failed = 0;
  while (!units.empty()) {
    auto turn = std::ranges::find_if_not(units, waits);
    if (turn == units.end()) turn = units.begin();  // they swap plugins
    const std::shared_ptr<unit> next = *turn;
    units.erase(turn);
    try {
      update(next, gone, kept, wanted.drain);
    } catch (const std::exception& e) {
      failed += next->members.size();
      if (!serves(*next)) continue;  // the log has it
      log_.error(fmt::format("{}: {}; the old version goes on", next->title(), e.what()));
      if (!next->group.empty()) kept.insert(next->group);
    }
  }
  std::erase_if(gone, [&](const pointer& each) { return kept.contains(each->from.group); });
  for (const pointer& each : gone) put(each->from.name, nullptr);
  retire(gone, wanted.drain);
  for (const pointer& each : gone)
    log_.info("plugin " + each->from.name + ": unloaded, it is not in the configuration any more");
  return failed;
}

void plugin_table::restart(const std::string& name) {
  const pointer old = find(name);
  if (!old) throw call_error(outcome::rejected, "there is no plugin '" + ipc::sanitised(name, 64) + "' here");
  host_.reset();  // as far as the fork server is what kept it from starting
  if (old->needs_whole_unit()) replace(old->of, {}, std::chrono::nanoseconds(0));
  else reload(old, old->of, old->from);
}

void plugin_table::stop(const std::string& name, std::chrono::nanoseconds drain) {
  const pointer old = find(name);
  if (!old) throw call_error(outcome::rejected, "there is no plugin '" + ipc::sanitised(name, 64) + "' here");
  auto made = std::make_shared<entry>();
  made->from = old->from;
  made->of = old->of;
  made->stamp = old->stamp;
  made->state = "stopped";
  made->reason = "'bulkhead restart " + name + "' starts it again";
  put(name, made);
  retire({old}, drain);
  log_.info("plugin " + name + ": stopped");
}

}  // namespace bulkhead::daemon
