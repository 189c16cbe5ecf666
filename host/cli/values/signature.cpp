// See signature.hpp. A recursive descent over the text, with a bound on the depth, since plugins write it.
#include "values/signature.hpp"

#include <array>
#include <utility>

namespace bulkhead::cli {
namespace {

constexpr std::array<std::pair<kind, std::string_view>, 11> names{{{kind::nil, "nil"},
                                                                   {kind::boolean, "bool"},
                                                                   {kind::integer, "int"},
                                                                   {kind::real, "float"},
                                                                   {kind::text, "str"},
                                                                   {kind::binary, "bin"},
                                                                   {kind::array, "array"},
                                                                   {kind::map, "map"},
                                                                   {kind::handle, "handle"},
                                                                   {kind::blob, "blob"},
                                                                   {kind::any, "any"}}};
constexpr int depth_limit = 32;

class reader {
 public:
  explicit reader(std::string_view text) : rest_(text) {}

  bool take(std::string_view token) {
    skip_spaces();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  bool at_end() {
    skip_spaces();
    return rest_.empty();
  }
  std::string_view word() {
    skip_spaces();
    std::size_t size = 0;
    while (size < rest_.size() && is_word(rest_[size])) ++size;
    const std::string_view found = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return found;
  }

 private:
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }
  void skip_spaces() {
    while (rest_.starts_with(' ')) rest_.remove_prefix(1);
  }

  std::string_view rest_;
};

std::optional<type> read_type(reader& in, int depth = 0) {
  const std::string_view word = in.word();
  type made;
  bool known = false;
  for (const auto& [kind, name] : names) {
    if (name != word) continue;
    made.kind = kind;
    known = true;
  }
  if (!known || depth > depth_limit) return std::nullopt;
  if ((made.kind == kind::array || made.kind == kind::map) && in.take("<")) {
    const std::size_t wanted = made.kind == kind::array ? 1 : 2;
    for (std::size_t i = 0; i < wanted; ++i) {
      if (i > 0 && !in.take(",")) return std::nullopt;
      auto inner = read_type(in, depth + 1);
      if (!inner) return std::nullopt;
      made.of.push_back(std::move(*inner));
    }
    if (!in.take(">")) return std::nullopt;
  }
  made.optional = in.take("?");
  return made;
}

// What follows "stream<".
std::optional<type> read_items(reader& in) {
  auto items = read_type(in);
  return items && in.take(">") ? std::move(items) : std::nullopt;
}

}  // namespace

std::optional<signature> parse_signature(std::string_view text) {
  reader in(text);
  signature made;
  if (!in.take("(")) return std::nullopt;
  if (!in.take(")")) {
    do {
      if (in.take("stream<")) {
        if (made.streamed_arguments || !(made.streamed_arguments = read_items(in))) return std::nullopt;
        in.word();  // its name
        continue;
      }
      auto found = read_type(in);
      if (!found) return std::nullopt;
      made.parameters.push_back({std::move(*found), std::string(in.word())});
    } while (in.take(","));
    if (!in.take(")")) return std::nullopt;
  }
  if (!in.take("->")) return std::nullopt;
  bool streams = in.take("stream<");
  made.result.kind = kind::nil;
  if (!streams) {
    auto result = read_type(in);
    if (!result) return std::nullopt;
    made.result = std::move(*result);
    streams = in.take(",");
    if (streams && !in.take("stream<")) return std::nullopt;
  }
  if (streams && !(made.streamed_results = read_items(in))) return std::nullopt;
  return in.at_end() ? std::optional(made) : std::nullopt;
}

std::size_t signature::required() const {
  std::size_t count = parameters.size();
  while (count > 0 && parameters[count - 1].type.optional) --count;
  return count;
}

std::string to_string(const type& value) {
  std::string text;
  for (const auto& [kind, name] : names)
    if (kind == value.kind) text = name;
  if (!value.of.empty()) {
    text += "<" + to_string(value.of[0]);
    if (value.of.size() > 1) text += "," + to_string(value.of[1]);
    text += ">";
  }
  return value.optional ? text + "?" : text;
}

}  // namespace bulkhead::cli
