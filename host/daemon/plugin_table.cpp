// See plugin_table.hpp. What takes time is in plugin_changes.cpp.
#include "plugin_entry.hpp"
#include "relayed_call.hpp"

namespace bulkhead::daemon {
namespace {

std::shared_ptr<ipc::stream> fail(reply_handler& handler, outcome code, std::string why) {
  handler.complete(reply(ipc::completion::failed(code, std::move(why))));
  return nullptr;
}

}  // namespace

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
  std::vector<row> out;
  for (const pointer& each : all()) {
    row made{.name = each->from.name,
             .group = each->from.group,
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
  for (const pointer& each : all())
    if (each->plugin) each->plugin.status();
}

void plugin_table::refuse_calls(const std::string& why) {
  std::unique_lock held(mutex_);
  refusing_ = why;
}

std::vector<plugin_table::pointer> plugin_table::all() const {
  std::shared_lock held(mutex_);
  std::vector<pointer> out;
  for (const auto& [name, each] : entries_) out.push_back(each);
  return out;
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

bool plugin_table::wait_idle(ipc::time_point deadline) {
  bool idle = true;
  for (const pointer& each : all()) idle = each->calls->wait_idle(deadline) && idle;
  return idle;
}

}  // namespace bulkhead::daemon
