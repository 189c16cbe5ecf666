// See comparison.hpp. Both sides read the files, make the thumbnails and throw them away; writing them would cost both
// the same. Rounds alternate in their order, so that neither side always runs on the warmer machine.
#include "comparison.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <mutex>

namespace thumbnailer {
namespace {

constexpr int rounds = 3;
constexpr double round_seconds = 1;  // each is at least that long
constexpr double longest_pass = 5;   // more files than that takes are represented by a sample

// In-process: a copy of the plugin for each thread, since a plugin serves one call at a time. `fragile` keeps the host
// it belongs to in a global variable, as plain C is wont to, and so there can be only one of it in a process.
std::vector<toolset> load_in_process(bulkhead::host& host, const comparison_options& options, bool netpbm) {
  bulkhead::load_options load;
  load.isolation = bulkhead::isolation::none;
  toolset tools;
  if (netpbm) tools.fragile = host.load(options.plugins / "fragile.so", load);
  std::vector<toolset> seats;
  for (unsigned i = 0; i < options.threads; ++i) {
    tools.image = host.load(options.plugins / "image.so", load);
    seats.push_back(tools);
  }
  return seats;
}

double seconds_for(const std::vector<image_file>& files, const std::vector<toolset>& seats, unsigned max_side) {
  job::options options;
  options.max_side = max_side;
  options.ask_dimensions = false;
  std::mutex mutex;
  std::string first;
  options.on_done = [&](std::size_t, const result& made, bulkhead::bytes_view) {
    if (made.outcome == bulkhead::outcome::ok) return;
    const std::lock_guard held(mutex);
    if (first.empty()) first = made.method + ": " + std::string(to_string(made.outcome)) + ": " + made.message;
  };
  job job(files, seats, std::move(options));
  const auto begin = std::chrono::steady_clock::now();
  const std::size_t failed = job.run();
  if (failed > 0)
    throw std::runtime_error(std::to_string(failed) + " files that had worked failed when they were measured, first " +
                             first);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::array<double, rounds> values) {
  std::sort(values.begin(), values.end());
  return values[rounds / 2];
}

}  // namespace

comparison compare(const std::vector<image_file>& files, const std::vector<result>& results,
                   std::vector<toolset> isolated, const comparison_options& options) {
  comparison made;
  std::vector<image_file> set;
  const auto stride = static_cast<std::size_t>(std::max(1.0, std::ceil(options.seconds_per_pass / longest_pass)));
  std::size_t succeeded = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (results[i].outcome != bulkhead::outcome::ok || succeeded++ % stride != 0) continue;
    set.push_back(files[i]);
    made.megapixels += 1e-6 * results[i].width * results[i].height;
  }
  if (set.empty()) throw std::runtime_error("no file succeeded");
  made.files = set.size();
  made.rounds = rounds;

  bulkhead::host_options with;
  with.handler_threads = options.threads;  // these do the work
  bulkhead::host host(with);
  const bool netpbm = std::any_of(set.begin(), set.end(), [](const image_file& file) { return file.netpbm; });
  const std::vector<toolset> in_process = load_in_process(host, options, netpbm);

  if (options.on_progress) options.on_progress("warming up to measure the same job in-process");
  const double warm =
      std::min(seconds_for(set, in_process, options.max_side), seconds_for(set, isolated, options.max_side));
  made.passes = std::clamp(static_cast<int>(std::ceil(round_seconds / warm)), 1, 1000);
  std::vector<image_file> work;
  for (int i = 0; i < made.passes; ++i) work.insert(work.end(), set.begin(), set.end());

  std::array<double, rounds> apart{}, together{};
  for (std::size_t round = 0; round < rounds; ++round) {
    if (options.on_progress)
      options.on_progress("measuring the same job in-process: round " + std::to_string(round + 1) + " of " +
                          std::to_string(rounds));
    const bool isolated_first = round % 2 == 0;
    if (isolated_first) apart[round] = seconds_for(work, isolated, options.max_side);
    together[round] = seconds_for(work, in_process, options.max_side);
    if (!isolated_first) apart[round] = seconds_for(work, isolated, options.max_side);
  }
  made.isolated_seconds = median(apart) / made.passes;
  made.in_process_seconds = median(together) / made.passes;
  return made;
}

}  // namespace thumbnailer
