// See report.hpp.
#include "report.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace thumbnailer {
namespace {

using json = nlohmann::ordered_json;

std::string seconds_text(double seconds) {
  return seconds < 1 ? fmt::format("{:.0f} ms", seconds * 1000) : fmt::format("{:.2f} s", seconds);
}

// "3 (worker_lost 2, plugin_error 1)"
std::string counted(std::size_t total, const std::map<std::string, std::size_t>& kinds) {
  std::string text;
  for (const auto& [kind, count] : kinds) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", kind, count);
  return total == 0 ? "0" : fmt::format("{} ({})", total, text);
}

std::map<std::string, std::size_t> deaths(const report& report) {
  std::map<std::string, std::size_t> kinds;
  for (const auto& crash : report.crashes) ++kinds[death_of(*crash)];
  return kinds;
}

// As one line that a terminal can show: names and messages may hold anything.
std::string one_line(const std::string& text, std::size_t limit) {
  std::string line = printable(text, limit);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line;
}

void add_comparison(std::string& text, const report& report) {
  const comparison& price = *report.price;
  auto line = [&](const std::string& name, const std::string& isolated, const std::string& in_process) {
    text += fmt::format("  {:<18}  {:>11}  {:>11}\n", name, isolated, in_process);
  };
  auto rate = [&](const std::string& name, double amount, int digits) {
    line(name, fmt::format("{:.{}f}", amount / price.isolated_seconds, digits),
         fmt::format("{:.{}f}", amount / price.in_process_seconds, digits));
  };
  text += "\n";
  line("", "isolated", "in-process");
  line(price.files == 1 ? "1 image" : fmt::format("{} images", price.files), seconds_text(price.isolated_seconds),
       seconds_text(price.in_process_seconds));
  rate("images/s", static_cast<double>(price.files), 1);
  if (price.megapixels > 0) rate("MPix/s", price.megapixels, 1);
  line("run by", fmt::format("{} worker{}", report.workers, report.workers == 1 ? "" : "s"),
       fmt::format("{} thread{}", report.workers, report.workers == 1 ? "" : "s"));
  text += fmt::format("\n  price of isolation  {:>+9.1f} %   median of {} rounds of {} pass{} each\n",
                      100 * price.price(), price.rounds, price.passes, price.passes == 1 ? "" : "es");
}

// The first of them, one line each, in columns.
void add_failures(std::string& text, const report& report) {
  constexpr std::size_t lines_limit = 20, name_limit = 40, width_limit = 160;
  std::vector<std::pair<std::string, std::string>> rows;
  std::size_t width = 0, left_out = 0;
  for (std::size_t i = 0; i < report.files.size(); ++i) {
    const result& each = report.results[i];
    if (each.outcome == bulkhead::outcome::ok) continue;
    if (rows.size() == lines_limit) {
      ++left_out;
      continue;
    }
    rows.emplace_back(one_line(report.files[i].name, name_limit), failure_title(each) + ": " + each.message);
    width = std::max(width, rows.back().first.size());
  }
  if (rows.empty()) return;
  text += "\n  failed\n";
  for (const auto& [name, why] : rows) text += fmt::format("  {:<{}}  {}\n", name, width, one_line(why, width_limit));
  if (left_out > 0) text += fmt::format("  and {} more: see the contact sheet\n", left_out);
}

// Where it crashed, by the innermost frame of the plugin's own: "read_rows (fragile.c:93)".
std::string place_of(const bulkhead::crash_report& crash) {
  const auto own = std::find_if(crash.stack.begin(), crash.stack.end(), [](const bulkhead::stack_frame& each) {
    return each.origin == bulkhead::code_origin::plugin;
  });
  if (own == crash.stack.end()) return "";
  if (own->function.empty()) return fmt::format("{}+{:#x}", own->module, own->offset);
  if (own->source.empty()) return own->function;
  return fmt::format("{} ({}:{})", own->function, std::filesystem::path(own->source).filename().string(), own->line);
}

std::string title_of(const bulkhead::crash_report& crash) {
  std::string text = death_of(crash) + " in " + crash.plugin;
  if (!crash.method.empty()) text += "." + crash.method;
  if (const std::string place = place_of(crash); !place.empty()) text += " at " + place;
  return text;
}

// Crashes at the same place share a line.
void add_crashes(std::string& text, const report& report) {
  constexpr std::size_t lines_limit = 20, title_limit = 100, names_shown = 3, name_limit = 40;
  std::map<std::string, std::vector<std::string>> lines;
  std::size_t width = 0;
  for (const auto& crash : report.crashes) {
    auto& names = lines[one_line(title_of(*crash), title_limit)];
    for (std::size_t i = 0; i < report.files.size(); ++i)
      if (report.results[i].report && report.results[i].report->pid == crash->pid)
        names.push_back(one_line(report.files[i].name, name_limit));
  }
  if (lines.empty()) return;
  for (const auto& line : lines) width = std::max(width, line.first.size());
  text += "\n  crashes\n";
  std::size_t shown = 0;
  for (const auto& [title, names] : lines) {
    if (shown++ == lines_limit) break;
    const auto first = names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), names_shown));
    text += fmt::format("  {:<{}}  {}", title, width, fmt::join(names.begin(), first, ", "));
    if (names.size() > names_shown) text += fmt::format(" and {} more", names.size() - names_shown);
    text += "\n";
  }
  if (lines.size() > lines_limit) text += fmt::format("  and {} other places\n", lines.size() - lines_limit);
  text += fmt::format("  reports: bulkhead report {}\n", (report.output / "crashes").string());
}

