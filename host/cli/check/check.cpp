// bulkhead check: the validator for authors. Each check is a function (stages.hpp); this file is their order, the command
// line and the report.
#include "check/stages.hpp"
#include "command.hpp"
#include "exit_codes.hpp"
#include "files.hpp"
#include "plugin_path.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include "worker_options.hpp"

#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

using namespace check;

struct command_line {
  worker_options worker;
  std::vector<std::string> skip;
  std::string junit;
  std::optional<std::uint64_t> only_case;
  bool as_json = false, strict = false;
  settings with;
};

constexpr const char* names[] = {"file",         "start",   "methods", "arguments",   "leaks",   "deadlines",
                                 "cancellation", "threads", "life",    "permissions", "host-use"};

std::optional<int> read_command_line(command_line& out, int argc, char** argv) {
  CLI::App app("Looks for what a plugin's own tests miss. It runs in workers, with made-up arguments.",
               "bulkhead check");
  app.footer(
      "\nIts checks: file (symbols, libraries), start (manifest, init), methods (signatures), arguments (each method with\n"
      "right and wrong ones), leaks (10,000 calls), deadlines and cancellation (that they are honoured), threads (of plugins\n"
      "that say they are safe), life (stopped, killed, reloaded), permissions (asked for and not needed, and the reverse),\n"
      "host-use (the rules of bulkhead/plugin.h).\n\n"
      "Exit status: 0 nothing failed; 1 something did, or with --strict there are warnings; 2 the command line is wrong;\n"
      "3 a file can't be read or written, or a part of bulkhead is missing.\n");
  out.worker.declare(app);
  app.add_option("--seed", out.with.seed, "of the arguments that are made up (default 1)");
  app.add_option("--reproduce", out.only_case, "make the one call again that a report names")->type_name("SEED");
  app.add_option("--cases", out.with.cases, "calls with made-up arguments, for each method (default 100)");
  app.add_option("--calls", out.with.calls,
                 "calls that leaks are looked for in, of all methods together (default 10000)");
  add_duration(app, "--deadline", out.with.deadline, "of each call (default 500ms)");
  app.add_option("--skip", out.skip, "leave out a check; repeatable")->type_name("CHECK")->allow_extra_args(false);
  app.add_option("--junit", out.junit, "write a report as JUnit's XML ('-': the standard output)")->type_name("FILE");
  app.add_flag("--json", out.as_json, "print one JSON object");
  app.add_flag("--strict", out.strict, "warnings fail, too");
  if (const auto done = parse(app, argc, argv)) return *done;
  for (const std::string& each : out.skip)
    if (std::none_of(std::begin(names), std::end(names), [&](const char* name) { return each == name; }))
      throw usage_error("--skip " + each + ": there is no such check");
  if (out.as_json && out.junit == "-") throw usage_error("--json and --junit - both write to the standard output");
  if (out.with.cases == 0 || out.with.calls == 0) throw usage_error("--cases and --calls take at least 1");
  if (out.with.seed > UINT32_MAX) throw usage_error("--seed takes at most 4294967295");
  if (out.with.deadline < std::chrono::milliseconds(10)) throw usage_error("--deadline takes at least 10ms");
  return std::nullopt;
}

// All that the plugin asks for may be had, and what the command line grants.
policy most_of(const load_options& options, const std::vector<std::string>& requests) {
  policy most = *options.policy;
  for (const std::string& each : requests) {
    try {
      most.add(each);
    } catch (const std::invalid_argument&) {  // found by check_start
    }
  }
  return most;
}

// Runs one check. What it throws fails it.
template <class F>
void run_check(report& into, const command_line& with, const char* name, F&& check) {
  if (std::find(with.skip.begin(), with.skip.end(), name) != with.skip.end()) return;
  static status_line line;
  line.show(fmt::format("checking {} ...", name));
  result& made = into.results.emplace_back();
  made.name = name;
  const auto begin = std::chrono::steady_clock::now();
  try {
    check(made);
  } catch (const call_error& e) {
    made.fail(std::string(to_string(e.outcome())) + ": " + e.message() +
              (e.report() ? " (it " + e.report()->summary() + ")" : ""));
  }
  made.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  line.clear();
}

// The requests are in the manifest, which a worker of its own reads.
std::vector<std::string> requests_of(const settings& with) {
  try {
    host probe(with.for_host);
    load_options options = with.for_load;
    options.environment = {"BULKHEAD_PROBE=1"};  // it gets ready without running any of the plugin's code
    return probe.load(with.file, options).describe().requests;
  } catch (const call_error&) {  // found by check_start
    return {};
  }
}

int finish(const report& made, const command_line& with) {
  if (!with.junit.empty()) {
    const std::string xml = made.junit();
    write_file(with.junit, {reinterpret_cast<const std::uint8_t*>(xml.data()), xml.size()});
  }
  if (with.as_json) fmt::print("{}", made.json());
  else if (with.junit != "-") made.print();
  const bool bad = made.count(status::failed) > 0 || (with.strict && made.count(status::warned) > 0);
  return bad ? 1 : exit_ok;
}

}  // namespace

int run_check(int argc, char** argv) {
  command_line with;
  if (const auto done = read_command_line(with, argc, argv)) return *done;
  exam of;
  of.with = with.with;
  of.with.file = find_plugin(with.worker.plugin);
  of.with.for_load = with.worker.for_load();
  of.with.for_host = {};
  of.with.most = most_of(of.with.for_load, requests_of(of.with));

  report made;
  made.file = of.with.file.string();
  made.plugin = of.with.file.stem().string();
  made.seed = of.with.seed;
  const auto run = [&](const char* name, auto&& check) { run_check(made, with, name, check); };
  const auto stage = [&](const char* name, void (*check)(exam&, result&)) {
    run(name, [&](result& found) { check(of, found); });
  };
  bool starts = false;
  if (!with.only_case) stage("file", check_file);
  run_check(made, command_line{}, "start", [&](result& found) { starts = check_start(of, found); });
  if (!starts) return finish(made, with);
  made.plugin = of.info.id;
  made.version = of.info.version;
  run_check(made, command_line{}, "methods", [&](result& found) { check_methods(of, found); });
  if (with.only_case) {
    if (!of.methods.empty()) run("arguments", [&](result& found) { reproduce(of, *with.only_case, found); });
    return finish(made, with);
  }
  stage("arguments", check_arguments);
  stage("leaks", check_leaks);
  stage("deadlines", check_deadlines);
  stage("cancellation", check_cancellation);
  stage("threads", check_threads);
  stage("life", check_life);
  stage("permissions", check_permissions);
  stage("host-use", check_host_use);
  return finish(made, with);
}

}  // namespace bulkhead::cli
