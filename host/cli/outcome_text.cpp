// See outcome_text.hpp.
#include "outcome_text.hpp"

#include "crash_text.hpp"

#include <fmt/format.h>

#include <sstream>

namespace bulkhead::cli {
namespace {

constexpr std::size_t tail_lines = 20;

json data_json(const std::vector<std::uint8_t>& data) {
  return data.empty() ? json() : from_msgpack(ipc::unpack(data).get(), bytes_as::base64);
}

void print_log_tail(const std::string& tail) {
  std::vector<std::string> lines;
  std::istringstream in(tail);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  if (lines.empty()) return;
  const std::size_t first = lines.size() > tail_lines ? lines.size() - tail_lines : 0;
  fmt::print(stderr, "  its last {}:\n", lines.size() - first == 1 ? "line" : "lines");
  for (std::size_t i = first; i < lines.size(); ++i) fmt::print(stderr, "    {}\n", faint(stream::err, lines[i]));
}

}  // namespace

failure failure_of(const reply& failed) { return {failed.outcome(), failed.message(), failed.data(), failed.report()}; }
failure failure_of(const call_error& error) { return {error.outcome(), error.message(), error.data(), error.report()}; }

failure with_names(failure what, const host& by) {
  if (what.report && !what.report->stack.empty())
    what.report = std::make_shared<const crash_report>(by.symbolized(*what.report));
  return what;
}

void print_failure(const failure& what) {
  fmt::print(stderr, "{}: {}\n", red(stream::err, to_string(what.outcome)), what.message);
  if (!what.data.empty()) fmt::print(stderr, "  details: {}\n", pretty(data_json(what.data)));
  if (!what.report) return;
  const std::string summary = what.report->summary();
  if (what.message.find(summary) == std::string::npos)
    fmt::print(stderr, "  worker {} (plugin {}) {}\n", what.report->pid, what.report->plugin, summary);
  if (!what.report->stack.empty()) {
    fmt::print(stderr, "  its stack, innermost first:\n");
    print_stack(stream::err, *what.report, frames_shown::to_the_plugin);
  }
  print_log_tail(what.report->log_tail);
}

json error_json(const failure& what) { return {{"message", what.message}, {"data", data_json(what.data)}}; }

json report_json(const std::shared_ptr<const crash_report>& report) {
  return report ? json::parse(to_json(*report)) : json();
}

}  // namespace bulkhead::cli
