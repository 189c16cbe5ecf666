// The daemon's log: lines go to stderr, as text or as JSON, through a queue that nobody waits for; the last of them are
// kept for `bulkhead logs`, and those who follow are told of each new one.
#pragma once

#include <bulkhead/host.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace spdlog {
class logger;
}

namespace bulkhead::daemon {

struct log_line {
  log_level level = log_level::info;
  std::string plugin{};  // empty: the daemon's own
  pid_t pid = -1;        // of the worker, where there is one
  std::string event{};   // what kind of event, where it is one: "exited"
  std::string text{};
  std::map<std::string, std::string> fields{};  // for programs
  std::chrono::system_clock::time_point when = std::chrono::system_clock::now();
};
// As it stands in the JSON log; and that as text for people.
nlohmann::ordered_json to_json(const log_line& line);
std::string to_text(const nlohmann::ordered_json& line);

class log_book {
 public:
  using follower = std::function<void(const log_line&)>;

  log_book(bool as_json, log_level least);
  // Writes what is still queued.
  ~log_book();
  log_book(const log_book&) = delete;

  void add(log_line line);
  void info(std::string text) { add({.text = std::move(text)}); }
  void warning(std::string text) { add({.level = log_level::warning, .text = std::move(text)}); }
  void error(std::string text) { add({.level = log_level::error, .text = std::move(text)}); }

  // The last `count` lines of a plugin (empty: all), oldest first. `follow`, if it is not empty, is called with them and
  // from then on with each new one, by whoever adds it: it must not block, and must not use this object.
  std::vector<log_line> last(std::size_t count, const std::string& plugin, follower follow = {},
                             std::uint64_t* id = {});
  void unfollow(std::uint64_t id);

 private:
  static constexpr std::size_t most_lines = 2000, longest_line = 2048;  // kept
  struct watcher {
    std::string plugin;
    follower call;
  };
  const bool json_;
  const log_level least_;
  std::mutex mutex_;
  std::deque<log_line> lines_;
  std::map<std::uint64_t, watcher> followers_;
  std::uint64_t last_id_ = 0;
  std::shared_ptr<spdlog::logger> out_;
};

// What happened to a worker or a plugin, and what a worker wrote, as lines.
log_line line_of(const lifecycle_event& event);
log_line line_of(const log_record& record);

}  // namespace bulkhead::daemon
