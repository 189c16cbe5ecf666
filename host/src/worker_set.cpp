// See worker_set.hpp.
#include "worker_set.hpp"

#include "group_core.hpp"

#include <algorithm>
#include <new>
#include <random>

namespace bulkhead {
namespace {

using namespace supervision;
using state = supervisor_state;
using kind = enum lifecycle_event::kind;

constexpr std::chrono::milliseconds leftovers_limit{100};

double any_between_minus_one_and_one() {
  thread_local std::minstd_rand source{std::random_device{}()};
  return std::uniform_real_distribution<double>(-1, 1)(source);
}

supervisor_settings settings_of(const worker_settings& given, bool coupled) {
  supervisor_settings out;
  out.rules = given.options.supervision;
  out.instances = given.options.instances;
  out.start_limit = given.options.start_timeout;
  out.memory_limit = given.rules.granted().memory;
  out.coupled = coupled;
  return out;
}

exit_class class_of(const worker_owner::ending& how) {
  if (how.rejected) return exit_class::rejected;
  switch (how.report->reason) {
    case exit_reason::violation:
    case exit_reason::protocol: return exit_class::violation;
    case exit_reason::shut_down: return exit_class::normal;
    case exit_reason::exited: return how.report->exit_code == 0 ? exit_class::normal : exit_class::abnormal;
    default: return exit_class::abnormal;
  }
}

}  // namespace

worker_set::worker_set(std::shared_ptr<host_core> core, std::shared_ptr<worker_settings> settings,
                       std::shared_ptr<std::mutex> mutex, std::weak_ptr<listener> pool,
                       std::shared_ptr<group_core> group)
    : core_(std::move(core)),
      settings_(std::move(settings)),
      mutex_(std::move(mutex)),
      pool_(std::move(pool)),
      group_(std::move(group)),
      supervisor_(settings_of(*settings_, group_ != nullptr), any_between_minus_one_and_one,
                  group_ ? &group_->window : nullptr) {}

// --- for the pool ---------------------------------------------------------------------------------------------------

void worker_set::start(std::unique_lock<std::mutex>& held) {
  starting_ = true;
  apply(events::start{});
  wait_serving(held);
}

void worker_set::wait_serving(std::unique_lock<std::mutex>& held) {
  const auto done = [this] {
    return start_failure_ || supervisor_.state() != state::running ||
           (held_ ? supervisor_.serving() : serving_.size()) == settings_->options.instances;
  };
  while (!done()) wait_change(held);
  if (start_failure_ || failing_) wait_stopped(held);
  starting_ = false;
  if (start_failure_) throw *start_failure_;
  if (failing_) throw call_error(outcome::unavailable, *failing_);
}

// To be told to the supervisor before the end of the worker that failed, which would be followed by a restart.
void worker_set::give_up_start() {
  if (starts() && supervisor_.state() == state::running) decide(events::stop{.reason = "it could not start"});
}

void worker_set::start_failed(outcome code, const std::string& how, std::shared_ptr<const crash_report> report) {
  if (!starts()) return;
  if (!start_failure_)
    start_failure_.emplace(code, "plugin " + settings_->name + how, std::vector<std::uint8_t>{}, std::move(report));
  give_up_start();
}

void worker_set::stop(const std::string& reason) { apply(events::stop{.for_good = true, .reason = reason}); }

void worker_set::pause(const std::string& reason, bool calls_wait) {
  apply(events::stop{.calls_wait = calls_wait, .reason = reason});
}

void worker_set::start_again() { apply(events::start{}); }

void worker_set::wait_stopped(std::unique_lock<std::mutex>& held) {
  while (supervisor_.state() == state::stopping) wait_change(held);
  // What a worker leaves here goes with the last who looks at it, which is a matter of microseconds; unless this is
  // called by a handler of its own.
  changed_.wait_for(held, leftovers_limit, [this] { return processes_ <= members_.size(); });
  settings_->plugin.reset();
}

void worker_set::reset(bool start) {
  if (kept_state* const state = settings_->state.get(); state && std::exchange(state->unusable, false)) {
    state->bytes.reset();
    if (const auto pool = pool_.lock())
      pool->on_log(log_level::warning, -1, "its saved state could not be restored and is dropped", 0);
  }
  apply(events::reset{.start = start});
}

bool worker_set::recycle(std::optional<pid_t> pid) {
  std::vector<worker_id> chosen;
  for (const auto& [id, each] : members_)
    if (each->process && (!pid || each->process->info().pid == *pid)) chosen.push_back(id);
  for (const worker_id id : chosen) apply(events::recycle{id});
  return !chosen.empty();
}

void worker_set::give_back(const lease& worker) {
  --worker->in_progress;
  ++worker->served;
  const auto set = worker->set.lock();
  if (!set) return;
  if (set->settings_->options.supervision.recycle.calls > 0) set->note_usage(worker, 0);
  worker->changed = true;
  if (worker->draining || worker->parked) set->check_drained(worker);
  else if (set->settings_->state) set->save_if_due(worker);
}

std::vector<std::shared_ptr<worker_process>> worker_set::processes() const {
  std::vector<std::shared_ptr<worker_process>> list;
  for (const auto& [id, each] : members_)
    if (each->process) list.push_back(each->process);
  return list;
}

void worker_set::count(plugin_metrics& out) const {
  for (const auto& [id, each] : members_) {
    if (!each->process || !each->process->ready()) ++out.starting;
    else if (each->draining) ++out.draining;
    else if (each->in_progress > 0) ++out.busy;
    else ++out.idle;
  }
}

// Waits for something to happen; does the reactor's work meanwhile if nobody else may.
void worker_set::wait_change(std::unique_lock<std::mutex>& held, ipc::time_point until) {
  if (!core_->needs_help()) {
    if (until == ipc::never) changed_.wait(held);
    else changed_.wait_until(held, until);
    return;
  }
  held.unlock();
  core_->reactor->help(std::min(until, ipc::clock::now() + reactor::help_turn));
  held.lock();
}

// --- what the supervisor decides ------------------------------------------------------------------------------------

worker_set::lease worker_set::find(worker_id id) const {
  const auto found = members_.find(id);
  return found == members_.end() ? nullptr : found->second;
}

// --- what workers report --------------------------------------------------------------------------------------------

void worker_set::tell(const event& what) {
  std::vector<asked> pinging;  // none of it goes with the lock held
  {
    std::lock_guard held(*mutex_);
    apply(what);
    pinging.swap(to_ping_);
  }
  for (const asked& each : pinging) ping(each.worker, *each.process, each.look);
  announce();
}

// What there is to read of a worker takes a while, and nobody waits for it: it is read before the lock is taken.
void worker_set::ping(const lease& worker, worker_process& process, bool look) {
  const std::size_t resident = look ? process.resident_bytes() : 0, published = look ? process.published_bytes() : 0;
  const std::size_t memory = resident - std::min(resident, published);
  const bool in_call = process.in_call();
  std::lock_guard held(*mutex_);
  if (memory > 0) note_usage(worker, memory);
  if (process.outstanding() > (worker->pinged ? 1u : 0u) || process.starved()) return supervisor_.answered(worker->id);
  // In the plugin's code for no call that anybody waits for: other threads of it may answer, that one does not.
  if (in_call) return;
  if (worker->pinged) return;  // the last one is not answered yet
  // What does not get out is asked again in time. The answer waits for the lock.
  worker->pinged = process.ask("$/ping", [weak = weak_from_this(), worker](ipc::completion&&) {
    const auto self = weak.lock();
    if (!self) return;
    std::lock_guard also_held(*self->mutex_);
    worker->pinged = false;
    self->supervisor_.answered(worker->id);
  });
}

void worker_set::note_usage(const lease& worker, std::size_t memory) {
  const events::usage used{worker->id, worker->served, memory};
  if (supervisor_.worn(used)) apply(used);
}

void worker_set::on_timer() {
  {
    std::lock_guard held(*mutex_);
    if (ipc::clock::now() < next_tick_) return;  // a timer that an earlier one has overtaken: its work is done
    next_tick_ = ipc::never;
    if (settings_->state)
      for (const lease& each : serving_) save_if_due(each);
  }
  tell(events::tick{});
}

void worker_set::on_event(const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles) {
  if (const auto pool = pool_.lock()) pool->on_event(name, value, handles);
}

void worker_set::on_violation(violation what) {
  if (const auto pool = pool_.lock()) pool->on_violation(std::move(what));
}

void worker_set::on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) {
  if (const auto pool = pool_.lock()) pool->on_log(level, pid, std::move(text), dropped);
}

