// bulkhead spawn and exec: a program, or a shell command, as a child: with a sandbox, a timeout, and an account of its end.
#include "command.hpp"
#include "denials.hpp"
#include "exit_codes.hpp"
#include "files.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include <bulkhead/crash_report.hpp>
#include <bulkhead/process.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <fmt/format.h>

#include <csignal>
#include <cstring>

#include <sys/signalfd.h>
#include <unistd.h>

namespace bulkhead::cli {
namespace {

struct spawn_settings {
  std::vector<std::string> words;
  std::string policy, directory;
  std::vector<std::string> grants, environment;
  std::chrono::nanoseconds timeout{0}, grace = std::chrono::seconds(1);
  std::size_t max_output = std::size_t{1} << 20;
  bool json = false, explain = false, clear_environment = false;
};

constexpr const char* statuses_help =
    "Exit status: the program's own; 128 + N when signal N ended it;\n"
    "   2  the command line is wrong\n"
    "   3  a part of bulkhead is missing, or the sandbox can't be had\n"
    " 124  it ran longer than --timeout and was killed\n"
    " 126  it can't be executed\n"
    " 127  there is no such program\n";

void declare(CLI::App& app, spawn_settings& out) {
  app.add_option("--policy", out.policy, "run it in a sandbox: strict, files, network, program, or a file with TOML")
      ->type_name("NAME|FILE");
  app.add_option("--grant", out.grants, "a grant for its sandbox, as in read:/usr/share/fonts; repeatable")
      ->type_name("GRANT")
      ->allow_extra_args(false);
  add_duration(app, "--timeout", out.timeout, "kill it, and what it has started, when it runs longer");
  add_duration(app, "--grace", out.grace, "from SIGTERM to SIGKILL then (default 1s)");
  app.add_option("--directory,-C", out.directory, "where it runs")->type_name("DIR");
  app.add_option("--env", out.environment, "a variable for it; repeatable")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--clear-env", out.clear_environment, "it gets no other variables than those given, but PATH");
  app.add_flag("--explain", out.explain, "show what its sandbox denied, each with the grant that would allow it");
}

std::optional<policy> rules_of(const spawn_settings& with) {
  if (with.policy.empty() && with.grants.empty()) return std::nullopt;
  try {
    policy rules;
    if (with.policy == "files") rules = policy::files();
    else if (with.policy == "network") rules = policy::network();
    else if (with.policy == "program") rules = policy::program();
    else if (!with.policy.empty() && with.policy != "strict") {
      const auto text = read_file(with.policy, std::size_t{1} << 20);
      rules = policy::from_toml(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
    }
    for (const std::string& each : with.grants) rules.add(each);
    if (with.explain) rules.explain();
    return rules;
  } catch (const std::invalid_argument& e) {
    throw usage_error(e.what());
  }
}

process_options options_of(const spawn_settings& with) {
  process_options out;
  for (const std::string& variable : with.environment)
    if (variable.find('=') == std::string::npos || variable.starts_with('='))
      throw usage_error("--env " + variable + ": expected NAME=VALUE");
  if (with.clear_environment)
    out.env = {std::string("PATH=") + (::getenv("PATH") ? ::getenv("PATH") : "/usr/bin:/bin")};
  out.add_env = with.environment;
  out.directory = with.directory;
  out.timeout = with.timeout;
  out.kill_grace = with.grace;
  out.policy = rules_of(with);
  return out;
}

// A child that has become another user's may refuse it, and is waited for all the same.
void pass_on(const child& made, int signal) {
  try {
    made.kill(signal);
  } catch (const boost::system::system_error& e) {
    fmt::print(stderr, "bulkhead spawn: {} was not passed on: {}\n", ::strsignal(signal), e.what());
  }
}

int status_of(const exit_status& status, bool timed_out) {
  return timed_out ? 124 : status.signal ? 128 + status.signal : status.code;
}

nlohmann::json account(const exit_status& status, bool timed_out, const std::vector<violation>& denied) {
  nlohmann::json out = {{"reason", timed_out              ? "timed_out"
                                   : status.out_of_memory ? "out_of_memory"
                                   : status.signal        ? "signalled"
                                                          : "exited"},
                        {"user_us", status.user_time.count()},
                        {"system_us", status.system_time.count()},
                        {"max_resident_bytes", status.max_resident},
                        {"core_dumped", status.core_dumped},
                        {"violations", nlohmann::json::array()}};
  out["code"] = status.signal ? nlohmann::json() : nlohmann::json(status.code);
  out["signal"] = status.signal ? nlohmann::json(signal_name(status.signal)) : nlohmann::json();
  for (const violation& each : denied)
    out["violations"].push_back({{"pid", each.pid},
                                 {"program", each.program},
                                 {"system_call", each.system_call},
                                 {"arguments", each.arguments},
                                 {"result", each.result},
                                 {"grant", each.grant}});
  return out;
}

int failed_start(const char* name, const boost::system::system_error& e, std::FILE* json) {
  if (json)
    fmt::print(json, "{}\n",
               nlohmann::json{{"reason", "not_started"}, {"errno", e.code().value()}, {"error", e.what()}}.dump(
                   -1, ' ', false, nlohmann::json::error_handler_t::replace));
  else fmt::print(stderr, "bulkhead {}: {}\n", name, e.what());
  return e.code().value() == ENOENT ? 127 : 126;
}

void explain(const std::vector<violation>& denied, policy had) {
  denial_book book;
  for (const violation& each : denied) book.add(each);
  book.explain(had.allow_subprocesses().allow_syscalls("program"));  // as all programs have it
}

}  // namespace

int run_spawn(int argc, char** argv) {
  spawn_settings with;
  CLI::App app("Runs a program as a child, with this terminal or these pipes as its own.", "bulkhead spawn");
  app.footer(std::string("\n") + statuses_help);
  declare(app, with);
  app.add_flag("--json", with.json, "when it has ended, say on stderr how: reason, resources, what was denied");
  app.add_option("PROGRAM", with.words, "the program and its arguments; after --, as they are")->required();
  app.prefix_command();
  app.positionals_at_end();
  if (const auto done = parse(app, argc, argv)) return *done;
  const auto rest = app.remaining();
  with.words.insert(with.words.end(), rest.begin(), rest.end());

  process_options options = options_of(with);
  options.streams = {stdio::inherit(), stdio::inherit(), stdio::inherit()};
  // A terminal's signals and job control are for its foreground group.
  options.scope = ::isatty(0) ? kill_scope::child : kill_scope::group;
  // Ours are passed on: the child decides what becomes of both.
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int each : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&signals, each);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  launcher launch;
  try {
    const child made = launch.spawn(with.words[0], {with.words.begin() + 1, with.words.end()}, options);
    boost::asio::io_context io;
    boost::asio::posix::stream_descriptor incoming(io, ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    signalfd_siginfo signal{};
    const std::function<void()> listen = [&] {
      incoming.async_read_some(boost::asio::buffer(&signal, sizeof signal),
                               [&](boost::system::error_code code, std::size_t) {
                                 if (code) return;
                                 // From the terminal it has come to the child, too.
                                 if (options.scope == kill_scope::group || signal.ssi_code != SI_KERNEL)
                                   pass_on(made, static_cast<int>(signal.ssi_signo));
                                 listen();
                               });
    };
    listen();
    exit_status status;
    made.async_wait(
        boost::asio::bind_executor(io.get_executor(), [&](boost::system::error_code, const exit_status& how) {
          status = how;
          incoming.close();
        }));
    io.run();
    if (with.explain) explain(made.violations(), options.policy.value_or(policy{}));
    if (with.json) fmt::print(stderr, "{}\n", account(status, made.timed_out(), made.violations()).dump());
    else if (made.timed_out()) fmt::print(stderr, "bulkhead spawn: killed after its timeout\n");
    return status_of(status, made.timed_out());
  } catch (const boost::system::system_error& e) {
    return failed_start("spawn", e, with.json ? stderr : nullptr);
  }
}

int run_exec(int argc, char** argv) {
  spawn_settings with;
  std::string command, input;
  CLI::App app("Runs a shell command, collects what it writes, and shows it when it has ended.", "bulkhead exec");
  app.footer(std::string("\n") + statuses_help + " 125  it wrote more than --max-output and was killed\n");
  declare(app, with);
  add_size(app, "--max-output", with.max_output, "limit of its output, and of its errors (default 1M)");
  app.add_option("--input", input, "text for its standard input");
  app.add_flag("--json", with.json,
               "all as one JSON object on stdout: output, errors, reason, resources, what was denied");
  app.add_option("COMMAND", command, "for /bin/sh -c")->required();
  if (const auto done = parse(app, argc, argv)) return *done;
  launcher launch;
  try {
    const auto done =
        launch.exec(command, {.process = options_of(with), .input = input, .max_output = with.max_output});
    const bool late = done.error == process_error::timed_out, flood = done.error == process_error::output_limit;
    if (with.explain) explain(done.violations, rules_of(with).value_or(policy{}));
    if (with.json) {
      nlohmann::json out = account(done.status, late, done.violations);
      if (flood) out["reason"] = "output_limit";
      out["stdout"] = done.out;
      out["stderr"] = done.err;
      fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      fmt::print("{}", done.out);
      fmt::print(stderr, "{}", done.err);
      if (late || flood) fmt::print(stderr, "bulkhead exec: {}\n", done.error.message());
    }
    return flood ? 125 : status_of(done.status, late);
  } catch (const boost::system::system_error& e) {
    return failed_start("exec", e, with.json ? stdout : nullptr);
  }
}

}  // namespace bulkhead::cli
