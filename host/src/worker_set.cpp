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
constexpr std::chrono::milliseconds help_turn{20};  // how long a thread that helps the reactor may miss a change

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
  core_->reactor->help(std::min(until, ipc::clock::now() + help_turn));
  held.lock();
}

// --- what the supervisor decides ------------------------------------------------------------------------------------

void worker_set::decide(const event& what) {
  for (action& each : supervisor_.handle(what, ipc::clock::now())) actions_.push_back(std::move(each));
}

void worker_set::apply(const event& what) {
  decide(what);
  if (executing_) return;
  {
    const auto over = [](bool* executing) { *executing = false; };
    const std::unique_ptr<bool, decltype(over)> executing(&executing_, over);
    executing_ = true;
    while (!actions_.empty()) {
      const action next = std::move(actions_.front());
      actions_.pop_front();
      std::visit([this](const auto& each) { execute(each); }, next);
    }
  }
  if (member_ && supervisor_.whole()) group_->whole(*member_);
  wake_by(supervisor_.wake_at());
  changed_.notify_all();
}

void worker_set::wake_by(ipc::time_point when) {
  if (when >= next_tick_) return;
  next_tick_ = when;
  core_->reactor->schedule(when, weak_from_this());
}

template <class Action>
void worker_set::execute(const Action& action) {
  if constexpr (requires { action.worker; }) {
    const lease worker = find(action.worker);
    worker_process* const process = worker ? worker->process.get() : nullptr;
    constexpr bool needs_it = !std::is_same_v<Action, actions::spawn> && !std::is_same_v<Action, actions::restarting>;
    if (needs_it && !worker)  // there was no memory to ask for it, or to take note of its end
      return apply(events::exited{action.worker, exit_class::abnormal, false, std::make_shared<crash_report>()});
    if constexpr (std::is_same_v<Action, actions::spawn>) {
      try {
        auto added = std::make_shared<member>();
        added->id = action.worker;
        added->set = weak_from_this();
        added->place = action.place;
        members_.emplace(action.worker, added);
        added->spawn = core_->spawner.ask(action.kind, [weak = weak_from_this(), id = action.worker] {
          if (const auto self = weak.lock()) self->spawn(id);
        });
      } catch (const std::exception& e) {  // no memory; the supervisor takes it to be there
        members_.erase(action.worker);
        last_failure_ = std::string("could not be started: ") + e.what();
        apply(events::exited{action.worker, exit_class::abnormal, false, std::make_shared<crash_report>()});
      }
    } else if constexpr (std::is_same_v<Action, actions::serve>) {
      worker->place = action.place;
      if (settings_->state) take_over();
      else admit(worker);
      if (settings_->watcher) employ(worker);
    } else if constexpr (std::is_same_v<Action, actions::ping>) {
      // One that has served no call since is looked at now and then, for what its own threads do.
      const bool look =
          settings_->rules.granted().memory > 0 &&
          (std::exchange(worker->served_then, worker->served) != worker->served || worker->pings++ % 8 == 0);
      to_ping_.push_back({worker, worker->process, look});
    } else if constexpr (std::is_same_v<Action, actions::drain>) {
      worker->draining = true;
      std::erase(serving_, worker);
      if (settings_->watcher) settings_->watcher->on_draining(worker->process);
      check_drained(worker);
    } else if constexpr (std::is_same_v<Action, actions::shutdown>) {
      process->ask_to_leave();
    } else if constexpr (std::is_same_v<Action, actions::kill>) {
      worker->killed = action.reason;
      std::erase(serving_, worker);
      if (action.reason != exit_reason::shut_down) give_up_start();  // its end may never be told
      if (process) process->kill(action.reason);
      else if (core_->spawner.done(worker->spawn)) never_spawned(worker);  // else spawn() is about to find out
    } else if constexpr (std::is_same_v<Action, actions::restarting>) {
      lifecycle({.kind = kind::restarting, .delay = action.delay, .text = last_failure_});
    } else if constexpr (std::is_same_v<Action, actions::undead>) {
      if (settings_->watcher && process) settings_->watcher->on_ended(worker->process);  // it runs no code any more
      if (process) core_->spawner.run_soon([process = worker->process] { process->abandon(); });
      core_->spawner.done(worker->spawn);
      if (worker->killed != exit_reason::shut_down)
        start_failed(outcome::unavailable, " could not start: the worker was killed, and does not end");
      lifecycle({.kind = kind::undead, .pid = process ? process->info().pid : -1});
      worker->handed_over = true;  // what was saved last counts, whatever it may still say
      if (settings_->state) take_over();
    }
  } else if constexpr (std::is_same_v<Action, actions::fail_calls>) {
    failing_ = "plugin " + settings_->name + ": " + action.reason;
    const auto now = supervisor_.state();
    if (now != state::stopping && !last_failure_.empty()) *failing_ += "; the last worker " + last_failure_;
    if (now == state::gave_up || now == state::quarantined || now == state::ended)
      *failing_ += " (plugin::reset() starts it again)";
  } else if constexpr (std::is_same_v<Action, actions::admit_calls>) {
    failing_.reset();
  } else if constexpr (std::is_same_v<Action, actions::degraded>) {
    lifecycle({.kind = kind::degraded, .serving = action.serving});
  } else if constexpr (std::is_same_v<Action, actions::recovered>) {
    lifecycle({.kind = kind::recovered, .serving = settings_->options.instances});
  } else if constexpr (std::is_same_v<Action, actions::soon_heavy>) {
    if (const auto pool = pool_.lock())
      pool->on_log(log_level::warning, -1,
                   "a worker needs most of its memory limit soon after its start: none is recycled for that more often "
                   "than each restart_backoff::healthy_after",
                   0);
  } else if constexpr (std::is_same_v<Action, actions::gave_up>) {
    lifecycle({.kind = kind::gave_up, .text = action.reason, .last_exits = action.last_exits});
    if (member_) group_->out(*member_, true, "was given up");
  } else if constexpr (std::is_same_v<Action, actions::quarantined>) {
    lifecycle({.kind = kind::quarantined, .report = action.report});
    if (member_) group_->out(*member_, true, "is quarantined");
  } else if constexpr (std::is_same_v<Action, actions::ended>) {
    if (member_) group_->out(*member_, false, "has ended");
  } else if constexpr (std::is_same_v<Action, actions::stopped>) {
    if (member_) group_->stopped(*member_);
  } else if constexpr (std::is_same_v<Action, actions::restart_group>) {
    if (member_) group_->failed(*member_, action.due);
  } else {
    static_assert(std::is_same_v<Action, actions::reset_group>);
    if (member_) group_->reset();
  }
}

