// bulkhead call: calls one method, in a worker of its own or through a daemon, and prints what came of it. Words become
// arguments in values/arguments.cpp; this file is the order of events.
#include "calling.hpp"
#include "command.hpp"
#include "daemon_client.hpp"
#include "debugger.hpp"
#include "denials.hpp"
#include "exit_codes.hpp"
#include "plugin_path.hpp"
#include "streamed_call.hpp"
#include "values/arguments.hpp"
#include "worker_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <thread>

#include <unistd.h>

namespace bulkhead::cli {
namespace {

struct settings {
  worker_options worker;
  call_line line;
  bool explain = false, learn = false, in_process = false, gdb = false, wait = false;
  std::string crash_dir, core;
};

std::optional<int> read_command_line(settings& out, int argc, char** argv) {
  CLI::App app("Calls a method of a plugin, in a worker process of its own.", "bulkhead call");
  app.footer(fmt::format(
      "\n'bulkhead call --socket PATH PLUGIN.METHOD [ARGS...]' calls a plugin of a daemon ('bulkhead run') instead.\n\n{}{}",
      arguments_help, exit_codes_help));
  out.worker.declare(app);
  out.line.declare(app, "its name, as 'bulkhead inspect' shows it");
  app.add_option("--crash-dir", out.crash_dir,
                 "folder for a report if its worker dies, request included: see 'bulkhead report' and 'replay'")
      ->type_name("DIR");
  app.add_flag("--explain", out.explain, "show what its sandbox denied, each with the grant that would allow it");
  app.add_flag("--learn", out.learn,
               "run it with everything allowed, for plugins that you trust, and show the least policy it needs");
  auto* wait =
      app.add_flag("--wait-for-debugger", out.wait,
                   "make the call when a debugger has attached to the worker with the command that is shown, gdb "
                   "/.../bulkhead-worker -p PID; takes root");
  auto* in_process = app.add_flag("--in-process", out.in_process,
                                  "in this process, with no sandbox and no limits: for plugins that you trust");
  auto* gdb = app.add_flag("--gdb", out.gdb, "the same under gdb, which shows the stack when it crashes");
  app.add_option("--core", out.core, "the same under gdb, which writes a core file when it crashes")->type_name("FILE");
  wait->excludes(in_process)->excludes(gdb);
  if (const auto done = parse(app, argc, argv)) return done;
  out.line.check(app);
  if (out.wait && !out.core.empty()) throw usage_error("--wait-for-debugger and --core exclude each other");
  if (out.wait && ::geteuid() != 0)
    throw usage_error("--wait-for-debugger takes root, for workers are not dumpable; --gdb does not");
  return std::nullopt;
}

bool names_a_socket(int argc, char** argv) {
  const auto end = std::find_if(argv, argv + argc, [](const char* word) { return std::string_view(word) == "--"; });
  return std::any_of(argv, end, [](const char* word) {
    return std::string_view(word) == "--socket" || std::string_view(word).starts_with("--socket=");
  });
}

// Digits are a number, as for other clients of the daemon; anything else is a text.
call_key key_of(const std::string& word) {
  std::uint64_t number = 0;
  const auto [end, wrong] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (wrong == std::errc() && end == word.data() + word.size()) return number;
  return word;
}

int call_daemon(int argc, char** argv) {
  CLI::App app("Calls a method of a plugin that a daemon serves.", "bulkhead call");
  app.footer("\n" + std::string(arguments_help) + std::string(exit_codes_help));
  std::filesystem::path socket;
  call_line line;
  add_socket_option(app, socket);
  line.declare(app, "PLUGIN.METHOD, with the plugin's name as 'bulkhead ps' shows it");
  app.add_option_function<std::string>(
         "--key", [&line](const std::string& word) { line.key = key_of(word); },
         "with --socket, for dispatch = \"sticky\": calls with the same key, a number or a text, go to the same worker")
      ->type_name("KEY");
  if (const auto done = parse(app, argc, argv)) return *done;
  line.check(app);
  interrupts signals;
  daemon_client daemon(socket);
  try {
    const method_info& method = find_method(daemon.description(), "the daemon", line.method);
    line.form = parse_signature(method.signature).value_or(signature{});
    line.check_streams();
    packed_arguments arguments = make_arguments(method, line.words, line.input);
    return report(make_call(line, signals,
                            [&](const call_options& options) {
                              if (!streams(line.form)) return daemon.call(line.method, std::move(arguments), options);
                              return call_streamed(*daemon.open(line.method, std::move(arguments), options), line);
                            }),
                  line);
  } catch (const argument_error& error) {
    throw usage_error(error.what());
  } catch (const call_error& error) {
    return report(failure_of(error), line, 0);
  }
}

// The same command line, but in one process.
[[noreturn]] void call_in_gdb(int argc, char** argv, const settings& with) {
  std::vector<std::string> words(argv, argv + argc);
  const auto end = std::find(words.begin(), words.end(), "--");
  std::vector<std::string> kept = {words[0], "--in-process"};
  for (auto each = words.begin() + 1; each != words.end(); ++each) {
    if (each < end && (*each == "--gdb" || *each == "--in-process" || each->starts_with("--core="))) continue;
    if (each < end && *each == "--core") ++each;
    else kept.push_back(*each);
  }
  run_in_gdb(kept, with.core.empty() ? "" : std::filesystem::absolute(with.core).string());
}

// Until a debugger is attached to the process, or it is gone.
void wait_for_debugger(const plugin& target) {
  const pid_t worker = target.workers().at(0).pid;
  std::error_code ignored;  // gdb has to be told: what it finds in the worker's root are the libraries and the plugin
  const auto program = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", worker), ignored);
  fmt::print(stderr, "worker {} waits for a debugger: gdb {} -p {}\n", worker, program.string(), worker);
  for (;;) {
    std::ifstream status(fmt::format("/proc/{}/status", worker));
    if (!status) return;
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("TracerPid:") && std::atoi(line.c_str() + 10) != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

// To stderr: where the report of that worker's end lies.
void print_report_file(const std::string& directory, pid_t pid) {
  const std::string end = "-" + std::to_string(pid) + ".json";
  for (const auto& file : crash_reports_in(directory)) {
    if (!file.string().ends_with(end)) continue;
    fmt::print(stderr, "  report: {}\n", file.string());
    return;
  }
}

}  // namespace

int run_call(int argc, char** argv) {
  if (names_a_socket(argc, argv)) return call_daemon(argc, argv);
  settings with;
  if (const auto done = read_command_line(with, argc, argv)) return *done;
  const std::filesystem::path file = find_plugin(with.worker.plugin);
  if (with.gdb || !with.core.empty()) call_in_gdb(argc, argv, with);
  load_options options = with.worker.for_load();
  if (with.in_process) {
    options.isolation = isolation::none;
    for (std::string& each : options.environment) ::putenv(each.data());
  }
  if (with.wait) {  // a worker that is stopped is not one that hangs
    options.supervision.heartbeat.interval = std::chrono::nanoseconds(0);
    if (with.line.deadline.count() == 0) with.line.deadline = no_deadline;
  }
  if (with.explain) options.policy->explain();
  if (with.learn) options.policy->learn().at_least(sandbox_level::none);

  if (!with.crash_dir.empty()) options.keep_requests = options.limits.frame;

  interrupts signals;
  denial_book denials;
  host_options for_host = with.worker.for_host();
  if (with.explain || with.learn) for_host.on_violation = [&](const violation& what) { denials.add(what); };
  for_host.crash_dir = with.crash_dir;
  pid_t crashed = -1;
  const int status = [&] {
    host host(for_host);
    try {
      const plugin target = host.load(file, options);
      const plugin_info info = target.describe();
      const method_info& method = find_method(info, "plugin '" + info.id + "'", with.line.method);
      with.line.form = parse_signature(method.signature).value_or(signature{});
      with.line.check_streams();
      packed_arguments arguments = make_arguments(method, with.line.words, with.line.input);
      if (with.wait) wait_for_debugger(target);
      const made_call made = make_call(with.line, signals, [&](const call_options& how) {
        if (!streams(with.line.form)) return target.call_packed(with.line.method, std::move(arguments), how);
        return call_streamed(target.open_packed(with.line.method, std::move(arguments), how), with.line);
      });
      if (made.reply.report()) crashed = made.reply.report()->pid;
      if (made.reply) return report(made, with.line);
      return report(with_names(failure_of(made.reply), host), with.line, made.ms);
    } catch (const argument_error& error) {
      throw usage_error(error.what());
    } catch (const call_error& error) {
      if (error.report()) crashed = error.report()->pid;
      return report(with_names(failure_of(error), host), with.line, 0);
    }
  }();  // the host is gone, and all that its workers reported has come
  if (crashed > 0 && !with.crash_dir.empty()) print_report_file(with.crash_dir, crashed);
  if (with.explain) denials.explain(*options.policy);
  if (with.learn) denials.learn(file.stem().string());
  return status;
}

}  // namespace bulkhead::cli
