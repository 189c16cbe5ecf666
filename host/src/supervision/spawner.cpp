// See spawner.hpp.
#include "spawner.hpp"

#include "../signals_blocked.hpp"

#include <utility>

namespace bulkhead::supervision {

spawner::spawner(const spawn_limits& limits) : budget_(limits.at_once, limits.restarts) {
  const signals_blocked guard;
  thread_ = std::thread([this] { run(); });
}

spawner::ticket spawner::ask(spawn_kind kind, std::function<void()> job) {
  std::lock_guard held(mutex_);
  const ticket spawn = budget_.ask(kind);
  try {
    jobs_.emplace(spawn, std::move(job));
  } catch (...) {  // no memory
    budget_.done(spawn);
    throw;
  }
  changed_.notify_one();
  return spawn;
}

void spawner::run_soon(std::function<void()> job) {
  std::lock_guard held(mutex_);
  soon_.push_back(std::move(job));
  changed_.notify_one();
}

bool spawner::done(ticket spawn) {
  std::lock_guard held(mutex_);
  budget_.done(spawn);
  changed_.notify_one();
  return jobs_.erase(spawn) > 0;
}

void spawner::event_told() {
  if (--events_ != most_events) return;
  std::lock_guard held(mutex_);
  changed_.notify_one();
}

void spawner::stop() {
  std::thread ended;
  {
    std::lock_guard held(mutex_);
    stopped_ = true;
    ended.swap(thread_);
    changed_.notify_one();
  }
  if (ended.joinable()) ended.join();
  // What is left holds what holds this.
  decltype(jobs_) jobs;
  decltype(soon_) soon;
  std::lock_guard held(mutex_);
  jobs.swap(jobs_);
  soon.swap(soon_);
}

void spawner::run() {
  std::unique_lock held(mutex_);
  while (!stopped_ || !soon_.empty()) {
    if (!soon_.empty()) {
      auto jobs = std::exchange(soon_, {});
      held.unlock();
      for (const auto& job : jobs) job();
      jobs.clear();  // what they hold takes locks as it goes
      held.lock();
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    const bool others = events_ <= most_events;
    const std::vector<ticket> turn = budget_.granted(now, others);
    if (turn.empty()) {
      if (const auto next = budget_.wake_at(now, others); next == never) changed_.wait(held);
      else changed_.wait_until(held, next);
    }
    for (const ticket spawn : turn) {
      const auto found = jobs_.find(spawn);  // it may have been withdrawn meanwhile
      if (found == jobs_.end() || stopped_) continue;
      const std::function<void()> job = std::move(found->second);
      jobs_.erase(found);
      held.unlock();
      job();
      held.lock();
    }
  }
}

}  // namespace bulkhead::supervision
