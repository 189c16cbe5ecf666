// What events do at once; what falls due by itself is in supervisor_timers.cpp. See supervisor.hpp.
#include "supervisor.hpp"

#include <utility>

namespace bulkhead::supervision {
namespace {

std::string seconds_text(std::chrono::nanoseconds value) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(value).count();
  return ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms";
}

}  // namespace

supervisor::supervisor(supervisor_settings settings, jitter_source jitter, restart_window* group_window)
    : settings_(std::move(settings)),
      jitter_(std::move(jitter)),
      own_window_(settings_.rules.intensity),
      group_window_(group_window),
      places_(settings_.instances + settings_.rules.spares) {}

action_list supervisor::handle(const event& what, time_point now) {
  now_ = now;
  std::visit([this](const auto& each) { on(each); }, what);
  settle();
  return std::exchange(out_, {});
}

void supervisor::answered(worker_id id) {
  if (worker* const each = find(id)) each->unanswered = 0;
}

bool supervisor::worn(const events::usage& e) const {
  const worker* const each = find(e.worker);
  if (!each || each->state != worker_state::ready || each->recycle) return false;
  const auto calls = static_cast<double>(settings_.rules.recycle.calls);
  return (calls > 0 && static_cast<double>(e.calls) >= calls * each->limits) || heavy(*each, e.memory);
}

bool supervisor::heavy(const worker& each, std::size_t memory) const {
  const double limit = settings_.rules.recycle.memory * static_cast<double>(settings_.memory_limit);
  return limit > 0 && static_cast<double>(memory) >= limit * each.limits && now_ >= each.heavy_from;
}

void supervisor::on(const events::start&) {
  if (state_ != supervisor_state::stopped) return;
  state_ = supervisor_state::running;
  degraded_ = false;
  for_good_ = false;
  admit();
  open_places();
}

void supervisor::on(const events::stop& e) {
  if (!e.calls_wait) fail(e.reason);
  for_good_ = for_good_ || e.for_good;
  if (for_good_) violated_.reset();
  if (state_ == supervisor_state::stopping) return;
  state_ = supervisor_state::stopping;
  abandon_places();
  for (place& each : places_) each.restart = e.calls_wait;  // its group starts it again
}

void supervisor::on(const events::reset& e) {
  forget_failures();
  probe_at_ = never;
  for (place& each : places_) each.restart = false;
  if (!e.start) {  // calls wait for that
    admit();
    if (!open() && state_ != supervisor_state::stopping) state_ = supervisor_state::stopped;
    return;
  }
  if (state_ == supervisor_state::stopped || state_ == supervisor_state::stopping) return;
  state_ = supervisor_state::running;
  admit();
  open_places();
}

void supervisor::on(const events::started& e) {
  worker* const each = find(e.worker);
  if (!each || (each->state != worker_state::queued && each->state != worker_state::starting)) return;
  if (each->state == worker_state::queued) each->deadline = after(now_, settings_.start_limit);
  each->state = worker_state::starting;
  each->reached = e.reached;
}

void supervisor::on(const events::ready& e) {
  worker* const each = find(e.worker);
  if (!each || (each->state != worker_state::queued && each->state != worker_state::starting)) return;
  each->state = worker_state::ready;
  each->reached = phase::ready;
  each->deadline = never;
  each->ready_at = now_;
  const auto& rules = settings_.rules;
  if (rules.heartbeat.interval.count() > 0) each->ping_at = next_ping();
  each->limits = 1 + rules.recycle.jitter * jitter_();

  place& where = *place_of(e.worker);
  worker_id old = 0;
  if (where.successor.id == e.worker) {
    old = where.worker.id;
    where.worker = std::exchange(where.successor, {});
  }
  if (state_ == supervisor_state::half_open) {
    probe_at_ = after(now_, rules.backoff.healthy_after);
    admit();
  }
  seat(static_cast<std::size_t>(&where - places_.data()));
  if (old) retire(old);
}

void supervisor::on(const events::drained& e) {
  worker* const each = find(e.worker);
  if (each && each->state == worker_state::draining) each->deadline = now_;
}

void supervisor::on(const events::leaving& e) {
  worker* const each = find(e.worker);
  if (!each || each->state != worker_state::ready || each->leave_by != never) return;
  if (state_ == supervisor_state::half_open) return give_up("the worker that tried it again left");
  place& where = *place_of(e.worker);
  if (settings_.rules.restart == restart_kind::temporary) {
    retire(e.worker);
    if (!where.worker) close(where);
    return;
  }
  each->leave_by = after(now_, settings_.start_limit);
  if (where.successor) return;
  // One that leaves soon after it came counts as a restart: else a worker could have the host spawn without end.
  std::chrono::nanoseconds delay{0};
  where.restart = now_ - each->ready_at < settings_.rules.backoff.healthy_after;
  if (where.restart && !admit_restart(e.worker, delay)) return;
  where.due = after(now_, delay);
}

