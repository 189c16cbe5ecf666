// The options of every command that starts a worker, and the worker's log on stderr.
#pragma once

#include <bulkhead/host.hpp>

#include <CLI/CLI.hpp>

namespace bulkhead::cli {

struct worker_options {
  std::string plugin;
  double start_timeout_ms = 10'000;
  std::size_t memory_limit = load_options{}.memory_limit;
  std::vector<std::string> environment;
  bool log = false;

  // Adds PLUGIN and the options to a command line.
  void declare(CLI::App& app);
  // Checked and ready for the host; throws usage_error.
  host_options for_host() const;
  load_options for_load() const;
};

// "500ms", "5s", "1.5m" into a number of milliseconds; a number alone is refused.
CLI::AsNumberWithUnit as_milliseconds();
std::chrono::nanoseconds from_milliseconds(double ms);

}  // namespace bulkhead::cli
