// The plugin that is checked, in workers of a host of its own: what they log, report, are denied and die of is kept. Each
// check has another, so that what it sees is its own.
#pragma once

#include "check/arguments.hpp"
#include <bulkhead/host.hpp>

#include <mutex>
#include <set>

namespace bulkhead::cli::check {

struct settings {
  std::filesystem::path file;
  host_options for_host{};
  load_options for_load{};
  policy most{};  // what it may have at most
  std::chrono::nanoseconds deadline = std::chrono::milliseconds(500);
  std::uint64_t seed = 1;
  unsigned cases = 100;    // of arguments, for each method
  unsigned calls = 10000;  // for leaks
};

// A line of the worker's instrument, in numbers.
struct measure {
  long calls = 0, heap = 0, descriptors = 0, blobs = 0, answers = 0;
  long threads = 0, resident = 0;  // as the host sees them; 0: not known
};

struct observations {
  std::set<std::string> misuses, extensions;
  std::vector<measure> measures;
  std::vector<std::shared_ptr<const crash_report>> exits;
  std::vector<violation> denials;
};

class subject {
 public:
  // Throws call_error. `instrument` goes to the worker, see instrument.hpp.
  subject(const settings& with, const policy& rules, const std::string& instrument = "", load_options changed = {});
  ~subject();

  plugin& target() { return target_; }
  // A call of any kind of method; of streams, what came of the whole.
  reply call(const method_info& method, const signature& form, const made_arguments& made,
             const call_options& how) const;
  // Whether a worker has been killed since it was asked last because it did not stop.
  bool hung();
  // How a worker has died since this was asked last, if one has by itself: calls of idempotent methods are made again then,
  // and end with something else.
  std::shared_ptr<const crash_report> died();
  // Ends all, and gives what was seen. `in`: how long its end took.
  const observations& finish(std::chrono::nanoseconds* in = nullptr);
  // So far; for what has to be seen while it runs.
  observations so_far();

 private:
  void log(const log_record& line);

  std::mutex mutex_;
  observations seen_;
  std::size_t hangs_seen_ = 0, ends_seen_ = 0;
  std::optional<bulkhead::host> host_;
  plugin target_;
};

}  // namespace bulkhead::cli::check