void supervisor::on(const events::answered& e) { answered(e.worker); }

void supervisor::on(const events::usage& e) {
  if (!worn(e)) return;
  worker& each = *find(e.worker);
  each.recycle = true;
  each.heavy = heavy(each, e.memory);
}

void supervisor::on(const events::recycle& e) {
  if (worker* const each = find(e.worker); each && each->state == worker_state::ready) each->recycle = true;
}

void supervisor::on(const events::exited& e) {
  const auto found = workers_.find(e.worker);
  if (found == workers_.end()) return;
  const worker was = found->second;
  workers_.erase(found);
  if (recycling_ == e.worker) recycling_ = 0;
  if ((!was.expected || e.how == exit_class::violation) && e.report) {
    last_exits_.push_back(e.report);
    if (last_exits_.size() > 5) last_exits_.erase(last_exits_.begin());
  }
  if (e.how == exit_class::violation) quarantine(e.report);
  else if (!was.expected) lost(e.worker, was, e.how, e.calls_pending);
}

// A worker that held a place is gone, and nobody had asked for it.
void supervisor::lost(worker_id gone, const worker& was, exit_class how, bool calls_pending) {
  place& where = *place_of(gone);
  if (state_ == supervisor_state::half_open) return give_up("the worker that tried it again ended, too");
  if (where.successor.id == gone) {
    where.successor = {};
    if (where.worker.at->leave_by == never) {  // a recycle: the old one stays
      recycling_ = 0;
      next_recycle_ = after(now_, settings_.rules.backoff.healthy_after);
      return;
    }
  } else {
    where.worker = std::exchange(where.successor, {});
    if (where.worker || where.due != never || where.closed) return;  // what follows it was decided before
  }
  const bool failed =
      how == exit_class::abnormal || calls_pending || was.ready_at == never || was.state == worker_state::killed;
  const auto kind = settings_.rules.restart;
  if (how == exit_class::rejected || kind == restart_kind::temporary || (kind == restart_kind::transient && !failed))
    return close(where);
  std::chrono::nanoseconds delay{0};
  if (!admit_restart(gone, delay)) return;
  if (settings_.coupled) return emit(actions::restart_group{after(now_, delay)});
  where.due = after(now_, delay);
  where.restart = true;
}

// Counts a restart and says when; or gives up and returns false.
bool supervisor::admit_restart(worker_id gone, std::chrono::nanoseconds& delay) {
  const auto& rules = settings_.rules;
  if (!window().admit(now_)) {
    const auto& limit = window().limit();
    give_up("more than " + std::to_string(limit.restarts) + " restarts in " + seconds_text(limit.period));
    return false;
  }
  if (healthy_since_ && now_ - *healthy_since_ >= rules.backoff.healthy_after) failures_ = 0;
  healthy_since_.reset();
  delay = backoff_delay(rules.backoff, failures_++, jitter_());
  emit(actions::restarting{gone, delay});
  return true;
}

void supervisor::fail(std::string reason) {
  failing_ = true;
  emit(actions::fail_calls{std::move(reason)});
}

void supervisor::admit() {
  if (std::exchange(failing_, false)) emit(actions::admit_calls{});
}

void supervisor::forget_failures() {
  window().clear();
  failures_ = 0;
  last_exits_.clear();
  violated_.reset();
}

void supervisor::give_up(std::string reason) {
  state_ = supervisor_state::gave_up;
  fail(reason);
  emit(actions::gave_up{std::move(reason), last_exits_});
  abandon_places();
  if (settings_.rules.probe_after.count() > 0) probe_at_ = after(now_, settings_.rules.probe_after);
}

void supervisor::quarantine(const std::shared_ptr<const crash_report>& report) {
  if (state_ == supervisor_state::stopping && !for_good_) violated_ = report;
  if (state_ == supervisor_state::stopping || state_ == supervisor_state::stopped ||
      state_ == supervisor_state::quarantined)
    return;
  state_ = supervisor_state::quarantined;
  fail("a worker of it broke the rules, so it is quarantined");
  emit(actions::quarantined{report});
  abandon_places();
}

}  // namespace bulkhead::supervision
