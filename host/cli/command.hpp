// The program's subcommands: each is one function in a file of its own, with a line in the table in main.cpp.
#pragma once

#include <CLI/CLI.hpp>

#include <optional>
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

int run_call(int argc, char** argv);
int run_check(int argc, char** argv);
int run_inspect(int argc, char** argv);
int run_new(int argc, char** argv);
int run_replay(int argc, char** argv);
int run_report(int argc, char** argv);
int run_doctor(int argc, char** argv);
// The daemon, and what speaks to one.
int run_run(int argc, char** argv);
int run_ps(int argc, char** argv);
int run_top(int argc, char** argv);
int run_logs(int argc, char** argv);
int run_restart(int argc, char** argv);
int run_stop(int argc, char** argv);

class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Parses a subcommand's own command line. A value: that is the exit status, all that was to be done has been done.
std::optional<int> parse(CLI::App& app, int argc, char** argv);

}  // namespace bulkhead::cli
