// A plugin's state on its way from one worker to the next: saved after calls, saved for good when a worker leaves, and
// restored before the next one gets calls. Of a pool's workers one at a time holds the state that counts.
#include "worker_set.hpp"

namespace bulkhead {

using namespace supervision;

// Its calls have ended.
void worker_set::drained(const lease& worker) {
  if (!settings_->state || !worker->restored || worker->handed_over) return apply(events::drained{worker->id});
  save(worker, [this, worker](const ipc::completion&) {
    worker->handed_over = true;
    apply(events::drained{worker->id});
    take_over();
  });
}

// Asks for its state and keeps what comes. `done` is called with the lock held, unless this set is gone by then.
void worker_set::save(const lease& worker, std::function<void(const ipc::completion&)> done) {
  worker->changed = false;
  ++worker->saves;
  settings_->state->saved = ipc::clock::now();
  auto answered = [weak = weak_from_this(), worker, done](ipc::completion&& result) {
    const auto self = weak.lock();
    if (!self) return;
    msgpack::object_handle unpacked;
    // Anything else is not unpacked at all: as objects it may take 24 times as much.
    if (result.code == outcome::ok && (result.result()[0] < 0xc4 || result.result()[0] > 0xc6))
      result = ipc::completion::failed(outcome::protocol, "it is not bytes");
    if (result.code == outcome::ok) unpacked = ipc::unpack(result.result());
    if (const auto pool = self->pool_.lock(); pool && result.code != outcome::ok && worker->process->alive())
      pool->on_log(log_level::warning, worker->process->info().pid,
                   "its state was not saved: " + result.failure.message, 0);
    {
      std::lock_guard held(*self->mutex_);
      --worker->saves;
      worker->save_failure = result.failure.message;
      if (result.code == outcome::ok && !worker->handed_over)
        self->settings_->state->bytes.emplace(unpacked->via.bin.ptr, unpacked->via.bin.ptr + unpacked->via.bin.size);
      done(result);
      self->changed_.notify_all();
    }
    self->announce();
  };
  const auto limit = ipc::clock::now() + settings_->options.deadline;
  if (worker->process->ask("$/save_state", std::move(answered), limit)) return;
  --worker->saves;
  done(ipc::completion::failed(outcome::overloaded, "too many calls wait"));
}

void worker_set::save_if_due(const lease& worker) {
  if (!worker->changed || worker->saves > 0 || !worker->restored || !worker->process->alive()) return;
  const auto every = settings_->options.state.every;
  const auto due = settings_->state->saved + every;
  if (every.count() > 0 && due > ipc::clock::now()) return wake_by(due);
  save(worker, [this, worker](const ipc::completion&) { save_if_due(worker); });
}

// Gives the state to the worker that waits for it, unless another one has yet to give it.
void worker_set::take_over() {
  if (held_) return;
  lease next;
  for (const auto& [id, each] : members_) {
    if (!each->process || !each->process->ready() || each->killed) continue;
    if (each->restored && !each->handed_over) return;
    if (!each->restored && !each->restoring && !each->draining) next = each;
  }
  if (next) restore(next);
}

void worker_set::restore(const lease& worker) {
  if (!settings_->state->bytes) {
    worker->restored = true;
    return admit(worker);
  }
  worker->restoring = true;
  const auto answered = [weak = weak_from_this(), worker](ipc::completion&& result) {
    const auto self = weak.lock();
    if (!self || result.code != outcome::ok) return;  // the worker ends, and says why
    {
      std::lock_guard held(*self->mutex_);
      worker->restoring = false;
      worker->restored = true;
      self->settings_->state->unusable = false;
      if (worker->draining) self->check_drained(worker);
      else if (!worker->killed) self->admit(worker);
      self->changed_.notify_all();
    }
    self->announce();
  };
  const auto limit = ipc::clock::now() + settings_->options.start_timeout;
  if (!worker->process->ask("$/restore_state", answered, limit, *settings_->state->bytes))
    worker->process->kill(exit_reason::start_timeout, "its state is larger than load_options::limits.frame");
}

void worker_set::admit_calls(std::unique_lock<std::mutex>& held) {
  held_ = false;
  starting_ = true;
  take_over();
  wait_serving(held);
}

void worker_set::hand_over(std::unique_lock<std::mutex>& held) {
  hold_calls();
  for (const lease& each : std::exchange(serving_, {})) {
    each->parked = true;
    check_drained(each);
  }
  const auto limit = ipc::clock::now() + settings_->options.supervision.drain.calls;
  for (;;) {
    lease last;
    for (const auto& [id, each] : members_)
      if (each->restored && !each->killed) last = each;
    if (!last) return;  // it has ended: what it saved last is handed over
    if (last->handed_over && last->save_failure.empty()) return;
    if (last->handed_over)
      throw call_error(outcome::plugin_error, "plugin " + settings_->name +
                                                  ": the old version could not save its state: " + last->save_failure);
    if (last->in_progress > 0 && ipc::clock::now() >= limit)
      throw call_error(outcome::timeout, "plugin " + settings_->name +
                                             ": the old version's calls did not end in time "
                                             "(supervision_options::drain); it goes on");
    const auto until = last->in_progress > 0 ? limit : ipc::never;
    last.reset();  // it may end meanwhile, and must not go with the lock held
    wait_change(held, until);
  }
}

void worker_set::resume_calls() {
  held_ = false;
  for (const auto& [id, each] : members_) {
    if (!std::exchange(each->parked, false) || each->draining || each->killed) continue;
    each->handed_over = false;
    admit(each);
  }
  take_over();
}

std::vector<std::uint8_t> worker_set::save_state(std::unique_lock<std::mutex>& held) {
  if (!serving_.empty()) {
    const auto result = std::make_shared<std::optional<ipc::completion>>();
    save(serving_.front(),
         [result](const ipc::completion& got) { *result = ipc::completion::failed(got.code, got.failure.message); });
    while (!*result) wait_change(held);
    if ((*result)->code != outcome::ok)
      throw call_error((*result)->code, "plugin " + settings_->name + ": " + (*result)->failure.message);
  }
  if (!settings_->state->bytes)
    throw call_error(outcome::unavailable,
                     failing_.value_or("plugin " + settings_->name + ": no worker serves, and no state is saved"));
  return *settings_->state->bytes;
}

}  // namespace bulkhead
