// Which worker holds which place, and how one comes and goes. See supervisor.hpp.
#include "supervisor.hpp"

#include <algorithm>
#include <utility>

namespace bulkhead::supervision {

void supervisor::open_places() {
  for (place& each : places_) {
    each.closed = false;
    if (each.successor || (each.worker && each.worker.at->leave_by == never)) continue;
    each.due = now_;
  }
}

// Ends all workers, the last started first.
void supervisor::abandon_places() {
  for (auto each = workers_.rbegin(); each != workers_.rend(); ++each) retire(each->first);
  places_.assign(places_.size(), {});
  healthy_since_.reset();
  was_whole_ = false;
  degraded_ = true;
  recycling_ = 0;
  probe_at_ = never;
}

void supervisor::close(place& where) {
  where.closed = true;
  where.due = never;
}

void supervisor::spawn(place& where) {
  const worker_id id = ++last_id_;
  worker& fresh = workers_.emplace(id, worker{}).first->second;
  const auto kind = where.restart ? spawn_kind::restart : where.worker ? spawn_kind::replacement : spawn_kind::first;
  (where.worker ? where.successor : where.worker) = {id, &fresh};
  where.due = never;
  emit(actions::spawn{id, static_cast<std::size_t>(&where - places_.data()), kind});
  where.restart = false;
}

// The worker in a place that serves gets calls from now on.
void supervisor::seat(std::size_t where) {
  const holder& there = places_[where].worker;
  if (where >= settings_.instances || !there.is_ready()) return;
  if (!std::exchange(there.at->serving, true)) emit(actions::serve{there.id, where});
}

void supervisor::fill_from_spares() {
  if (settings_.rules.spares == 0) return;
  for (std::size_t i = 0; i < settings_.instances; ++i) {
    if (places_[i].closed || places_[i].worker.is_ready()) continue;
    for (std::size_t spare = settings_.instances; spare < places_.size(); ++spare) {
      if (places_[spare].closed || !places_[spare].worker.is_ready()) continue;
      std::swap(places_[i], places_[spare]);
      seat(i);
      break;
    }
  }
}

// Ends a worker in good order; its place is free.
void supervisor::retire(worker_id id) {
  if (place* const where = place_of(id)) {
    if (where->worker.id == id) where->worker = where->successor;
    where->successor = {};
  }
  worker& each = *find(id);
  each.expected = true;
  if (each.state == worker_state::queued || each.state == worker_state::starting)
    return kill(id, exit_reason::shut_down);
  if (each.state != worker_state::ready) return;
  each.state = worker_state::draining;
  each.deadline = after(now_, settings_.rules.drain.calls);
  emit(actions::drain{id});
}

void supervisor::kill(worker_id id, exit_reason reason) {
  worker& each = *find(id);
  each.state = worker_state::killed;
  each.deadline = after(now_, settings_.rules.drain.undead_after);
  emit(actions::kill{id, reason});
}

std::size_t supervisor::serving() const {
  return static_cast<std::size_t>(std::count_if(places_.begin(),
                                                places_.begin() + static_cast<std::ptrdiff_t>(settings_.instances),
                                                [](const place& each) { return each.worker.is_ready(); }));
}

bool supervisor::whole() const {
  return state_ == supervisor_state::running &&
         std::all_of(places_.begin(), places_.begin() + static_cast<std::ptrdiff_t>(settings_.instances),
                     [](const place& each) { return each.closed || each.worker.is_ready(); });
}

std::vector<supervisor::worker_view> supervisor::workers() const {
  std::vector<worker_view> list;
  for (const auto& [id, each] : workers_) {
    list.push_back({id, each.state, each.reached, std::nullopt});
    for (std::size_t i = 0; i < places_.size(); ++i)
      if (places_[i].worker.id == id || places_[i].successor.id == id) list.back().place = i;
  }
  return list;
}

supervisor::worker* supervisor::find(worker_id id) {
  const auto found = workers_.find(id);
  return found == workers_.end() ? nullptr : &found->second;
}

supervisor::place* supervisor::place_of(worker_id id) {
  const auto found = std::find_if(places_.begin(), places_.end(),
                                  [id](const place& each) { return each.worker.id == id || each.successor.id == id; });
  return found == places_.end() ? nullptr : &*found;
}

}  // namespace bulkhead::supervision