// Calls that wait may have got a worker, or are to fail.
void worker_set::announce() {
  if (group_) return group_->announce();
  if (const auto pool = pool_.lock()) pool->on_change();
}

void worker_set::spawn(worker_id id) {
  std::shared_ptr<worker_process> process;
  std::optional<call_error> failure;
  try {
    process = make_process(id);
    {
      std::lock_guard held(*mutex_);
      const lease worker = find(id);
      if (!worker) return;
      if (worker->killed) return never_spawned(worker);
      worker->process = process;
    }
    process->start();
    return;
  } catch (const call_error& e) {
    failure = e;
  } catch (const std::exception& e) {
    failure.emplace(outcome::unavailable, std::string("no worker could be started: ") + e.what());
  }
  {
    std::unique_lock held(*mutex_);
    const lease worker = find(id);
    if (!worker) return;
    worker->process.reset();
    held.unlock();
    process.reset();  // nothing of it is left when its end is told
    held.lock();
    members_.erase(id);
    core_->spawner.done(worker->spawn);
    last_failure_ = "could not be started: " + failure->message();
    auto report = std::make_shared<crash_report>();
    report->plugin = settings_->name;
    report->message = failure->message();
    start_failed(failure->outcome(), ": " + failure->message());
    apply(events::exited{id, exit_class::abnormal, false, report});
  }
  announce();
}

std::shared_ptr<worker_process> worker_set::make_process(worker_id id) {
  auto made = std::make_unique<worker_process>(core_, settings_, weak_from_this(), id);
  ++processes_;
  return {made.release(), [weak = weak_from_this()](worker_process* process) {
            delete process;
            const auto self = weak.lock();
            if (!self) return;
            --self->processes_;  // without the lock, which whoever lets go of it may have
            self->changed_.notify_all();
          }};
}

void worker_set::never_spawned(const lease& worker) {
  members_.erase(worker->id);
  core_->spawner.done(worker->spawn);
  apply(events::exited{worker->id, exit_class::abnormal});
}

// A worker that leaves has ended its calls when all were given back, and those that were given up have ended in it, too.
void worker_set::check_drained(const lease& worker) {
  if (worker->in_progress > 0) return;
  const auto then = [weak = weak_from_this(), worker](ipc::completion&&) {
    const auto self = weak.lock();
    if (!self) return;
    {
      std::lock_guard held(*self->mutex_);
      self->drained(worker);
    }
    self->announce();
  };
  // The supervisor sees to one that drains, and nobody else to one that is parked.
  const auto limit = worker->draining ? ipc::never : ipc::clock::now() + settings_->options.supervision.drain.calls;
  if (worker->process->outstanding() == 0 || !worker->process->ask("$/drain", then, limit)) drained(worker);
}

void worker_set::admit(const lease& worker) {
  const auto after = std::upper_bound(serving_.begin(), serving_.end(), worker->place,
                                      [](std::size_t place, const lease& each) { return place < each->place; });
  serving_.insert(after, worker);
}

void worker_set::employ(const lease& worker) {
  ++worker->in_progress;
  settings_->watcher->on_admitted(worker->process, [weak = weak_from_this(), worker] {
    const auto self = weak.lock();
    if (!self) return;
    {
      std::lock_guard held(*self->mutex_);
      give_back(worker);
    }
    self->announce();
  });
}

void worker_set::lifecycle(lifecycle_event event) {
  if (worker_counters* const counters = settings_->counters.get()) {
    if (event.kind == kind::started) ++counters->started;
    if (event.kind == kind::restarting) ++counters->restarts;
    if (event.kind == kind::exited) ++counters->exits[static_cast<std::size_t>(event.report->reason)];
  }
  event.plugin = settings_->name;
  event.instances = settings_->options.instances;
  core_->lifecycle(std::move(event));
}

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
  if (process.outstanding() > (worker->pinged ? 1u : 0u)) return supervisor_.answered(worker->id);
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
