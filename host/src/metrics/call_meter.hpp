// Counts a plugin's calls, by method, without a lock: a call finds its method's cell in an immutable index, and all it
// does there are relaxed additions. Names come from the plugin's description alone, so that callers can't make up more.
#pragma once

#include <bulkhead/metrics.hpp>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <string_view>

namespace bulkhead {

class call_meter {
 public:
  class alignas(64) cell {
   public:
    void begin(std::size_t argument_bytes) noexcept;
    void end(outcome how, std::chrono::nanoseconds took, std::size_t result_bytes) noexcept;
    method_metrics read(std::string name) const;

   private:
    std::array<std::atomic<std::uint64_t>, outcome_count> calls_{};
    std::array<std::atomic<std::uint64_t>, latency_histogram::bounds.size() + 1> buckets_{};
    std::atomic<std::uint64_t> begun_{0}, nanoseconds_{0}, argument_bytes_{0}, result_bytes_{0};
  };

  call_meter();
  // Methods that are to have cells of their own, beside those that have one already.
  void describe(const std::vector<method_info>& methods);
  // Where calls of `method` count; lives as long as this object.
  cell& of(std::string_view method) const noexcept;
  std::vector<method_metrics> read() const;

 private:
  static constexpr std::size_t most_methods = 256;
  struct entry {
    std::string_view name;  // in names_
    call_meter::cell* cell;
  };
  using index = std::vector<entry>;  // sorted by name

  mutable std::mutex mutex_;  // of those who describe and read
  std::deque<std::string> names_;
  std::deque<cell> cells_;                             // of names_, in the same order; the first is "other"
  std::vector<std::unique_ptr<const index>> indexes_;  // the last is in use; some call may still be in an older one
  std::atomic<const index*> current_;
};

// What becomes of a plugin's workers, over all its versions.
struct worker_counters {
  std::atomic<std::uint64_t> started{0}, restarts{0}, probes{0};
  std::array<std::atomic<std::uint64_t>, exit_reason_count> exits{};
  std::atomic<bool> grants_missed{false};  // the log has said so
};

}  // namespace bulkhead
