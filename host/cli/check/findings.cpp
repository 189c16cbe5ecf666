// See findings.hpp.
#include "check/findings.hpp"

#include "terminal.hpp"
#include "values/from_msgpack.hpp"
#include <bulkhead/ipc/message.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace bulkhead::cli::check {
namespace {

constexpr std::size_t kept = 10;

std::string_view word(status value) {
  switch (value) {
    case status::passed: return "passed";
    case status::warned: return "warned";
    case status::failed: return "failed";
    case status::skipped: return "skipped";
  }
  return "";
}

void add(std::vector<std::string>& to, std::string text) {
  if (to.size() < kept && std::find(to.begin(), to.end(), text) == to.end()) to.push_back(std::move(text));
}

// XML takes UTF-8 alone, and no control characters, however they are written; nor these two.
std::string xml(std::string_view text) {
  std::string out;
  for (const char c : ipc::sanitised(text, SIZE_MAX)) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (c == '"') out += "&quot;";
    else out += c;
  }
  for (const char* none : {"\xef\xbf\xbe", "\xef\xbf\xbf"})  // U+FFFE, U+FFFF
    for (std::size_t at = 0; (at = out.find(none, at)) != std::string::npos;) out.replace(at, 3, "?");
  return out;
}

void print_findings(const std::vector<std::string>& findings, std::size_t indent) {
  const std::size_t width = std::max<std::size_t>(40, width_of(stream::out) - indent - 2);
  for (const std::string& each : findings)
    fmt::print("{}- {}\n", std::string(indent, ' '), wrapped(each, indent + 2, width));
}

}  // namespace

status result::status() const {
  if (!failures.empty()) return status::failed;
  if (!warnings.empty()) return status::warned;
  return skipped ? status::skipped : status::passed;
}

void result::fail(std::string text) { add(failures, std::move(text)); }
void result::warn(std::string text) { add(warnings, std::move(text)); }

std::size_t report::count(check::status wanted) const {
  return static_cast<std::size_t>(
      std::count_if(results.begin(), results.end(), [&](const result& each) { return each.status() == wanted; }));
}

void report::print() const {
  fmt::print("{} {} ({}), seed {}\n\n", bold(stream::out, plugin), version, file, seed);
  for (const result& each : results) {
    const check::status how = each.status();
    const std::string shown = padded(std::string(word(how)), 8);
    fmt::print("  {}{}{}\n",
               how == status::failed   ? red(stream::out, shown)
               : how == status::passed ? green(stream::out, shown)
                                       : bold(stream::out, shown),
               padded(each.name, 14), faint(stream::out, each.note));
    print_findings(each.failures, 10);
    print_findings(each.warnings, 10);
  }
  fmt::print("\n{} passed, {} with warnings, {} failed, {} skipped\n", count(status::passed), count(status::warned),
             count(status::failed), count(status::skipped));
}

std::string report::json() const {
  cli::json list = cli::json::array();
  for (const result& each : results)
    list.push_back({{"check", each.name},
                    {"status", word(each.status())},
                    {"note", each.note},
                    {"failures", each.failures},
                    {"warnings", each.warnings},
                    {"time_ms", static_cast<std::int64_t>(each.ms)}});
  return pretty({{"plugin", plugin},
                 {"version", version},
                 {"file", file},
                 {"seed", seed},
                 {"passed", count(status::failed) == 0},
                 {"checks", list}}) +
         "\n";
}

std::string report::junit() const {
  double seconds = 0;
  for (const result& each : results) seconds += each.ms / 1000;
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  out += fmt::format(
      "<testsuite name=\"bulkhead check {}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3f}\">\n",
      xml(plugin), results.size(), count(status::failed), count(status::skipped), seconds);
  for (const result& each : results) {
    out += fmt::format("  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3f}\">", xml(plugin), each.name,
                       each.ms / 1000);
    std::string failed, warned;
    for (const std::string& text : each.failures) failed += text + "\n";
    for (const std::string& text : each.warnings) warned += text + "\n";
    if (!failed.empty())
      out += fmt::format("<failure message=\"{}\">{}</failure>", xml(each.failures.front()), xml(failed));
    if (each.status() == status::skipped) out += fmt::format("<skipped message=\"{}\"/>", xml(each.note));
    if (!warned.empty()) out += fmt::format("<system-out>{}</system-out>", xml(warned));
    out += "</testcase>\n";
  }
  return out + "</testsuite>\n";
}

}  // namespace bulkhead::cli::check
