// See plugin_table.hpp.
#include "plugin_table.hpp"

#include "relayed_call.hpp"

#include <fmt/format.h>

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

std::shared_ptr<ipc::stream> fail(reply_handler& handler, outcome code, std::string why) {
  handler.complete(reply(ipc::completion::failed(code, std::move(why))));
  return nullptr;
}

// What a successor starts from; empty when the plugin is given up or the like and has left no state: its failures must not
// keep the settings from coming that are to end them.
std::vector<std::uint8_t> state_of(const plugin& old) {
  try {
    return old.save_state();
  } catch (const call_error& e) {
    if (e.outcome() != outcome::unavailable || old.status().state == plugin_status::state::running) throw;
    return {};
  }
}

}  // namespace

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

// A plugin as it was loaded, or was not. What is in it does not change; another takes its place.
struct plugin_table::entry {
  plugin_config from;
  bulkhead::plugin plugin;  // empty when there is none: then `state` and `reason` say why
  std::string state, reason;
  std::string stamp;
  std::shared_ptr<open_calls> calls = std::make_shared<open_calls>();  // of `plugin`
};

class plugin_table::counting final : public reply_handler {
 public:
  counting(pointer of, std::unique_ptr<reply_handler> next) : of_(std::move(of)), next_(std::move(next)) {}
  void complete(reply&& result) override {
    next_->complete(std::move(result));
    of_->calls->ended();  // after the answer is on its way: who waits for this may end the connection next
  }

 private:
  const pointer of_;
  const std::unique_ptr<reply_handler> next_;
};

std::shared_ptr<ipc::stream> plugin_table::call(std::string_view method, packed_arguments arguments,
                                                const call_options& options, std::unique_ptr<reply_handler> handler,
                                                std::shared_ptr<ipc::stream::link> onward) {
  const std::size_t dot = method.find('.');
  if (dot == std::string_view::npos)
    return fail(*handler, outcome::rejected,
                "methods are called as plugin.method, not '" + ipc::sanitised(method, 128) + "'");
  const std::string name(method.substr(0, dot));
  const std::string_view own = method.substr(dot + 1);
  if (own.starts_with("$/")) return fail(*handler, outcome::rejected, "methods that begin with $/ are reserved");
  pointer target;
  std::string refused;
  {
    // begun() is under the lock: once an entry has been replaced, no call comes to it any more.
    std::shared_lock held(mutex_);
    const auto found = entries_.find(name);
    refused = refusing_;
    if (refused.empty() && found != entries_.end() && found->second->plugin) {
      target = found->second;
      target->calls->begun();
    } else if (refused.empty() && found != entries_.end()) {
      refused = "plugin " + name + " is " + found->second->state + ": " + found->second->reason;
    }
  }
  if (!refused.empty()) return fail(*handler, outcome::unavailable, refused);
  if (!target) return fail(*handler, outcome::rejected, "there is no plugin '" + ipc::sanitised(name, 64) + "' here");
  const bulkhead::plugin& plugin = target->plugin;
  auto counted = std::make_unique<counting>(target, std::move(handler));
  if (onward) return relay_call(plugin, own, std::move(arguments), options, std::move(onward), std::move(counted));
  plugin.async_call_packed(own, std::move(arguments), options, std::move(counted));
  return nullptr;
}

std::vector<plugin_table::row> plugin_table::rows() const {
  std::vector<pointer> all;
  {
    std::shared_lock held(mutex_);
    for (const auto& [name, each] : entries_) all.push_back(each);
  }
  std::vector<row> out;
  for (const pointer& each : all) {
    row made{.name = each->from.name,
             .state = each->state,
             .reason = each->reason,
             .file = each->from.file.string(),
             .metrics = {},
             .workers = {},
             .methods = {}};
    made.metrics.plugin = made.name;
    if (each->plugin) {
      made.metrics = each->plugin.metrics();
      made.state = to_string(made.metrics.status.state);
      made.reason = made.metrics.status.reason;
      made.workers = each->plugin.workers();
      made.methods = each->plugin.describe().methods;
    }
    out.push_back(std::move(made));
  }
  return out;
}

void plugin_table::check_alive() const {
  std::vector<pointer> all;
  {
    std::shared_lock held(mutex_);
    for (const auto& [name, each] : entries_) all.push_back(each);
  }
  for (const pointer& each : all)
    if (each->plugin) each->plugin.status();
}

void plugin_table::refuse_calls(const std::string& why) {
  std::unique_lock held(mutex_);
  refusing_ = why;
}

