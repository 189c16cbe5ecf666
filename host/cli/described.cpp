// See described.hpp: runs each command up to where it would parse its command line, and takes down what it has declared.
#include "described.hpp"

#include "command.hpp"

#include <algorithm>
#include <stdexcept>

namespace bulkhead::cli {
namespace {

described_option described(const CLI::Option& option) {
  described_option out;
  for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  if (option.get_positional()) out.positional = option.get_name(true, false);
  if (option.get_items_expected_max() > 0) out.value = option.get_type_name();
  if (out.value == "TEXT" && !out.positional.empty()) out.value = out.positional;
  out.help = option.get_description();
  out.required = option.get_required();
  out.repeatable = option.get_items_expected_max() > 1;
  return out;
}

void add(described_command& to, const CLI::App& app) {
  if (to.description.empty()) {
    to.description = app.get_description();
    to.footer = app.get_footer();
  }
  for (const CLI::Option* each : app.get_options()) {
    described_option made = described(*each);
    const auto same = [&](const described_option& other) {
      return other.names == made.names && (!made.names.empty() || other.positional == made.positional);
    };
    if (std::none_of(to.options.begin(), to.options.end(), same)) to.options.push_back(std::move(made));
  }
}

void describe(described_command& to, const command& from, std::vector<std::string> words) {
  bool parsed = false;
  const parse_observer observe = [&](const CLI::App& app) {
    parsed = true;
    add(to, app);
  };
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  observe_parse(&observe);
  from.run(static_cast<int>(words.size()), argv.data());
  observe_parse(nullptr);
  if (!parsed) throw std::logic_error("the command " + to.name + " does not call parse() first");
}

}  // namespace

std::vector<described_command> describe_commands() {
  std::vector<described_command> out;
  for (const command& each : all_commands()) {
    described_command made{each.name, each.summary, "", ""};
    describe(made, each, {each.name});
    if (made.name == "call") describe(made, each, {each.name, "--socket"});
    out.push_back(std::move(made));
  }
  return out;
}

}  // namespace bulkhead::cli
