// See group_core.hpp. The public class is here, too.
#include "group_core.hpp"

#include "plugin_pool.hpp"

namespace bulkhead {

using supervision::group_supervisor;

group_core::group_core(std::shared_ptr<host_core> core, const group_options& options)
    : core(std::move(core)), window(options.intensity), options_(options), supervisor_(options.strategy) {}

void group_core::add_alone(std::weak_ptr<plugin_pool> pool) {
  std::lock_guard held(*mutex);
  std::erase_if(pools_, [](const auto& each) { return each.expired(); });
  pools_.push_back(std::move(pool));
}

group_core::member_id group_core::add(const std::string& name, std::weak_ptr<plugin_pool> pool) {
  pools_.push_back(std::move(pool));
  return supervisor_.add(name);
}

void group_core::removed(member_id member) {
  pools_[member].reset();
  carry_out(supervisor_.removed(member, ipc::clock::now()));
}

void group_core::replaced(member_id member) { carry_out(supervisor_.replaced(member, ipc::clock::now())); }

void group_core::failed(member_id member, supervision::time_point due) {
  carry_out(supervisor_.failed(member, due, ipc::clock::now()));
}

void group_core::stopped(member_id member) { carry_out(supervisor_.stopped(member, ipc::clock::now())); }
void group_core::whole(member_id member) { carry_out(supervisor_.whole(member, ipc::clock::now())); }
void group_core::out(member_id member, bool fatal, const std::string& how) {
  carry_out(supervisor_.out(member, fatal, how, ipc::clock::now()));
}

void group_core::reset() {
  window.clear();
  carry_out(supervisor_.reset_all(ipc::clock::now()));
}

void group_core::on_timer() {
  {
    std::lock_guard held(*mutex);
    carry_out(supervisor_.tick(ipc::clock::now()));
  }
  announce();
}

void group_core::carry_out(group_supervisor::action_list actions) {
  for (auto& each : actions) actions_.push_back(std::move(each));
  if (executing_) return;
  executing_ = true;
  while (!actions_.empty()) {
    const auto next = std::move(actions_.front());
    actions_.pop_front();
    const auto pool = std::visit([this](const auto& each) { return pools_[each.member].lock(); }, next);
    if (!pool) continue;
    if (const auto* const stop = std::get_if<group_supervisor::stop>(&next))
      pool->stop_with_group(stop->calls_wait, stop->reason);
    else if (std::holds_alternative<group_supervisor::start>(next)) pool->start_with_group();
    else pool->reset_with_group();
  }
  executing_ = false;
  if (const auto wake = supervisor_.wake_at(); wake != ipc::never) core->reactor->schedule(wake, weak_from_this());
}

std::vector<std::shared_ptr<plugin_pool>> group_core::pools() {
  std::lock_guard held(*mutex);
  std::vector<std::shared_ptr<plugin_pool>> out;
  for (const auto& weak : pools_)
    if (auto pool = weak.lock()) out.push_back(std::move(pool));
  return out;
}

void group_core::announce() {
  for (const auto& pool : pools()) pool->on_change();
}

// --- what the application holds -------------------------------------------------------------------------------------

plugin plugin_group::load(const std::filesystem::path& file, load_options options) {
  return plugin_pool::load(core_->core, file, {}, std::move(options), core_);
}

plugin plugin_group::launch(const std::vector<std::string>& argv, load_options options) {
  return plugin_pool::launch(core_->core, argv, std::move(options), core_);
}

void plugin_group::reset() {
  const auto pools = core_->pools();
  if (!core_->coupled()) {
    for (const auto& pool : pools) pool->reset();
    return;
  }
  if (!pools.empty()) pools.front()->reset();
}

void plugin_group::unload() {
  auto pools = core_->pools();
  for (auto pool = pools.rbegin(); pool != pools.rend(); ++pool) (*pool)->unload();
}

}  // namespace bulkhead
