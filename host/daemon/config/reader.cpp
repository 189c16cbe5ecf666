// See reader.hpp.
#include "reader.hpp"

#include "units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

namespace bulkhead::daemon {
namespace {

std::string shown(const toml::node& node) {
  std::ostringstream out;
  if (node.is_table()) return "a table";
  if (node.is_array()) return "an array";
  node.visit([&out](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) out << value;
  });
  std::string text = out.str();
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

}  // namespace

std::string table_reader::full(std::string_view key) const {
  return name_.empty() ? std::string(key) : name_ + "." + std::string(key);
}

void table_reader::wrong(const toml::node& where, const std::string& text) {
  mistakes_.push_back({where.source().begin.line, text});
}

const toml::node* table_reader::node(const char* key) {
  known_.emplace_back(key);
  return table_.get(key);
}

bool table_reader::text(const char* key, std::string& out) {
  const toml::node* found = node(key);
  if (!found) return false;
  const auto value = found->value_exact<std::string>();
  if (!value || value->empty() || value->find('\0') != std::string::npos) {
    wrong(*found, fmt::format("{} is {}; allowed: a text that is not empty", full(key), shown(*found)));
    return false;
  }
  out = *value;
  return true;
}

bool table_reader::flag(const char* key, bool& out) {
  const toml::node* found = node(key);
  if (!found) return false;
  const auto value = found->value_exact<bool>();
  if (!value) wrong(*found, fmt::format("{} is {}; allowed: true or false", full(key), shown(*found)));
  else out = *value;
  return value.has_value();
}

bool table_reader::duration(const char* key, std::chrono::nanoseconds& out, bool or_zero) {
  const toml::node* found = node(key);
  if (!found) return false;
  const auto text = found->value_exact<std::string>();
  if (or_zero && (found->value_exact<std::int64_t>() == 0 || text == "0")) {
    out = out.zero();
    return true;
  }
  const auto value = text ? cli::parse_duration(*text) : std::nullopt;
  if (!value)
    wrong(*found, fmt::format("{} is {}; allowed: a time such as \"500ms\", \"5s\", \"2m\" or \"1h\"{}", full(key),
                              shown(*found), or_zero ? ", or 0 for none" : ""));
  else out = *value;
  return value.has_value();
}

bool table_reader::size(const char* key, std::size_t& out, std::size_t least) {
  const toml::node* found = node(key);
  if (!found) return false;
  std::optional<std::size_t> value;
  if (const auto bytes = found->value_exact<std::int64_t>()) {
    if (*bytes >= 0) value = static_cast<std::size_t>(*bytes);
  } else if (auto text = found->value_exact<std::string>()) {
    std::erase(*text, ' ');
    if (text->ends_with("iB")) text->resize(text->size() - 2);  // "MiB" is "M" on the command line
    value = cli::parse_size(*text);
  }
  if (!value || *value < least) {
    const std::string at_least = least > 0 ? fmt::format(", at least {}", least) : "";
    wrong(*found, fmt::format("{} is {}; allowed: bytes, or a size such as \"64 KiB\", \"256 MiB\" or \"1 GiB\"{}",
                              full(key), shown(*found), at_least));
    return false;
  }
  out = *value;
  return true;
}

bool table_reader::real(const char* key, double& out, double least, double most) {
  const toml::node* found = node(key);
  if (!found) return false;
  const auto value = found->value<double>();
  const bool fine = found->is_number() && value && *value >= least && *value <= most;
  if (!fine) wrong(*found, fmt::format("{} is {}; allowed: {} to {}", full(key), shown(*found), least, most));
  else out = *value;
  return fine;
}

bool table_reader::whole(const char* key, std::int64_t& out, std::int64_t least, std::int64_t most) {
  const toml::node* found = node(key);
  if (!found) return false;
  const auto value = found->value_exact<std::int64_t>();
  const bool fine = value && *value >= least && *value <= most;
  if (!fine)
    wrong(*found,
          fmt::format("{} is {}; allowed: a whole number from {} to {}", full(key), shown(*found), least, most));
  else out = *value;
  return fine;
}

std::size_t table_reader::one_of(const char* key, const std::vector<std::string>& names) {
  const toml::node* found = node(key);
  if (!found) return names.size();
  const auto value = found->value_exact<std::string>();
  const auto at = value ? std::find(names.begin(), names.end(), *value) : names.end();
  if (at == names.end())
    wrong(*found, fmt::format("{} is {}; allowed: \"{}\"", full(key), shown(*found), fmt::join(names, "\", \"")));
  return static_cast<std::size_t>(at - names.begin());
}

void table_reader::list(const char* key, const char* of, const std::function<void(const toml::node&)>& take) {
  const toml::node* found = node(key);
  if (!found) return;
  const toml::array* array = found->as_array();
  if (!array) return wrong(*found, fmt::format("{} is {}; allowed: an array of {}", full(key), shown(*found), of));
  for (const toml::node& each : *array) take(each);
}

void table_reader::table(const char* key, const std::function<void(table_reader&)>& read) {
  const toml::node* found = node(key);
  if (!found) return;
  const toml::table* inner = found->as_table();
  if (!inner) return wrong(*found, fmt::format("{} is {}; allowed: a table", full(key), shown(*found)));
  table_reader reader(*inner, full(key), mistakes_);
  read(reader);
  reader.finish();
}

void table_reader::each_table(const std::function<void(const std::string& key, table_reader&)>& read) {
  for (const auto& [key, node] : table_) {
    const std::string name(key.str());
    known_.push_back(name);
    const toml::table* inner = node.as_table();
    if (!inner) {
      wrong(node, fmt::format("{} is {}; allowed: a table", full(name), shown(node)));
      continue;
    }
    table_reader reader(*inner, full(name), mistakes_);
    read(name, reader);
    reader.finish();
  }
}

void table_reader::finish() {
  for (const auto& [key, node] : table_) {
    if (std::find(known_.begin(), known_.end(), key.str()) != known_.end()) continue;
    std::vector<std::string> allowed = known_;
    std::sort(allowed.begin(), allowed.end());
    allowed.erase(std::unique(allowed.begin(), allowed.end()), allowed.end());
    mistakes_.push_back(
        {key.source().begin.line, fmt::format("there is no key {}; allowed{}: {}", full(key.str()),
                                              name_.empty() ? "" : " in " + name_, fmt::join(allowed, ", "))});
  }
}

}  // namespace bulkhead::daemon
