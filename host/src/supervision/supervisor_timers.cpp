// What falls due by itself, and what follows from an event once it is taken in. See supervisor.hpp.
#include "supervisor.hpp"

#include <algorithm>
#include <utility>

namespace bulkhead::supervision {

void supervisor::settle() {
  expire();
  probe();
  if (open()) {
    fill_from_spares();
    spawn_due();
    recycle_one();
    conclude();
  }
  note_strength();
  if (state_ != supervisor_state::stopping) return;
  for (const auto& [id, each] : workers_)
    if (each.state != worker_state::undead) return;
  state_ = supervisor_state::stopped;
  emit(actions::stopped{});
  if (const auto report = std::exchange(violated_, std::nullopt)) {
    state_ = supervisor_state::ended;
    quarantine(*report);
  }
}

void supervisor::expire() {
  for (auto& [id, each] : workers_) expire(id, each);
}

void supervisor::expire(worker_id id, worker& each) {
  while (each.deadline != never && each.deadline <= now_) {
    each.deadline = never;
    switch (each.state) {
      case worker_state::starting: kill(id, exit_reason::start_timeout); break;
      case worker_state::draining:
        each.state = worker_state::shutting_down;
        each.deadline = after(now_, settings_.rules.drain.shutdown);
        emit(actions::shutdown{id});
        break;
      case worker_state::shutting_down: kill(id, exit_reason::shut_down); break;
      case worker_state::killed: {
        each.state = worker_state::undead;
        emit(actions::undead{id});
        if (recycling_ == id) recycling_ = 0;
        const worker was = each;
        const bool expected = std::exchange(each.expected, true);
        // What they hold is not given back: there is an end to replacing them.
        if (open() && undead() > places_.size())
          give_up(std::to_string(undead()) + " workers that were killed do not end");
        else if (!expected) lost(id, was, exit_class::abnormal, false);
        break;
      }
      case worker_state::queued:
      case worker_state::ready:
      case worker_state::undead: break;
    }
  }
  if (each.state == worker_state::ready && each.leave_by <= now_) retire(id);
  if (each.state == worker_state::ready && each.ping_at <= now_) check_alive(id, each);
  const auto age = settings_.rules.recycle.age;
  if (each.state == worker_state::ready && age.count() > 0 && after(each.ready_at, scaled(age, each.limits)) <= now_)
    each.recycle = true;
}

std::size_t supervisor::undead() const {
  return static_cast<std::size_t>(std::count_if(
      workers_.begin(), workers_.end(), [](const auto& each) { return each.second.state == worker_state::undead; }));
}

// Counts questions, not time: when the host itself was stopped for a while, answers may wait to be read.
void supervisor::check_alive(worker_id id, worker& each) {
  const auto& limit = settings_.rules.heartbeat;
  const auto patience = std::max<std::int64_t>(1, limit.silence / limit.interval);
  if (each.unanswered >= patience) return kill(id, exit_reason::hung);
  ++each.unanswered;
  each.ping_at = next_ping();
  emit(actions::ping{id});
}

// At the same moments for all workers, so that one look at the pool serves all of them. Half an interval is left for an
// answer, however late this question was.
time_point supervisor::next_ping() const {
  const auto interval = settings_.rules.heartbeat.interval;
  const auto left = interval - now_.time_since_epoch() % interval;
  return after(now_, left >= interval / 2 ? left : left + interval);
}

void supervisor::probe() {
  if (probe_at_ > now_) return;
  if (state_ == supervisor_state::gave_up && settings_.coupled) {
    probe_at_ = after(now_, settings_.rules.probe_after);
    emit(actions::reset_group{});
  } else if (state_ == supervisor_state::gave_up) {
    probe_at_ = never;
    state_ = supervisor_state::half_open;
    places_.front().due = now_;
    places_.front().restart = true;
  } else if (state_ == supervisor_state::half_open) {
    on(events::reset{});
  }
}

void supervisor::spawn_due() {
  for (place& each : places_)
    if (each.due <= now_) spawn(each);
}

// The place whose worker is to be recycled next, if any may be: one at a time.
const supervisor::place* supervisor::recycle_candidate() const {
  if (state_ != supervisor_state::running || recycling_) return nullptr;
  for (const place& each : places_) {
    if (each.worker.is_ready() && each.worker.at->recycle && each.worker.at->leave_by == never && !each.successor)
      return &each;
  }
  return nullptr;
}

void supervisor::recycle_one() {
  const place* const chosen = next_recycle_ <= now_ ? recycle_candidate() : nullptr;
  if (!chosen) return;
  recycling_ = chosen->worker.id;
  spawn(places_[static_cast<std::size_t>(chosen - places_.data())]);
  // What is heavy so soon may always be: its successors must do for a while, or they would come and go without end.
  const worker& old = *chosen->worker.at;
  const auto patience = settings_.rules.backoff.healthy_after;
  if (!old.heavy || now_ >= after(std::max(old.ready_at, old.heavy_from), patience)) return;
  chosen->successor.at->heavy_from = after(now_, patience);
  if (!std::exchange(told_heavy_, true)) emit(actions::soon_heavy{});
}

void supervisor::conclude() {
  for (std::size_t i = 0; i < settings_.instances; ++i)
    if (!places_[i].closed || places_[i].worker) return;
  state_ = supervisor_state::ended;
  fail("its workers have ended, and none is to be started again");
  emit(actions::ended{});
  abandon_places();
}

// Tells of the loss and return of full strength; keeps the time since which the plugin is healthy.
void supervisor::note_strength() {
  if (!open()) return;
  const std::size_t now_serving = serving();
  const bool whole = now_serving == settings_.instances;
  if (whole && std::exchange(degraded_, false)) emit(actions::recovered{});
  if (!whole && was_whole_ && !std::exchange(degraded_, true))
    emit(actions::degraded{now_serving, settings_.instances});
  was_whole_ = was_whole_ || whole;

  const auto well = [](const place& each) { return each.closed || each.worker.is_ready(); };
  const auto end = places_.begin() + static_cast<std::ptrdiff_t>(settings_.instances);
  if (now_serving == 0 || !std::all_of(places_.begin(), end, well)) healthy_since_.reset();
  else if (!healthy_since_) healthy_since_ = now_;
}

time_point supervisor::wake_at() const {
  time_point next = probe_at_;
  const auto age = settings_.rules.recycle.age;
  for (const auto& [id, each] : workers_) {
    next = std::min(next, each.deadline);
    if (each.state != worker_state::ready) continue;
    next = std::min({next, each.leave_by, each.ping_at});
    if (age.count() > 0 && !each.recycle) next = std::min(next, after(each.ready_at, scaled(age, each.limits)));
  }
  for (const place& each : places_) next = std::min(next, each.due);
  return recycle_candidate() ? std::min(next, next_recycle_) : next;
}

}  // namespace bulkhead::supervision
