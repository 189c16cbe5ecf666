// bulkhead inspect: loads a plugin into a throwaway worker and shows what it says of itself.
#include "command.hpp"
#include "exit_codes.hpp"
#include "outcome_text.hpp"
#include "plugin_path.hpp"
#include "terminal.hpp"
#include "worker_options.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace bulkhead::cli {
namespace {

json to_json(const plugin_info& info, const std::string& file) {
  json methods = json::array();
  for (const method_info& each : info.methods)
    methods.push_back(
        {{"name", each.name}, {"signature", each.signature}, {"doc", each.doc}, {"idempotent", each.idempotent}});
  return {{"id", info.id},
          {"name", info.name},
          {"version", info.version},
          {"license", info.license},
          {"description", info.description},
          {"abi", info.abi},
          {"file", file},
          {"requests", info.requests},
          {"methods", methods}};
}

void print_field(const char* name, const std::string& value) {
  if (!value.empty()) fmt::print("{}  {}\n", faint(stream::out, padded(name, 11)), value);
}

void print(const plugin_info& info, const std::string& file) {
  fmt::print("{} {}{}\n", bold(stream::out, info.name.empty() ? info.id : info.name), info.version,
             info.description.empty() ? "" : ": " + info.description);
  print_field("id", info.id);
  print_field("licence", info.license);
  print_field("ABI", std::to_string(info.abi));
  print_field("file", file);
  std::string requests;
  for (const std::string& each : info.requests) requests += (requests.empty() ? "" : ", ") + each;
  print_field("asks for", requests.empty() ? "nothing" : requests);

  if (info.methods.empty()) {
    fmt::print("\nIt has no methods.\n");
    return;
  }
  fmt::print("\n");
  std::size_t name_width = 0, form_width = 0;
  for (const method_info& each : info.methods) {
    name_width = std::max(name_width, columns(each.name));
    form_width = std::max(form_width, columns(each.signature));
  }
  // Docs stand beside the signatures when there is room, and under them otherwise.
  const std::size_t width = width_of(stream::out);
  const std::size_t beside = 2 + name_width + 2 + form_width + 2;
  const bool room = beside + 30 <= width;
  for (const method_info& each : info.methods) {
    const std::string doc = each.doc + (each.idempotent ? (each.doc.empty() ? "(idempotent)" : " (idempotent)") : "");
    const std::size_t indent = room ? beside : 4;
    const std::string shown = wrapped(doc, indent, width > indent + 20 ? width - indent : 20);
    fmt::print("  {}  {}", bold(stream::out, padded(each.name, name_width)),
               room && !doc.empty() ? padded(each.signature, form_width) : each.signature);
    if (room) fmt::print("{}{}\n", doc.empty() ? "" : "  ", faint(stream::out, shown));
    else fmt::print("\n{}", doc.empty() ? "" : "    " + faint(stream::out, shown) + "\n");
  }
}

}  // namespace

int run_inspect(int argc, char** argv) {
  CLI::App app("Shows what a plugin says of itself. It is loaded for that, into a worker of its own.",
               "bulkhead inspect");
  worker_options worker;
  bool as_json = false;
  worker.declare(app);
  app.add_flag("--json", as_json, "print one JSON object");
  if (const auto done = parse(app, argc, argv)) return *done;

  const std::string file = find_plugin(worker.plugin).string();
  const load_options options = worker.for_load();
  host host(worker.for_host());
  try {
    const plugin_info info = host.load(file, options).describe();
    if (as_json) fmt::print("{}\n", pretty(to_json(info, file)));
    else print(info, file);
    return exit_ok;
  } catch (const call_error& error) {
    const failure what = with_names(failure_of(error), host);
    if (as_json)
      fmt::print("{}\n", pretty({{"outcome", to_string(what.outcome)},
                                 {"error", error_json(what)},
                                 {"report", report_json(what.report)}}));
    else print_failure(what);
    return exit_code(what.outcome);
  }
}

}  // namespace bulkhead::cli
