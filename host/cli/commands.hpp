// The subcommands. Each adds itself to the program's parser and gives back what to run when it was chosen.
#pragma once

#include <bulkhead/host.hpp>

#include <CLI/CLI.hpp>

namespace bulkhead::cli {

// Exit statuses, documented in --help: 0 ok, 1 plugin_error, 2 wrong usage, then one for each outcome.
inline constexpr int exit_usage = 2;
int exit_status(outcome value);

// Wrong usage that the parser can't see: printed as it is, exit status 2.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using command = std::function<int()>;
void add_inspect(CLI::App& app, command& chosen);
void add_call(CLI::App& app, command& chosen);

// A path if `name` has a slash, else NAME.so in the plugin path. Throws usage_error naming the places searched.
std::filesystem::path find_plugin(const std::string& name);

}  // namespace bulkhead::cli
