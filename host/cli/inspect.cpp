// bulkhead inspect PLUGIN: what a plugin says of itself, asked of a throwaway worker.
#include "commands.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bulkhead::cli {
namespace {

void print_json(const plugin_info& info) {
  nlohmann::ordered_json methods = nlohmann::ordered_json::array();
  for (const method_info& method : info.methods)
    methods.push_back({{"name", method.name}, {"signature", method.signature}, {"doc", method.doc}, {"idempotent", method.idempotent}});
  const nlohmann::ordered_json all = {{"id", info.id},           {"name", info.name},
                                      {"version", info.version}, {"license", info.license},
                                      {"description", info.description}, {"abi", info.abi},
                                      {"requests", info.requests}, {"methods", methods}};
  fmt::print("{}\n", all.dump(2));
}

void print_text(const plugin_info& info) {
  fmt::print("{} {}\n", info.id, info.version);
  auto field = [](const char* name, const std::string& value) {
    if (!value.empty()) fmt::print("  {:<13}{}\n", name, value);
  };
  field("description", info.description);
  field("license", info.license);
  field("abi", std::to_string(info.abi));
  std::string requests;
  for (const std::string& request : info.requests) requests += (requests.empty() ? "" : ", ") + request;
  field("asks for", requests.empty() ? "nothing" : requests);
  fmt::print("\nmethods\n");
  for (const method_info& method : info.methods) {
    fmt::print("  {}{}{}\n", method.name, method.signature, method.idempotent ? "   [idempotent]" : "");
    if (!method.doc.empty()) fmt::print("      {}\n", method.doc);
  }
}

}  // namespace

void add_inspect(CLI::App& app, command& chosen) {
  struct arguments {
    std::string plugin;
    bool json = false;
  };
  auto given = std::make_shared<arguments>();
  CLI::App* sub = app.add_subcommand("inspect", "Shows a plugin's manifest and methods");
  sub->add_option("PLUGIN", given->plugin)->required();
  sub->add_flag("--json", given->json, "As JSON");
  sub->callback([given, &chosen] {
    chosen = [given] {
      host host;
      const plugin_info info = host.load(find_plugin(given->plugin)).describe();
      given->json ? print_json(info) : print_text(info);
      return 0;
    };
  });
}

}  // namespace bulkhead::cli