json json_of(const result& result, const image_file& file) {
  json made = {{"file", printable(file.name)}, {"bytes", file.size}, {"outcome", to_string(result.outcome)}};
  if (result.outcome == bulkhead::outcome::ok) {
    made["thumbnail"] = "thumbs/" + file.thumbnail;
    made["width"] = result.width;
    made["height"] = result.height;
    return made;
  }
  made["method"] = result.method;
  made["message"] = result.message;
  if (result.report && result.report->signal) made["signal"] = bulkhead::signal_name(result.report->signal);
  return made;
}

}  // namespace

std::size_t report::thumbnails() const {
  std::size_t count = 0;
  for (const result& each : results) count += each.outcome == bulkhead::outcome::ok;
  return count;
}

std::map<std::string, std::size_t> report::failures() const {
  std::map<std::string, std::size_t> kinds;
  for (const result& each : results)
    if (each.outcome != bulkhead::outcome::ok) ++kinds[std::string(to_string(each.outcome))];
  return kinds;
}

double report::megapixels() const {
  double sum = 0;
  for (const result& each : results)
    if (each.outcome == bulkhead::outcome::ok) sum += 1e-6 * each.width * each.height;
  return sum;
}

std::string to_text(const report& report) {
  std::string text;
  auto line = [&](const char* name, const std::string& value) { text += fmt::format("  {:<18}  {}\n", name, value); };
  line("files", std::to_string(report.files.size()));
  line("thumbnails", std::to_string(report.thumbnails()));
  line("failures", counted(report.files.size() - report.thumbnails(), report.failures()));
  line("crashes survived", counted(report.crashes.size(), deaths(report)));
  line("time", fmt::format("{} with {} worker{}", seconds_text(report.seconds), report.workers,
                           report.workers == 1 ? "" : "s"));
  if (report.price) add_comparison(text, report);
  else if (!report.no_price.empty()) line("price of isolation", "not measured: " + report.no_price);
  add_failures(text, report);
  add_crashes(text, report);
  return text;
}

std::string to_json(const report& report) {
  json files = json::array(), crashes = json::array();
  for (std::size_t i = 0; i < report.files.size(); ++i) files.push_back(json_of(report.results[i], report.files[i]));
  for (const auto& crash : report.crashes)
    crashes.push_back({{"plugin", crash->plugin},
                       {"pid", crash->pid},
                       {"reason", to_string(crash->reason)},
                       {"method", crash->method},
                       {"place", printable(place_of(*crash))},
                       {"summary", crash->summary()}});
  json made = {{"folder", printable(report.folder.string())},
               {"contact_sheet", printable((report.output / "index.html").string())},
               {"workers", report.workers},
               {"files", report.files.size()},
               {"thumbnails", report.thumbnails()},
               {"failures", json(report.failures())},
               {"crashes", crashes},
               {"seconds", report.seconds},
               {"megapixels", report.megapixels()},
               {"comparison", nullptr},
               {"results", files}};
  if (report.price) {
    const comparison& price = *report.price;
    made["comparison"] = {{"files", price.files},
                          {"passes", price.passes},
                          {"rounds", price.rounds},
                          {"isolated_seconds", price.isolated_seconds},
                          {"in_process_seconds", price.in_process_seconds},
                          {"megapixels", price.megapixels},
                          {"price_percent", 100 * price.price()}};
  }
  return made.dump(2, ' ', false, json::error_handler_t::replace);
}

std::string failure_title(const result& failed) {
  std::string title(to_string(failed.outcome));
  if (failed.report) title += " · " + death_of(*failed.report);
  if (!failed.method.empty()) title += " · " + failed.method;
  return title;
}

std::string printable(const std::string& text, std::size_t limit) {
  // In UTF-8: U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069.
  static const std::pair<std::string_view, std::string_view> marks[] = {
      {"\xd8\x9c", "\\u061c"},     {"\xe2\x80\x8e", "\\u200e"}, {"\xe2\x80\x8f", "\\u200f"},
      {"\xe2\x80\xaa", "\\u202a"}, {"\xe2\x80\xab", "\\u202b"}, {"\xe2\x80\xac", "\\u202c"},
      {"\xe2\x80\xad", "\\u202d"}, {"\xe2\x80\xae", "\\u202e"}, {"\xe2\x81\xa6", "\\u2066"},
      {"\xe2\x81\xa7", "\\u2067"}, {"\xe2\x81\xa8", "\\u2068"}, {"\xe2\x81\xa9", "\\u2069"}};
  std::string shown = bulkhead::ipc::sanitised(text, limit);
  for (const auto& [mark, spelled] : marks)
    for (std::size_t at = shown.find(mark); at != std::string::npos; at = shown.find(mark, at))
      shown.replace(at, mark.size(), spelled);
  return shown;
}

std::string death_of(const bulkhead::crash_report& crash) {
  const bool killed = crash.reason == bulkhead::exit_reason::signalled;
  return killed ? bulkhead::signal_name(crash.signal) : std::string(to_string(crash.reason));
}

std::string size_text(std::uintmax_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  if (bytes < 1'000'000) return fmt::format("{} kB", (bytes + 500) / 1000);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
}

}  // namespace thumbnailer
