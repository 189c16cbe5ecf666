// bulkhead top: the plugins of a daemon as a live table: rates and latencies between one look and the next. Without a
// terminal it prints plain tables, one by default.
#include "command.hpp"
#include "daemon_client.hpp"
#include "daemon_table.hpp"
#include "exit_codes.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include <bulkhead/metrics.hpp>

#include <fmt/format.h>

#include <csignal>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>

namespace bulkhead::cli {
namespace {

// The terminal while it is ours: another screen, no echo, keys as they come. As it was afterwards.
class screen {
 public:
  screen() {
    ::tcgetattr(STDIN_FILENO, &before_);
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    fmt::print("\x1b[?1049h\x1b[?25l");
  }
  ~screen() {
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    fmt::print("\x1b[?25h\x1b[?1049l");
    std::fflush(stdout);
  }
  screen(const screen&) = delete;

  // Each line replaces the one before it, so that nothing flickers.
  void show(const std::vector<std::string>& lines) const {
    winsize size{};
    ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    const std::size_t rows = size.ws_row > 0 ? size.ws_row : 24, width = size.ws_col > 0 ? size.ws_col : 80;
    std::string out = "\x1b[H";
    for (std::size_t i = 0; i < std::min(rows, lines.size()); ++i)
      out += (i ? "\r\n" : "") + beginning(lines[i], width) + "\x1b[K";
    fmt::print("{}\x1b[J", out);
    std::fflush(stdout);
  }

 private:
  termios before_{};
};

using counts = std::vector<std::uint64_t>;

struct look {
  json status;
  std::chrono::steady_clock::time_point when = std::chrono::steady_clock::now();
};

// The time that the given share of calls took at most, near enough: within its bucket as if they were spread evenly.
std::string quantile(const counts& latency, double share) {
  std::uint64_t all = 0;
  for (const std::uint64_t each : latency) all += each;
  if (all == 0) return "-";
  const double wanted = share * static_cast<double>(all);
  const auto& bounds = latency_histogram::bounds;
  double below = 0;
  for (std::size_t i = 0; i < latency.size(); ++i) {
    const auto here = static_cast<double>(latency[i]);
    if (here == 0 || below + here < wanted) {
      below += here;
      continue;
    }
    if (i == bounds.size()) return fmt::format(">{:.0f} s", bounds.back());
    const double least = i == 0 ? 0 : bounds[i - 1];
    const double at = least + (bounds[i] - least) * (wanted - below) / here;
    return at < 1e-3 ? fmt::format("{:.0f} us", at * 1e6)
           : at < 1  ? fmt::format("{:.1f} ms", at * 1e3)
                     : fmt::format("{:.1f} s", at);
  }
  return "-";
}

const json* same_plugin(const json& status, const json& plugin) {
  for (const json& each : status["plugins"])
    if (each["name"] == plugin["name"]) return &each;
  return nullptr;
}

// How far a counter went; one that has begun anew counts from 0.
std::uint64_t since(const json& now, const json* before, const char* key) {
  const auto current = now[key].get<std::uint64_t>();
  const auto last = before ? (*before)[key].get<std::uint64_t>() : 0;
  return current >= last ? current - last : current;
}

std::vector<std::string> lines_of(const look& before, const look& now) {
  const double seconds = std::chrono::duration<double>(now.when - before.when).count();
  std::vector<std::vector<std::string>> rows{
      {"PLUGIN", "STATE", "WORKERS", "CALLS/S", "FAILED/S", "P50", "P99", "OPEN", "WAITING", "RESTARTS", "RSS"}};
  for (const json& each : now.status["plugins"]) {
    const json* last = same_plugin(before.status, each);
    auto latency = each["latency"].get<counts>();
    if (last && each["calls"] >= (*last)["calls"]) {
      const auto old = (*last)["latency"].get<counts>();
      for (std::size_t i = 0; i < std::min(old.size(), latency.size()); ++i) latency[i] -= std::min(latency[i], old[i]);
    }
    const auto rate = [&](const char* key) {
      return fmt::format("{:.1f}", static_cast<double>(since(each, last, key)) / std::max(seconds, 1e-3));
    };
    const auto number = [&](const char* key) { return std::to_string(each[key].get<std::uint64_t>()); };
    rows.push_back({each["name"].get<std::string>(), each["state"].get<std::string>(), workers_text(each),
                    rate("calls"), rate("failed"), quantile(latency, 0.5), quantile(latency, 0.99), number("in_flight"),
                    number("waiting"), number("restarts"), bytes_text(each["resident_bytes"].get<std::uint64_t>())});
  }
  std::vector<std::string> out{
      fmt::format("bulkhead {}  pid {}  up {}  clients {}", now.status["version"].get<std::string>(),
                  now.status["pid"].get<std::int64_t>(), duration_text(now.status["uptime_ms"].get<std::int64_t>()),
                  now.status["clients"].get<std::uint64_t>()),
      ""};
  auto table = table_lines(rows, {2, 3, 4, 5, 6, 7, 8, 9, 10});
  table[0] = bold(stream::out, table[0]);
  out.insert(out.end(), table.begin(), table.end());
  return out;
}

look take(daemon_client& daemon) {
  const reply made = daemon.ask("bulkhead.status");
  const msgpack::object_handle value = ipc::unpack(made.raw());
  return {from_msgpack(value.get(), bytes_as::summary)};
}

// Waits for the next turn; true when the user wants to leave.
bool wait_or_leave(int signals, bool keys, std::chrono::nanoseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd ends[] = {{signals, POLLIN, 0}, {keys ? STDIN_FILENO : -1, POLLIN, 0}};
    if (::poll(ends, 2, static_cast<int>(std::min<std::int64_t>(left, 60'000))) < 0) continue;
    if (ends[0].revents) return true;
    char key = 0;
    if (ends[1].revents && (::read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q' || key == 3)) return true;
  }
}

}  // namespace

int run_top(int argc, char** argv) {
  CLI::App app("Shows the plugins of a daemon as a live table; q or Ctrl-C to leave.", "bulkhead top");
  std::filesystem::path socket;
  std::chrono::nanoseconds interval = std::chrono::seconds(1);
  unsigned count = 0;
  add_socket_option(app, socket);
  add_duration(app, "--interval", interval, "time from one look to the next (default 1s)");
  app.add_option("--count", count, "leave after so many tables (default: none on a terminal, elsewhere 1)");
  if (const auto done = parse(app, argc, argv)) return *done;
  const bool live = is_terminal(stream::out) && ::isatty(STDIN_FILENO) == 1;
  if (count == 0 && !is_terminal(stream::out)) count = 1;

  sigset_t set;
  ::sigemptyset(&set);
  for (const int each : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, each);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  const unique_fd signals(checked(::signalfd(-1, &set, SFD_CLOEXEC), "signalfd"));
  daemon_client daemon(socket);
  look before = take(daemon);
  std::optional<screen> shown;
  if (live) shown.emplace().show(lines_of(before, before));
  for (unsigned made = 0; count == 0 || made < count; ++made) {
    if (wait_or_leave(signals.get(), live, interval)) break;
    look now = take(daemon);
    const auto lines = lines_of(before, now);
    if (shown) shown->show(lines);
    else
      for (const std::string& line : lines) fmt::print("{}\n", line);
    before = std::move(now);
  }
  return exit_ok;
}

}  // namespace bulkhead::cli
