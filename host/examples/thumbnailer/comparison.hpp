// What isolation costs: the same files through the same job, in workers and in this process, measured in turns.
#pragma once

#include "job.hpp"

namespace thumbnailer {

struct comparison {
  std::size_t files = 0;        // how many were measured; a sample of them when there are very many
  int passes = 0;               // over all of them in each round
  int rounds = 0;               // of which the medians are taken
  double isolated_seconds = 0;  // for one pass
  double in_process_seconds = 0;
  double megapixels = 0;  // of one pass; 0: not known
  double price() const { return isolated_seconds / in_process_seconds - 1; }
};

struct comparison_options {
  std::filesystem::path plugins;
  unsigned threads = 1;  // in this process: as many as there are workers
  unsigned max_side = 256;
  double seconds_per_pass = 0;  // roughly, from the job that was done before
  std::function<void(const std::string&)> on_progress;
};

// `files` and their `results`: only those that succeeded are measured, since in this process the others could take it
// down. `isolated` is the job's own toolset, warm already. Throws std::runtime_error when it can't be measured.
comparison compare(const std::vector<image_file>& files, const std::vector<result>& results,
                   std::vector<toolset> isolated, const comparison_options& options);

}  // namespace thumbnailer
