// bulkhead report: shows crash reports that a host has written.
#include "command.hpp"
#include "crash_text.hpp"
#include "exit_codes.hpp"
#include "values/from_msgpack.hpp"
#include <bulkhead/ipc/message.hpp>

#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

// A line for each, the newest first. One that can't be read is told of and no reason not to show the others.
int print_list(const std::filesystem::path& directory, bool as_json) {
  struct line {
    std::string when, plugin, summary, file;
  };
  std::vector<line> lines;
  json all = json::array();
  int status = exit_ok;
  std::size_t plugins = 0;
  for (const auto& file : crash_reports_in(directory)) {
    try {
      const crash_report report = read_crash_report(file);
      lines.push_back(
          {local_time(report.time), ipc::sanitised(report.plugin), ipc::sanitised(report.summary()), file.string()});
      plugins = std::max(plugins, columns(report.plugin));
      json object = json::parse(to_json(report));
      object["report"] = file.string();
      all.push_back(std::move(object));
    } catch (const std::runtime_error& e) {
      fmt::print(stderr, "bulkhead report: {}\n", e.what());
      status = exit_local;
    }
  }
  if (as_json) fmt::print("{}\n", all.dump(2));
  else if (lines.empty()) fmt::print(stderr, "There are no crash reports in {}.\n", directory.string());
  else
    for (const line& each : lines)
      fmt::print("{}  {}  {}\n{}{}\n", faint(stream::out, each.when), bold(stream::out, padded(each.plugin, plugins)),
                 each.summary, std::string(21, ' '), faint(stream::out, each.file));
  return status;
}

}  // namespace

int run_report(int argc, char** argv) {
  CLI::App app(
      "Shows a crash report, or those in a folder, the newest first. Hosts write them to their crash_dir,\n"
      "'bulkhead call' to its --crash-dir.",
      "bulkhead report");
  std::string path;
  bool as_json = false;
  app.add_option("PATH", path, "a report's file, or the folder")->required();
  app.add_flag("--json", as_json, "print one JSON object, or for a folder an array of them");
  if (const auto done = parse(app, argc, argv)) return *done;
  if (std::filesystem::is_directory(path)) return print_list(path, as_json);
  const crash_report report = read_crash_report(path);
  if (as_json) fmt::print("{}\n", to_json(report));
  else print_report(report);
  return exit_ok;
}

}  // namespace bulkhead::cli
