// See worker_options.hpp.
#include "worker_options.hpp"

#include "command.hpp"
#include "files.hpp"
#include "terminal.hpp"
#include "units.hpp"

#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

void print_log(const log_record& record) {
  constexpr const char* names[] = {"debug", "info", "warning", "error"};
  const std::string level = names[static_cast<int>(record.level)];
  const std::string shown = record.level >= log_level::warning ? red(stream::err, level) : faint(stream::err, level);
  if (record.dropped) fmt::print(stderr, "{}: {} lines of its log were lost\n", record.plugin, record.dropped);
  fmt::print(stderr, "{}: {}: {}\n", record.plugin, shown, record.text);
}

}  // namespace

policy policy_of(const std::string& file, const std::vector<std::string>& grants) {
  try {
    policy rules;
    if (!file.empty()) {
      const auto text = read_file(file, std::size_t{1} << 20);
      rules = policy::from_toml(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
    }
    for (const std::string& grant : grants) rules.add(grant);
    return rules;
  } catch (const std::invalid_argument& e) {
    throw usage_error(e.what());
  }
}

void add_policy(CLI::App& app, std::string& file, std::vector<std::string>& grants) {
  app.add_option("--policy", file, "what its sandbox grants it, as TOML (default: the profile strict)")
      ->type_name("FILE");
  app.add_option("--grant", grants, "a grant for its sandbox, as in read:/usr/share/fonts or connect:443; repeatable")
      ->type_name("GRANT")
      ->allow_extra_args(false);
}

void worker_options::declare(CLI::App& app) {
  app.add_option("PLUGIN", plugin, "a path with a '/' in it, or the name of an installed plugin")->required();
  add_duration(app, "--timeout", start_timeout, "how long the plugin may take to start (default 10s)");
  app.add_option("--env", environment, "a variable for the worker, which gets no others; repeatable")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  add_size(app, "--memory", memory_limit, "limit of the worker's address space (default 1G; 0: none)");
  add_policy(app, policy_file, grants);
  app.add_flag("--log", log, "show the worker's whole log on stderr, not just warnings and errors");
}

host_options worker_options::for_host() const {
  host_options options;
  options.on_log = [all = log](const log_record& record) {
    if (all || record.level >= log_level::warning) print_log(record);
  };
  return options;
}

load_options worker_options::for_load() const {
  for (const std::string& variable : environment)
    if (variable.find('=') == std::string::npos || variable.starts_with('='))
      throw usage_error("--env " + variable + ": expected NAME=VALUE");
  load_options options;
  options.memory_limit = memory_limit;
  options.start_timeout = start_timeout;
  options.environment = environment;
  options.policy = policy_of(policy_file, grants);
  return options;
}

}  // namespace bulkhead::cli