plugin_table::pointer plugin_table::find(const std::string& name) const {
  std::shared_lock held(mutex_);
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : found->second;
}

void plugin_table::put(const std::string& name, pointer now) {
  std::unique_lock held(mutex_);
  if (now) entries_[name] = std::move(now);
  else entries_.erase(name);
}

plugin_table::pointer plugin_table::load(const plugin_config& from) {
  auto made = std::make_shared<entry>();
  made->from = from;
  made->stamp = stamp_of(from.file);
  try {
    made->plugin = host_.load(from.file, from.options);
    log_.info(fmt::format("plugin {}: loaded {}", from.name, from.file.string()));
  } catch (const std::exception& e) {
    made->state = "failed";
    made->reason = e.what();
    log_.error(fmt::format("plugin {}: {}", from.name, e.what()));
  }
  return made;
}

void plugin_table::retire(const pointer& old, std::chrono::nanoseconds drain) {
  if (!old->plugin) return;
  old->calls->wait_idle(ipc::clock::now() + drain);
  old->plugin.unload();
}

// Other settings take another plugin, which is loaded beside the old one; another file alone does not.
void plugin_table::replace(const pointer& old, const plugin_config& with, std::chrono::nanoseconds drain) {
  if (old->plugin && old->from.settings == with.settings) {
    auto made = std::make_shared<entry>();
    made->from = with;
    made->stamp = stamp_of(with.file);
    old->plugin.reload(with.file);
    made->plugin = old->plugin;
    made->calls = old->calls;
    put(with.name, made);
    log_.info(fmt::format("plugin {}: reloaded from {}", with.name, with.file.string()));
    return;
  }
  plugin_config next = with;
  if (old->plugin && old->from.options.state.keep && next.options.state.keep)
    next.options.state.initial = state_of(old->plugin);
  pointer made = load(next);
  if (!made->plugin && old->plugin) throw call_error(outcome::unavailable, made->reason);
  put(with.name, made);
  retire(old, drain);
  if (!made->plugin) throw call_error(outcome::unavailable, made->reason);
}

std::size_t plugin_table::become(const std::map<std::string, plugin_config>& wanted, std::chrono::nanoseconds drain) {
  std::size_t failed = 0;
  std::vector<std::string> gone;
  {
    std::shared_lock held(mutex_);
    for (const auto& [name, each] : entries_)
      if (!wanted.contains(name)) gone.push_back(name);
  }
  for (const auto& [name, with] : wanted) {
    const pointer old = find(name);
    if (!old) {
      pointer made = load(with);
      failed += made->plugin ? 0 : 1;
      put(name, std::move(made));
      continue;
    }
    if (old->from.same(with) && old->stamp == stamp_of(with.file) && old->state != "failed") continue;
    try {
      replace(old, with, drain);
    } catch (const std::exception& e) {
      ++failed;
      log_.error(fmt::format("plugin {}: {}{}", name, e.what(), old->plugin ? "; the old version goes on" : ""));
    }
  }
  for (const std::string& name : gone) {
    const pointer old = find(name);
    put(name, nullptr);
    retire(old, drain);
    log_.info("plugin " + name + ": unloaded, it is not in the configuration any more");
  }
  return failed;
}

void plugin_table::restart(const std::string& name) {
  const pointer old = find(name);
  if (!old) throw call_error(outcome::rejected, "there is no plugin '" + ipc::sanitised(name, 64) + "' here");
  host_.reset();  // as far as the fork server is what kept it from starting
  replace(old, old->from, std::chrono::nanoseconds(0));
}

void plugin_table::stop(const std::string& name, std::chrono::nanoseconds drain) {
  const pointer old = find(name);
  if (!old) throw call_error(outcome::rejected, "there is no plugin '" + ipc::sanitised(name, 64) + "' here");
  auto made = std::make_shared<entry>();
  made->from = old->from;
  made->stamp = old->stamp;
  made->state = "stopped";
  made->reason = "'bulkhead restart " + name + "' starts it again";
  put(name, made);
  retire(old, drain);
  log_.info("plugin " + name + ": stopped");
}

bool plugin_table::wait_idle(ipc::time_point deadline) {
  std::vector<pointer> all;
  {
    std::shared_lock held(mutex_);
    for (const auto& [name, each] : entries_) all.push_back(each);
  }
  bool idle = true;
  for (const pointer& each : all) idle = each->calls->wait_idle(deadline) && idle;
  return idle;
}

}  // namespace bulkhead::daemon
