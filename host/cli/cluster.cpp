// bulkhead cluster: a plugin serves a port with a worker per processor, until it is stopped. Signals are taken one by one
// by the main thread; what happens is in the log, on stderr.
#include "command.hpp"
#include "daemon.hpp"
#include "exit_codes.hpp"
#include "files.hpp"
#include "plugin_path.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include "worker_options.hpp"
#include <bulkhead/cluster.hpp>

#include <fmt/format.h>

#include <csignal>
#include <system_error>

#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

namespace bulkhead::cli {
namespace {

constexpr int redraw_ms = 1000;
constexpr std::size_t most_published = std::size_t{1} << 30;  // bytes of one file

struct arguments {
  worker_options worker;
  cluster_options cluster;
  std::string root, schedule = "round-robin";
  std::vector<std::string> settings, published;
  std::chrono::nanoseconds drain = supervision_options{}.drain.calls;
  unsigned restarts = restart_intensity{}.restarts;
  bool json = false;
};

// NAME=VALUE, as `option` has it.
std::pair<std::string, std::string> name_and_value(const std::string& option, const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw usage_error(option + " " + text + ": expected NAME=" + (option == "--set" ? "VALUE" : "FILE"));
  return {text.substr(0, equals), text.substr(equals + 1)};
}

void publish_files(host& on, const arguments& given) {
  for (const std::string& each : given.published) {
    const auto [name, file] = name_and_value("--publish", each);
    on.publish(name, read_file(file, most_published));
  }
}

cluster_options options_of(const arguments& given) {
  cluster_options options = given.cluster;
  options.schedule = given.schedule == "shared" ? schedule::shared : schedule::round_robin;
  options.load = given.worker.for_load();
  options.load.supervision.drain.calls = given.drain;
  options.load.supervision.intensity.restarts = given.restarts;
  for (const std::string& each : given.settings) {
    const auto [name, value] = name_and_value("--set", each);
    options.settings[name] = value;
  }
  if (!given.root.empty()) {
    std::error_code failed;
    const auto root = std::filesystem::canonical(given.root, failed);
    if (failed || !std::filesystem::is_directory(root)) throw usage_error("--root " + given.root + " is no directory");
    options.settings["root"] = root.string();
    options.load.policy->allow_read(root);
  }
  return options;
}

// A connection takes a descriptor here and one in a worker.
void raise_descriptor_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

std::string summary(const cluster_stats& stats) {
  std::string text = fmt::format("{} requests on {} connections", stats.requests, stats.accepted);
  if (stats.handed_over) text += fmt::format(", {} of them handed over", stats.handed_over);
  if (stats.lost + stats.lost_idle) text += fmt::format(", {} lost", stats.lost + stats.lost_idle);
  return text;
}

std::string progress(const cluster_stats& now, const cluster_stats& before) {
  std::size_t serving = 0, open = 0;
  for (const auto& each : now.workers) {
    serving += each.serving;
    open += each.open;
  }
  return fmt::format("{} workers, {} connections, {} requests/s, {} lost", serving, open,
                     now.requests - std::min(now.requests, before.requests), now.lost + now.lost_idle);
}

// The next signal, or 0 when it does not come in time.
int next_signal(int fd, int ms) {
  pollfd one{fd, POLLIN, 0};
  signalfd_siginfo info{};
  if (::poll(&one, 1, ms) <= 0 || ::read(fd, &info, sizeof info) != sizeof info) return 0;
  return static_cast<int>(info.ssi_signo);
}

int serve(const arguments& given, const std::filesystem::path& file) {
  const daemon::signal_mask mask;
  const unique_fd signals(checked(::signalfd(-1, &mask.set(), SFD_CLOEXEC), "signalfd"));
  raise_descriptor_limit();
  daemon::log_book log(given.json, given.worker.log ? log_level::debug : log_level::info);
  host_options settings = given.worker.for_host();
  settings.on_log = [&log](const log_record& record) { log.add(daemon::line_of(record)); };
  settings.on_lifecycle = [&log](const lifecycle_event& event) { log.add(daemon::line_of(event)); };
  host workers(settings);
  const cluster_options options = options_of(given);
  publish_files(workers, given);
  cluster site(workers, file, options);
  const auto started = site.stats();
  log.add({.plugin = given.worker.plugin,
           .event = "serving",
           .text = fmt::format("port {} with {} workers, {}", site.port(), started.workers.size(), given.schedule),
           .fields = {{"port", std::to_string(site.port())}}});

  // For whoever has started it, and may have left the choice of the port to it.
  if (given.json) fmt::print("{{\"address\":\"{}\",\"port\":{}}}\n", given.cluster.address, site.port());
  else fmt::print("listening on {} port {}\n", given.cluster.address, site.port());
  std::fflush(stdout);

  status_line line;
  int status = exit_ok;
  for (cluster_stats before = started;;) {
    const int signal = next_signal(signals.get(), redraw_ms);
    if (signal == SIGHUP) {
      try {
        publish_files(workers, given);
      } catch (const std::exception& e) {
        log.error(std::string("not published, what was published before stays: ") + e.what());
      }
      try {
        site.loaded().reload(file);
      } catch (const call_error& e) {
        log.error(std::string("not reloaded, the old version goes on: ") + e.what());
      }
    } else if (signal != 0) {
      log.info("stopping: requests in progress may finish; a second signal does not wait");
      break;
    }
    const plugin_status now = site.loaded().status();
    if (now.state == plugin_status::state::gave_up || now.state == plugin_status::state::quarantined ||
        now.state == plugin_status::state::ended) {
      log.error(now.reason);
      status = exit_code(outcome::unavailable);
      break;
    }
    const cluster_stats stats = site.stats();
    if (!given.json) line.show(progress(stats, before));
    before = stats;
  }
  line.clear();
  std::atomic<bool> over{false};
  std::thread impatient([&] {
    while (!over)
      if (next_signal(signals.get(), 50) != 0) ::_exit(exit_interrupted);
  });
  site.stop();
  over = true;
  impatient.join();
  const cluster_stats end = site.stats();
  log.add({.plugin = given.worker.plugin,
           .event = "stopped",
           .text = summary(end),
           .fields = {{"requests", std::to_string(end.requests)},
                      {"connections", std::to_string(end.accepted)},
                      {"handed_over", std::to_string(end.handed_over)},
                      {"lost", std::to_string(end.lost + end.lost_idle)}}});
  workers.shutdown();  // before the log that it writes to
  return status;
}

}  // namespace

int run_cluster(int argc, char** argv) {
  arguments given;
  CLI::App app(
      "Serves a port with a plugin, by workers that replace each other without a connection being refused. SIGHUP loads "
      "the plugin's file and what is published again; SIGTERM or Ctrl-C stops once requests in progress have finished.",
      "bulkhead cluster");
  app.footer("\ndocs/cluster.md tells what becomes of connections, and how to write such a plugin.");
  given.worker.declare(app);
  app.add_option("--port", given.cluster.port, "where it listens (default: any that is free)")->type_name("N");
  app.add_option("--address", given.cluster.address, "and at which address (default 127.0.0.1; '::' is all)");
  app.add_option("--workers", given.cluster.workers, "how many (default: one for each processor)")
      ->check(CLI::Range(1u, 1024u))
      ->type_name("N");
  app.add_option("--schedule", given.schedule, "who accepts: the host, or the workers (default round-robin)")
      ->check(CLI::IsMember({"round-robin", "shared"}));
  app.add_option("--connections", given.cluster.connections, "that one worker has at once (default 1000)")
      ->check(CLI::Range(1u, 65536u))
      ->type_name("N");
  app.add_option("--root", given.root, "a directory that the plugin may read and is told of as its setting 'root'")
      ->type_name("DIR");
  app.add_option("--set", given.settings, "a setting of the plugin's; repeatable")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  app.add_option("--publish", given.published,
                 "publishes a file's bytes under this name to all workers, for plugins that use it; repeatable")
      ->type_name("NAME=FILE")
      ->allow_extra_args(false);
  add_duration(app, "--drain", given.drain, "how long a worker that leaves may take to finish (default 5s)");
  app.add_option("--restarts", given.restarts, "in a minute; one more crash, and the cluster gives up (default 5)")
      ->type_name("N");
  app.add_flag("--json", given.json, "the log as JSON, a line for each event");
  if (const auto done = parse(app, argc, argv)) return *done;
  const auto file = find_plugin(given.worker.plugin);
  try {
    return serve(given, file);
  } catch (const call_error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_code(error.outcome());
  } catch (const std::invalid_argument& error) {
    throw usage_error(error.what());
  }
}

}  // namespace bulkhead::cli
