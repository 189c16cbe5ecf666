// A chaos run: a host with plugins in pools of several kinds, threads that call, and harm that comes to the workers.
// It goes in rounds. In each, calls and ends of workers keep pace with each other; after each, all is let come to rest,
// and what the host holds is counted: what is more than after the first rounds has leaked.
#pragma once

#include "census.hpp"
#include "plan.hpp"
#include "record.hpp"
#include <bulkhead/host.hpp>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>

namespace chaos {

#ifdef BULKHEAD_SANITIZED
constexpr std::chrono::seconds usual_deadline{2};
#else
constexpr std::chrono::milliseconds usual_deadline{400};
#endif

struct storm_settings {
  std::uint64_t seed = 1;
  std::uint64_t kills = 2000, calls = 200'000;
  unsigned rounds = 20, threads = 8;
  std::string marks_file;  // of marks::size(calls)
  marks* shared = nullptr;
  int ledger = -1;  // where records go
  std::function<void(std::uint64_t calls, std::uint64_t ends)> on_progress{};
};

// The same in each round, and so in the sum.
struct storm_results {
  std::uint64_t calls = 0, ends = 0;            // of workers; by harm, not because the host ended them
  std::map<std::string, std::uint64_t> harm;    // what was done, by name and place
  std::map<std::string, std::uint64_t> exits;   // how workers ended
  std::map<std::string, std::uint64_t> phases;  // and in which phase
  std::uint64_t late = 0;                       // outcomes more than 50 ms after the deadline
  std::uint64_t very_late = 0;                  // of those, the ones more than the grace of a cancelled call (1 s)
  double latest_ms = 0;
  census before, after;
  std::vector<double> resident;   // KiB of memory, at the end of each round after the first
  std::vector<double> allocated;  // KiB of the heap, likewise
  trend growth;                   // of resident memory, for each 1,000 ends
  std::vector<std::string> failures;
};

class storm {
 public:
  explicit storm(storm_settings settings);
  ~storm();
  storm_results run();

 private:
  struct pool {
    std::string name, file;
    bulkhead::plugin plugin;
    std::size_t instances, workers;  // that serve; in all
    bool hostile;
  };
  struct flight;  // an asynchronous call
  using time_point = std::chrono::steady_clock::time_point;

  void add(std::string name, std::string file, bulkhead::load_options options, bool hostile = false,
           bulkhead::plugin_group* group = nullptr);
  static bool needs_reset(const bulkhead::plugin& which);
  void on_lifecycle(const bulkhead::lifecycle_event& event);
  void round(unsigned number);
  void call_on(dice random, std::uint64_t until);
  void make_call(std::uint64_t id, pool& to, const call_plan& plan);
  void lend_bytes(std::uint64_t id, const bulkhead::plugin::bound& to, const call_plan& plan,
                  const bulkhead::shared_blob& in, time_point due);
  void stream(std::uint64_t id, const bulkhead::plugin::bound& to, const call_plan& plan, time_point due);
  void harm_workers(dice random, const std::stop_token& stop);
  void strike(dice& random, blow what);
  void ended(record what, const bulkhead::reply& result, time_point due);
  void write(const record& what) const;
  void count(const std::string& harm);
  double pace() const;  // how much of the round's calls are made, less how much of its ends
  bool at_rest();
  void come_to_rest(unsigned number);
  std::string state();  // of the pools, in words
  void failed(std::string how);
  void watch(const std::stop_token& stop);

  const storm_settings settings_;
  bulkhead::host host_;
  std::vector<pool> pools_;
  std::atomic<std::uint64_t> next_call_{0}, open_{0}, ends_{0}, late_{0}, very_late_{0}, latest_us_{0};
  std::atomic<bool> needs_reset_{false};
  std::atomic<const char*> stage_{"begins"}, harm_stage_{"begins"};  // what the run is at, and its harm
  std::set<pid_t> seen_idle_;                                        // workers, since the storm is over
  std::uint64_t calls_before_ = 0, ends_before_ = 0;                 // this round
  std::uint64_t calls_in_round_ = 0, ends_in_round_ = 0;
  std::mutex flights_mutex_;
  std::condition_variable landed_;  // an asynchronous call: another may begin
  std::vector<double> restarts_, resident_;
  std::optional<census> baseline_;
  std::mutex mutex_;
  storm_results results_;
};

}  // namespace chaos
