// What the supervisor decides, and how it is done. See worker_set.hpp.
#include "group_core.hpp"
#include "worker_set.hpp"

namespace bulkhead {
namespace {

using namespace supervision;
using state = supervisor_state;
using kind = enum lifecycle_event::kind;

}  // namespace

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

}  // namespace bulkhead
