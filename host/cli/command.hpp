// The program's subcommands: each is one function in a file of its own, with a line in the table in main.cpp.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

namespace bulkhead::cli {

struct command {
  const char* name;
  const char* summary;  // one line
  // Takes the command line from the command's name on, as main() would; returns the exit status. What it throws is
  // printed: usage_error ends with status 2, anything else with 3.
  int (*run)(int argc, char** argv);
};

// The table in main.cpp.
std::span<const command> all_commands();

int run_call(int argc, char** argv);
int run_check(int argc, char** argv);
int run_inspect(int argc, char** argv);
int run_new(int argc, char** argv);
int run_replay(int argc, char** argv);
int run_report(int argc, char** argv);
int run_doctor(int argc, char** argv);
int run_cluster(int argc, char** argv);
int run_node(int argc, char** argv);
int run_spawn(int argc, char** argv);
int run_exec(int argc, char** argv);
// The daemon, and what speaks to one.
int run_run(int argc, char** argv);
int run_ps(int argc, char** argv);
int run_top(int argc, char** argv);
int run_logs(int argc, char** argv);
int run_restart(int argc, char** argv);
int run_stop(int argc, char** argv);
// What is made of the commands' own descriptions.
int run_completion(int argc, char** argv);
int run_manual(int argc, char** argv);

class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Parses a subcommand's own command line. A value: that is the exit status, all that was to be done has been done.
std::optional<int> parse(CLI::App& app, int argc, char** argv);

// While there is one, parse() shows it the command line's description and parses nothing. So a command declares its
// options, calls parse(), and does nothing else before.
using parse_observer = std::function<void(const CLI::App&)>;
void observe_parse(const parse_observer* observer);

}  // namespace bulkhead::cli
