// policy::from_toml(): the same grants as in the text form, with lists and units. See policy.hpp.
#include "policy_toml.hpp"

#include <cctype>
#include <sstream>
#include <stdexcept>

namespace bulkhead {
namespace {

[[noreturn]] void fail(const toml::node& where, const std::string& what) { throw toml_mistake(where, what); }

struct unit {
  const char* name;
  double factor;
};

// "256 MiB" with the units of its kind; a bare number counts the first of them.
std::uint64_t quantity(const toml::node& node, const std::string& key, std::initializer_list<unit> units) {
  if (const auto number = node.value_exact<std::int64_t>()) {
    if (*number < 0) fail(node, key + " is negative");
    return static_cast<std::uint64_t>(*number);
  }
  const auto text = node.value_exact<std::string>();
  if (!text) fail(node, key + " is a number, or a text with a unit");
  std::istringstream in(*text);
  double number = 0;
  std::string name;
  if (in >> number) in >> name;
  for (const unit& each : units)
    if (name == each.name && number >= 0 && number * each.factor < 1e18)
      return static_cast<std::uint64_t>(number * each.factor);
  fail(node, key + " = \"" + *text + "\" has no unit that is known, as in \"256 MiB\" or \"2 s\"");
}

void add_value(policy& made, const std::string& key, const toml::node& node) {
  if (const auto* list = node.as_array()) {
    for (const toml::node& each : *list) add_value(made, key, each);
    return;
  }
  if (key == "memory" || key == "filesize") {
    const auto bytes = quantity(node, key, {{"", 1}, {"B", 1}, {"KiB", 1024}, {"MiB", 1 << 20}, {"GiB", 1 << 30}});
    return void(made.add(key + ":" + std::to_string(bytes)));
  }
  if (key == "cpu") {
    const auto ms = quantity(node, key, {{"ms", 1}, {"s", 1000}, {"min", 60'000}, {"h", 3'600'000}});
    return void(made.add("cpu:" + std::to_string(ms)));
  }
  if (const auto flag = node.value_exact<bool>()) {
    if (*flag) made.add(key);
  } else if (const auto number = node.value_exact<std::int64_t>()) {
    made.add(key + ":" + std::to_string(*number));
  } else if (const auto real = node.value_exact<double>()) {
    made.add(key + ":" + std::to_string(*real));
  } else if (const auto text = node.value_exact<std::string>()) {
    made.add(key + ":" + *text);
  } else if (const auto* table = node.as_table(); table && key == "environment") {
    for (const auto& [name, value] : *table) {
      const auto set = value.value_exact<std::string>();
      if (!set) fail(value, "environment." + std::string(name.str()) + " is not a text");
      made.environment(std::string(name.str()), *set);
    }
  } else {
    fail(node, key + " has a value of a type that fits no grant");
  }
}

}  // namespace

policy policy_from_table(const toml::table& table) {
  policy made;
  const auto add = [&made](std::string_view key, const toml::node& node) {
    try {
      add_value(made, std::string(key), node);
    } catch (const toml_mistake&) {
      throw;
    } catch (const std::invalid_argument& e) {
      fail(node, std::string_view(e.what()).substr(8).data());  // without its "policy: "
    }
  };
  if (const toml::node* profile = table.get("profile")) add("profile", *profile);
  for (const auto& [key, node] : table)
    if (key.str() != "profile") add(key.str(), node);
  return made;
}

policy policy::from_toml(std::string_view text) {
  try {
    return policy_from_table(toml::parse(text));
  } catch (const toml_mistake& e) {
    throw std::invalid_argument("policy: line " + std::to_string(e.line) + ": " + e.what());
  } catch (const toml::parse_error& e) {
    throw std::invalid_argument("policy: line " + std::to_string(e.source().begin.line) + ": " +
                                std::string(e.description()));
  }
}

}  // namespace bulkhead
