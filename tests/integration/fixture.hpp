// What the integration tests share: where plugins are, and waiting for an event with a limit.
#pragma once

#include "../scratch_folder.hpp"
#include <bulkhead/host.hpp>

#include <catch2/catch.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

namespace bulkhead::testing {

using namespace std::chrono_literals;

inline std::string plugin_path(const std::string& name) {
  return std::string(BULKHEAD_TEST_PLUGINS) + "/" + name + ".so";
}

// For plugins that crash again and again on purpose: restarted at once, always, and no call of theirs is refused.
inline load_options untiring(load_options options = {}) {
  options.supervision.intensity.restarts = 1'000'000;
  options.supervision.backoff.first = 0s;
  options.poison_limit = 0;
  return options;
}
constexpr spawn_limits any_number_of_spawns{4, {1'000'000, 10s}};

// Something that another thread brings about.
template <class T>
class mailbox {
 public:
  void put(T value) {
    std::lock_guard held(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // Waits until `wanted` is true of the values so far.
  template <class F>
  bool wait(F wanted, std::chrono::seconds limit = 20s) {
    std::unique_lock held(mutex_);
    return changed_.wait_for(held, limit, [&] { return wanted(values_); });
  }
  bool wait_for(std::size_t count) {
    return wait([&](const auto& values) { return values.size() >= count; });
  }
  std::vector<T> values() {
    std::lock_guard held(mutex_);
    return values_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> values_;
};

// What to do with the reply of an asynchronous call of which the outcome alone is of interest.
inline auto outcome_to(mailbox<outcome>& to) {
  return [&to](boost::system::error_code, const reply& result) { to.put(result.outcome()); };
}

// The least time that one of five attempts tells, or the first below `wanted`: any of them may fall into a moment in
// which the machine stands still, but a fault shows in all.
template <class F>
std::chrono::nanoseconds least_time(std::chrono::nanoseconds wanted, F attempt) {
  std::chrono::nanoseconds least = attempt();
  for (int i = 1; i < 5 && least >= wanted; ++i) least = std::min<std::chrono::nanoseconds>(least, attempt());
  return least;
}

// Waits for what nobody tells of.
template <class F>
bool eventually(F wanted) {
  const auto limit = std::chrono::steady_clock::now() + 30s;
  while (!wanted()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

// A zombie is not.
inline bool gone(pid_t pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }

inline bool gets_into_call(const plugin& of) {
  return eventually([&] { return of.workers().at(0).phase == phase::call; });
}

inline std::size_t entries(const std::string& directory) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}

// How many mappings of shared memory with this name a process has.
inline std::size_t mappings(const std::string& name, const std::string& process = "self") {
  std::ifstream maps("/proc/" + process + "/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("memfd:" + name) != std::string::npos;
  return count;
}

// Calls that must fail: gives back how.
template <class F>
call_error failure_of(F call) {
  try {
    call();
  } catch (const call_error& error) {
    return error;
  }
  FAIL("the call succeeded");
  throw std::logic_error("unreachable");
}

}  // namespace bulkhead::testing
