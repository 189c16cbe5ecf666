// The thread that spawns workers for all plugins of a host, within its spawn budget: neither callers nor the reactor
// ever wait for the fork server.
#pragma once

#include "spawn_budget.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace bulkhead::supervision {

class spawner {
 public:
  using ticket = spawn_budget::ticket;

  // Starts its thread; throws std::system_error. Later, nothing here can fail for want of one.
  explicit spawner(const spawn_limits& limits);
  ~spawner() { stop(); }
  spawner(const spawner&) = delete;

  // Queues a spawn; `job` runs on the spawner's thread when its turn has come, and must not throw. Never blocks.
  ticket ask(spawn_kind kind, std::function<void()> job);
  // The worker of this spawn is ready or gone, or waited for no longer. True when its job had not begun, and never will.
  bool done(ticket spawn);
  // Runs `job` on the spawner's thread as soon as it is free. It is no spawn: nothing is counted. It must not throw.
  void run_soon(std::function<void()> job);
  // An event is on its way to the application, and gets there. While too many are, first starts alone begin: all else
  // would only add to them, and none is dropped.
  void event_queued() noexcept { ++events_; }
  void event_told();
  // No job begins any more; waits for the one that runs. Idempotent.
  void stop();

 private:
  void run();

  static constexpr unsigned most_events = 1024;

  std::mutex mutex_;
  std::condition_variable changed_;
  spawn_budget budget_;
  std::map<ticket, std::function<void()>> jobs_;  // not begun
  std::vector<std::function<void()>> soon_;
  std::atomic<unsigned> events_{0};
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace bulkhead::supervision
