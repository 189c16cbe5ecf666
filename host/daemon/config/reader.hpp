// Reads a TOML table key by key, each with what is allowed for it. Nothing is thrown for what is wrong in there: all
// mistakes are collected, one line each, so that a user sees all of them at once.
#pragma once

#include <toml++/toml.h>

#include <chrono>
#include <functional>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace bulkhead::daemon {

struct mistake {
  toml::source_index line = 0;
  std::string text;
};

class table_reader {
 public:
  // `name` is what the table is called in texts: "plugins.image"; empty for the whole file.
  table_reader(const toml::table& table, std::string name, std::vector<mistake>& mistakes)
      : table_(table), name_(std::move(name)), mistakes_(mistakes) {}

  // Each leaves `out` as it is when the key is missing, or wrong. True when it was set.
  bool text(const char* key, std::string& out);
  bool flag(const char* key, bool& out);
  // "500ms", "5s", "2m", "1h"; `or_zero`: 0 as well, for none.
  bool duration(const char* key, std::chrono::nanoseconds& out, bool or_zero = false);
  // Bytes as a number, or "64 KiB", "256 MiB", "1 GiB".
  bool size(const char* key, std::size_t& out, std::size_t least = 0);
  bool real(const char* key, double& out, double least, double most);
  template <class T>
  bool number(const char* key, T& out, std::int64_t least,
              std::int64_t most = std::numeric_limits<std::int32_t>::max()) {
    std::int64_t value = 0;
    if (!whole(key, value, least, most)) return false;
    out = static_cast<T>(value);
    return true;
  }
  template <class Enum>
  bool choice(const char* key, Enum& out, std::initializer_list<std::pair<const char*, Enum>> allowed) {
    std::vector<std::string> names;
    for (const auto& each : allowed) names.emplace_back(each.first);
    const std::size_t index = one_of(key, names);
    if (index >= names.size()) return false;
    out = (allowed.begin() + static_cast<std::ptrdiff_t>(index))->second;
    return true;
  }
  // An array; `take` is called with each element and whether it is wrong is its own matter.
  void list(const char* key, const char* of, const std::function<void(const toml::node&)>& take);
  void table(const char* key, const std::function<void(table_reader&)>& read);
  // Its tables, whatever their names are.
  void each_table(const std::function<void(const std::string& key, table_reader&)>& read);
  // The node as it is; null when it is missing.
  const toml::node* node(const char* key);

  void wrong(const toml::node& where, const std::string& text);
  toml::source_index line() const { return table_.source().begin.line; }
  std::string full(std::string_view key) const;
  const std::string& name() const { return name_; }
  // Says which keys there are that nothing has asked for.
  void finish();

 private:
  bool whole(const char* key, std::int64_t& out, std::int64_t least, std::int64_t most);
  std::size_t one_of(const char* key, const std::vector<std::string>& names);

  const toml::table& table_;
  const std::string name_;
  std::vector<mistake>& mistakes_;
  std::vector<std::string> known_;
};

}  // namespace bulkhead::daemon
