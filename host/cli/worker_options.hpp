// The options of every command that starts a worker, and the worker's log on stderr.
#pragma once

#include <bulkhead/host.hpp>

#include <CLI/CLI.hpp>

namespace bulkhead::cli {

// The policy in a file with TOML (empty: strict), and grants in text form added to it. Throws usage_error.
policy policy_of(const std::string& file, const std::vector<std::string>& grants);
// Declares the options --policy and --grant for these two.
void add_policy(CLI::App& app, std::string& file, std::vector<std::string>& grants);

struct worker_options {
  std::string plugin;
  std::chrono::nanoseconds start_timeout = load_options{}.start_timeout;
  std::size_t memory_limit = load_options{}.memory_limit;
  std::vector<std::string> environment;
  bool log = false;
  std::string policy_file;          // TOML
  std::vector<std::string> grants;  // in text form

  // Adds PLUGIN and the options to a command line.
  void declare(CLI::App& app);
  // Checked and ready for the host; throws usage_error.
  host_options for_host() const;
  load_options for_load() const;
};

}  // namespace bulkhead::cli