void worker_set::on_started(std::uint64_t id, pid_t pid) {
  lifecycle({.kind = kind::started, .pid = pid});
  tell(events::started{id, phase::spawn});
}

void worker_set::on_ready(std::uint64_t id) {
  {
    std::lock_guard held(*mutex_);
    const lease worker = find(id);
    if (!worker) return;
    core_->spawner.done(worker->spawn);
    if (description_.abi == 0 && description_.methods.empty()) description_ = worker->process->description();
    lifecycle({.kind = kind::ready, .pid = worker->process->info().pid});
  }
  tell(events::ready{id});
}

void worker_set::on_leaving(std::uint64_t id) { tell(events::leaving{id}); }

void worker_set::on_exited(std::uint64_t id, const ending& how) {
  lease gone;  // outlives the lock
  {
    std::lock_guard held(*mutex_);
    gone = find(id);
    if (!gone) return;
    members_.erase(id);
    std::erase(serving_, gone);
    core_->spawner.done(gone->spawn);
    try {
      if (settings_->watcher && gone->process) settings_->watcher->on_ended(gone->process);
      lifecycle({.kind = kind::exited, .pid = how.report->pid, .report = how.report});
      if (how.report->reason != exit_reason::shut_down) last_failure_ = how.report->summary();
      if (how.report->reason != exit_reason::shut_down)
        start_failed(how.rejected ? outcome::rejected : outcome::unavailable,
                     " could not start: the worker " + last_failure_, how.report);
    } catch (const std::bad_alloc&) {  // told or not, it has ended
    }
    if (gone->restoring && how.report->reason != exit_reason::shut_down) settings_->state->unusable = true;
    apply(events::exited{id, class_of(how), how.calls_pending, how.report});
    if (settings_->state) take_over();
  }
  if (const auto pool = pool_.lock(); pool && how.report->reason == exit_reason::hung) pool->on_hung(*gone);
  announce();
}

}  // namespace bulkhead
