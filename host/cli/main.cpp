// The program `bulkhead`: finds the subcommand in a table and runs it. Exit statuses are in exit_codes.hpp.
#include "command.hpp"
#include "exit_codes.hpp"
#include "terminal.hpp"

#include <fmt/format.h>

#include <csignal>

namespace bulkhead::cli {
namespace {

constexpr command commands[] = {
    {"inspect", "show what a plugin says of itself: manifest, methods, signatures", run_inspect},
    {"call", "call a method of a plugin in a worker of its own", run_call},
    {"check", "look for what a plugin's own tests miss, for CI", run_check},
    {"new", "write a folder with a new plugin, in C++, C or Rust", run_new},
    {"report", "show crash reports", run_report},
    {"replay", "make the call again in which a worker died, also under gdb", run_replay},
    {"doctor", "show what this machine's sandbox can enforce, and what would help", run_doctor},
    {"spawn", "run a program as a child: in a sandbox, with a timeout", run_spawn},
    {"exec", "run a shell command in the same way, and show what it wrote", run_exec},
    {"run", "serve plugins on a socket, as a configuration says", run_run},
    {"cluster", "serve a port with a plugin, on all processors", run_cluster},
    {"node", "serve a plugin to the Node process that has forked this one", run_node},
    {"ps", "show a daemon's plugins, and how they are", run_ps},
    {"top", "the same as a live table, with rates and latencies", run_top},
    {"logs", "show a daemon's log", run_logs},
    {"restart", "give a daemon's plugin fresh workers", run_restart},
    {"stop", "stop a daemon, or one of its plugins", run_stop},
    {"completion", "print what makes bash, zsh or fish complete command lines", run_completion},
    {"manual", "print the manual page of a command", run_manual},
};

const parse_observer* observer = nullptr;

void print_usage(std::FILE* where) {
  fmt::print(where, "bulkhead {}: runs plugins in processes of their own\n\nUsage: bulkhead COMMAND [ARGUMENTS...]\n\n",
             BULKHEAD_VERSION);
  for (const command& each : commands) fmt::print(where, "  {:<10} {}\n", each.name, each.summary);
  fmt::print(where, "\n'bulkhead COMMAND --help' tells more.\n");
}

const command* find(std::string_view name) {
  for (const command& each : commands)
    if (name == each.name) return &each;
  return nullptr;
}

int run(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "--version") {
    fmt::print("bulkhead {}\n", BULKHEAD_VERSION);
    return exit_ok;
  }
  if (word == "--help" || word == "-h" || (word == "help" && argc == 2)) {
    print_usage(stdout);
    fmt::print("\n{}", exit_codes_help);
    return exit_ok;
  }
  if (word == "help") {  // bulkhead help COMMAND
    static char help[] = "--help";
    std::swap(argv[1], argv[2]);
    argv[2] = help;
    argc = 3;
  }
  const command* chosen = argc > 1 ? find(argv[1]) : nullptr;
  if (chosen) return chosen->run(argc - 1, argv + 1);
  if (argc > 1) fmt::print(stderr, "bulkhead: there is no command '{}'\n\n", argv[1]);
  print_usage(stderr);
  return exit_usage;
}

}  // namespace

std::span<const command> all_commands() { return commands; }

void observe_parse(const parse_observer* to) { observer = to; }

std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  if (observer) return (*observer)(app), exit_ok;
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return exit_ok;
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "{}: {}\n'{} --help' tells what it takes.\n", app.get_name(), error.what(), app.get_name());
    return exit_usage;
  }
}

}  // namespace bulkhead::cli

int main(int argc, char** argv) {
  using namespace bulkhead::cli;
  std::signal(SIGPIPE, SIG_IGN);  // `bulkhead ... | head` is a failed write, not a death
  const char* name = argc > 1 ? argv[1] : "";
  try {
    return run(argc, argv);
  } catch (const usage_error& error) {
    fmt::print(stderr, "bulkhead {}: {}\n", name, error.what());
    return exit_usage;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bulkhead {}: {}\n", name, error.what());
    return exit_local;
  }
}
