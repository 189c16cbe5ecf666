// A compiled PCRE2 pattern (UTF-8) and what is done with it. No limit of PCRE2's own ends a match: a catastrophic
// pattern runs until the call's deadline ends its worker. Throws std::runtime_error with PCRE2's text.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace text {

struct match {
  std::size_t start = 0, end = 0;  // bytes
  std::string text;
  std::vector<std::optional<std::string>> groups;  // without the whole match
  std::map<std::string, std::optional<std::string>> named;
};

class pattern {
 public:
  // `flags`: any of i (caseless), m (multiline), s (dot matches newline), x (extended), U (ungreedy).
  pattern(std::string_view expression, std::string_view flags);

  // Every match in turn, until `take` returns false.
  void each(std::string_view subject, const std::function<bool(match)>& take) const;
  // At most `limit` matches, from left to right.
  std::vector<match> search(std::string_view subject, std::size_t limit) const;
  // Every match replaced; `replacement` in PCRE2's extended syntax: $1, ${name}, \U…
  std::string replace(std::string_view subject, std::string_view replacement) const;
  // The parts between matches; at most `limit` splits.
  std::vector<std::string> split(std::string_view subject, std::size_t limit) const;

 private:
  std::shared_ptr<pcre2_code> code_;
  std::shared_ptr<pcre2_match_context> context_;
};

}  // namespace text
