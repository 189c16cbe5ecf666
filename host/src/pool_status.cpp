// What a plugin is and how it does, for who asks. See plugin_pool.hpp.
#include "plugin_pool.hpp"

namespace bulkhead {

plugin_info plugin_pool::describe() const {
  if (local_) return local_->description();
  std::lock_guard held(*mutex_);
  return current_->description();
}

std::vector<worker_info> plugin_pool::workers() const {
  std::vector<std::shared_ptr<worker_process>> processes;
  {
    std::lock_guard held(*mutex_);
    if (local_) return {local_->info()};
    if (!current_) return {};  // it has not started yet
    processes = current_->processes();
    for (const auto& set : retiring_)
      for (auto& each : set->processes()) processes.push_back(std::move(each));
  }
  std::vector<worker_info> list;
  for (const auto& each : processes)
    if (auto info = each->info(); info.pid > 0 && each->alive()) {
      info.resident_bytes = each->resident_bytes();
      list.push_back(std::move(info));
    }
  return list;
}

plugin_metrics plugin_pool::metrics() const {
  plugin_metrics out;
  out.plugin = name_;
  out.status = status();
  out.methods = meter_.read();
  out.started = counters_->started;
  out.restarts = counters_->restarts;
  out.probes = counters_->probes;
  for (std::size_t i = 0; i < out.exits.size(); ++i) out.exits[i] = counters_->exits[i];
  for (const worker_info& each : workers()) out.resident_bytes += each.resident_bytes;
  std::lock_guard held(*mutex_);
  if (!current_) return out;
  current_->count(out);
  for (const auto& each : retiring_) each->count(out);
  return out;
}

plugin_status plugin_pool::status() const {
  using state = enum plugin_status::state;
  std::lock_guard held(*mutex_);
  plugin_status out;
  out.instances = options_.isolation == isolation::none ? 1 : options_.instances;
  out.waiting = queue_.size();
  if (unloaded_) out.state = state::unloaded;
  if (local_) out.serving = unloaded_ ? 0 : 1;
  if (!current_) return out;
  out.serving = current_->serving().size();
  out.reason = current_->failing().value_or("");
  if (unloaded_) return out;
  switch (current_->state()) {
    case supervision::supervisor_state::running: out.state = state::running; break;
    case supervision::supervisor_state::half_open: out.state = state::half_open; break;
    case supervision::supervisor_state::gave_up: out.state = state::gave_up; break;
    case supervision::supervisor_state::quarantined: out.state = state::quarantined; break;
    case supervision::supervisor_state::ended: out.state = state::ended; break;
    case supervision::supervisor_state::stopping:
    case supervision::supervisor_state::stopped: out.state = state::stopped; break;
  }
  return out;
}

}  // namespace bulkhead
