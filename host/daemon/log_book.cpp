// See log_book.hpp.
#include "log_book.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace bulkhead::daemon {
namespace {

constexpr std::size_t queue_length = 4096;  // lines; then the oldest are lost, and nobody waits
constexpr const char* level_names[] = {"debug", "info", "warning", "error"};

const char* name_of(log_level level) { return level_names[static_cast<int>(level)]; }

std::string time_text(std::chrono::system_clock::time_point when) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(when.time_since_epoch()).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(when)), ms % 1000);
}

}  // namespace

nlohmann::ordered_json to_json(const log_line& line) {
  nlohmann::ordered_json out = {{"time", time_text(line.when)}, {"level", name_of(line.level)}};
  if (!line.plugin.empty()) out["plugin"] = line.plugin;
  if (line.pid > 0) out["pid"] = line.pid;
  if (!line.event.empty()) out["event"] = line.event;
  out["text"] = line.text;
  for (const auto& [key, value] : line.fields) out[key] = value;
  return out;
}

std::string to_text(const nlohmann::ordered_json& line) {
  const auto at = [&line](const char* key) { return line.value(key, std::string()); };
  std::string out = at("time") + fmt::format(" {:<7} ", at("level")) + at("plugin");
  if (line.contains("pid")) out += fmt::format("[{}]", line["pid"].get<std::int64_t>());
  if (line.contains("plugin")) out += ": ";
  out += at("event");
  if (line.contains("event") && !at("text").empty()) out += ": ";
  return out + at("text");
}

log_book::log_book(bool as_json, log_level least) : json_(as_json), least_(least) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  spdlog::init_thread_pool(queue_length, 1);
  out_ = std::make_shared<spdlog::async_logger>("bulkhead", std::move(sink), spdlog::thread_pool(),
                                                spdlog::async_overflow_policy::overrun_oldest);
  out_->set_pattern("%v");
  out_->set_level(spdlog::level::trace);
}

log_book::~log_book() {
  spdlog::shutdown();  // which joins the thread that writes
  out_.reset();
}

void log_book::add(log_line line) {
  if (line.level >= least_) {
    const auto made = to_json(line);
    out_->info(json_ ? made.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) : to_text(made));
  }
  if (line.text.size() > longest_line) line.text.resize(longest_line);
  std::lock_guard held(mutex_);
  for (const auto& [id, each] : followers_)
    if (each.plugin.empty() || each.plugin == line.plugin) each.call(line);
  lines_.push_back(std::move(line));
  if (lines_.size() > most_lines) lines_.pop_front();
}

std::vector<log_line> log_book::last(std::size_t count, const std::string& plugin, follower follow, std::uint64_t* id) {
  std::lock_guard held(mutex_);
  std::vector<log_line> out;
  for (auto each = lines_.rbegin(); each != lines_.rend() && out.size() < count; ++each)
    if (plugin.empty() || each->plugin == plugin) out.push_back(*each);
  std::reverse(out.begin(), out.end());
  if (!follow) return out;
  for (const log_line& each : out) follow(each);
  followers_.emplace(*id = ++last_id_, watcher{plugin, std::move(follow)});
  return out;
}

void log_book::unfollow(std::uint64_t id) {
  std::lock_guard held(mutex_);
  followers_.erase(id);
}

log_line line_of(const lifecycle_event& event) {
  using kind = enum lifecycle_event::kind;
  log_line out{
      .plugin = event.plugin, .pid = event.pid, .event = std::string(to_string(event.kind)), .text = event.text};
  switch (event.kind) {
    case kind::exited:
      out.text = event.report->summary();
      out.fields = {{"reason", std::string(to_string(event.report->reason))}};
      if (!event.report->method.empty()) out.fields["method"] = event.report->method;
      if (event.report->reason != exit_reason::shut_down) out.level = log_level::warning;
      break;
    case kind::restarting: {
      const double seconds = std::chrono::duration<double>(event.delay).count();
      out.text = fmt::format("in {:.1f} s{}{}", seconds, event.text.empty() ? "" : "; the last ", event.text);
      break;
    }
    case kind::degraded:
    case kind::recovered: out.text = fmt::format("{} of {} workers serve", event.serving, event.instances); break;
    case kind::quarantined:
      if (event.report) out.text = event.report->summary();
      out.level = log_level::error;
      break;
    case kind::gave_up:
    case kind::fork_server_gave_up: out.level = log_level::error; break;
    case kind::fork_server_died:
    case kind::undead:
    case kind::poisoned: out.level = log_level::warning; break;
    case kind::started:
    case kind::ready: out.level = log_level::debug; break;
    case kind::regrouped:
    case kind::reloaded: break;
  }
  return out;
}

log_line line_of(const log_record& record) {
  log_line out{.level = record.level, .plugin = record.plugin, .pid = record.pid, .text = record.text};
  if (record.dropped) out.fields["dropped"] = std::to_string(record.dropped);
  return out;
}

}  // namespace bulkhead::daemon
