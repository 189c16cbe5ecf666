// bulkhead doctor: what this kernel and this user can enforce, layer by layer, as the fork server found it by trying;
// and for each thing that is missing, what would help.
#include "command.hpp"
#include "exit_codes.hpp"
#include "terminal.hpp"
#include "worker_options.hpp"
#include <bulkhead/host.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

#include <sys/utsname.h>
#include <unistd.h>

namespace bulkhead::cli {
namespace {

constexpr const char* given = "given";  // instead of a profile: by --policy and --grant

struct finding {
  std::string profile;
  policy rules;
  sandbox_report report;
};

std::string kernel() {
  utsname name{};
  ::uname(&name);
  return std::string(name.sysname) + " " + name.release + " " + name.machine;
}

std::string who(const sandbox_report& report) {
  if (::geteuid() != 0) return fmt::format("user {}", ::geteuid());
  const bool remains = std::any_of(report.layers.begin(), report.layers.end(), [](const sandbox_layer& layer) {
    return layer.detail.find("workers can't run as an unprivileged user") != std::string::npos;
  });
  return remains ? "root; so are workers" : "root; workers run as an unprivileged user";
}

nlohmann::json as_json(const finding& each) {
  nlohmann::json layers = nlohmann::json::array();
  for (const sandbox_layer& layer : each.report.layers)
    layers.push_back({{"name", layer.name}, {"in_force", layer.in_force}, {"detail", layer.detail}});
  return {{"profile", each.profile},
          {"level", to_string(each.report.level)},
          {"required", to_string(each.rules.granted().required)},
          {"starts", each.report.level >= each.rules.granted().required},
          {"layers", layers}};
}

void print_layers(const sandbox_report& report) {
  for (const sandbox_layer& layer : report.layers) {
    const std::string mark = layer.in_force ? green(stream::out, "in force") : red(stream::out, "missing ");
    fmt::print("  {}  {}  {}\n", padded(layer.name, 10), mark, wrapped(layer.detail, 24, width_of(stream::out)));
  }
}

void print(const std::vector<finding>& all) {
  fmt::print("{}, {}\n\n", kernel(), who(all.front().report));
  const std::string which = all.front().profile == given ? "this policy" : "the default policy (strict)";
  fmt::print("{}\n", bold(stream::out, "Layers of a worker under " + which));
  print_layers(all.front().report);
  fmt::print("\n{}\n", bold(stream::out, "Level by profile"));
  for (const finding& each : all) {
    const auto required = each.rules.granted().required;
    const bool starts = each.report.level >= required;
    const std::string verdict = starts ? green(stream::out, "starts") : red(stream::out, "does not start");
    fmt::print("  {}  {}  {} (required: {})\n", padded(each.profile, 10), padded(to_string(each.report.level), 8),
               verdict, to_string(required));
  }
}

}  // namespace

int run_doctor(int argc, char** argv) {
  CLI::App app("Shows which layers of the sandbox this machine can enforce, why others can't be, and what would help.",
               "bulkhead doctor");
  app.footer(
      "\nExit status: 0 when plugins start under the default policy, or the one that is given; 16 when they do not.");
  bool json = false;
  std::string policy_file;
  std::vector<std::string> grants;
  add_policy(app, policy_file, grants);
  app.add_flag("--json", json, "print one JSON object");
  if (const auto done = parse(app, argc, argv)) return *done;

  host host;
  std::vector<finding> all = {{"strict", policy::strict(), {}},
                              {"files", policy::files(), {}},
                              {"network", policy::network(), {}},
                              {"program", policy::program(), {}}};
  if (!policy_file.empty() || !grants.empty()) all = {{given, policy_of(policy_file, grants), {}}};
  for (finding& each : all) {
    policy rules = each.rules;
    if (rules.granted().memory == 0) rules.memory_limit(std::size_t{1} << 30);
    each.report = host.examine(rules);
  }
  if (json) {
    nlohmann::json out = {{"kernel", kernel()}, {"uid", ::geteuid()}, {"profiles", nlohmann::json::array()}};
    for (const finding& each : all) out["profiles"].push_back(as_json(each));
    fmt::print("{}\n", out.dump());
  } else {
    print(all);
  }
  return all.front().report.level >= all.front().rules.granted().required ? exit_ok : exit_code(outcome::unavailable);
}

}  // namespace bulkhead::cli
