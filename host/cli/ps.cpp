// bulkhead ps: what the daemon's plugins are at. Also restart and stop, which change it.
#include "command.hpp"
#include "daemon_client.hpp"
#include "daemon_table.hpp"
#include "exit_codes.hpp"
#include "outcome_text.hpp"
#include "terminal.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace bulkhead::cli {
namespace {

// The oldest of its workers.
std::int64_t uptime_of(const json& plugin) {
  std::int64_t longest = -1;
  for (const json& each : plugin["workers"]) longest = std::max(longest, each["uptime_ms"].get<std::int64_t>());
  return longest;
}

std::string pids_of(const json& plugin) {
  constexpr std::size_t shown = 3;
  std::string out;
  const json& workers = plugin["workers"];
  for (std::size_t i = 0; i < std::min(workers.size(), shown); ++i)
    out += (i ? "," : "") + std::to_string(workers[i]["pid"].get<std::int64_t>());
  return workers.size() > shown ? fmt::format("{},+{}", out, workers.size() - shown) : out.empty() ? "-" : out;
}

void print(const json& status) {
  const json& plugins = status["plugins"];
  const bool grouped =
      std::any_of(plugins.begin(), plugins.end(), [](const json& each) { return each["group"] != ""; });
  std::vector<std::vector<std::string>> rows{
      {"PLUGIN", "STATE", "WORKERS", "PID", "UPTIME", "CALLS", "RESTARTS", "RSS"}};
  if (grouped) rows[0].insert(rows[0].begin() + 1, "GROUP");
  for (const json& each : plugins) {
    const std::int64_t uptime = uptime_of(each);
    auto& row = rows.emplace_back(std::vector<std::string>{
        each["name"].get<std::string>(), each["state"].get<std::string>(), workers_text(each), pids_of(each),
        uptime < 0 ? "-" : duration_text(uptime), std::to_string(each["calls"].get<std::uint64_t>()),
        std::to_string(each["restarts"].get<std::uint64_t>()),
        bytes_text(each["resident_bytes"].get<std::uint64_t>())});
    if (!grouped) continue;
    const auto group = each["group"].get<std::string>();
    row.insert(row.begin() + 1, group.empty() ? "-" : group);
  }
  const auto lines =
      table_lines(rows, grouped ? std::vector<std::size_t>{3, 5, 6, 7, 8} : std::vector<std::size_t>{2, 4, 5, 6, 7});
  for (std::size_t i = 0; i < lines.size(); ++i) fmt::print("{}\n", i == 0 ? bold(stream::out, lines[i]) : lines[i]);
  for (const json& each : plugins)
    if (const auto reason = each["reason"].get<std::string>(); !reason.empty())
      fmt::print("\n{}\n", wrapped(each["name"].get<std::string>() + ": " + reason, 2, width_of(stream::out)));
}

// One of the daemon's own methods; its failure is the command's.
int ask(const std::filesystem::path& socket, const std::string& method, const std::optional<std::string>& plugin,
        bool until_gone = false) {
  daemon_client daemon(socket);
  const reply done = daemon.call(method, plugin ? pack_arguments(*plugin) : pack_arguments());
  if (!done) {
    print_failure(failure_of(done));
    return exit_code(done.outcome());
  }
  if (until_gone) daemon.wait_closed();
  return exit_ok;
}

}  // namespace

int run_ps(int argc, char** argv) {
  CLI::App app("Shows the plugins of a daemon, and how they are.", "bulkhead ps");
  std::filesystem::path socket;
  bool as_json = false;
  add_socket_option(app, socket);
  app.add_flag("--json", as_json, "print all that the daemon says, as JSON");
  if (const auto done = parse(app, argc, argv)) return *done;
  const reply made = daemon_client(socket).ask("bulkhead.status");
  const msgpack::object_handle value = ipc::unpack(made.raw());
  const json status = from_msgpack(value.get(), bytes_as::summary);
  if (as_json) fmt::print("{}\n", compact(status));
  else print(status);
  return exit_ok;
}

int run_restart(int argc, char** argv) {
  CLI::App app(
      "Gives a plugin fresh workers, of its file as it is now. The old ones finish their calls; if the new ones "
      "can't start, the old ones go on.",
      "bulkhead restart");
  std::filesystem::path socket;
  std::string plugin;
  add_socket_option(app, socket);
  app.add_option("PLUGIN", plugin, "its name, as 'bulkhead ps' shows it")->required();
  if (const auto done = parse(app, argc, argv)) return *done;
  return ask(socket, "bulkhead.restart", plugin);
}

int run_stop(int argc, char** argv) {
  CLI::App app("Stops a plugin; or the daemon, when none is named. Calls that are open may end first.",
               "bulkhead stop");
  std::filesystem::path socket;
  std::optional<std::string> plugin;
  add_socket_option(app, socket);
  app.add_option("PLUGIN", plugin, "its name, as 'bulkhead ps' shows it; without: the daemon itself");
  if (const auto done = parse(app, argc, argv)) return *done;
  return ask(socket, "bulkhead.stop", plugin, !plugin);
}

}  // namespace bulkhead::cli
