// Signatures of methods, "(bin image, int max_side, stream<str>) -> map<str,float>?, stream<int>", read into types: the grammar of
// bulkhead/plugin.h. They come from plugins, so anything may stand there; what is not in the grammar is no signature.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead::cli {

enum class kind { nil, boolean, integer, real, text, binary, array, map, handle, blob, any };

struct type {
  cli::kind kind = cli::kind::any;
  bool optional = false;
  std::vector<type> of{};  // the element of an array, or the key and the value of a map; empty when not said
};

struct parameter {
  cli::type type;
  std::string name{};  // may be empty
};

struct signature {
  std::vector<parameter> parameters;
  type result;
  std::optional<type> streamed_arguments{}, streamed_results{};  // the items of its streams
  // How many arguments there must be at least: optional ones at the end may be left out.
  std::size_t required() const;
};

// Nothing when the text is not in the grammar.
std::optional<signature> parse_signature(std::string_view text);

// As it stands in a signature: "array<int>?".
std::string to_string(const type& value);

}  // namespace bulkhead::cli
