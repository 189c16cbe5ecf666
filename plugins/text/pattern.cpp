// See pattern.hpp.
#include "pattern.hpp"

#include <stdexcept>

namespace text {
namespace {

constexpr std::uint32_t heap_limit_kib = 256 << 10;

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string message(int code) {
  PCRE2_UCHAR buffer[256];
  ::pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

std::uint32_t options_of(std::string_view flags) {
  // \C would match half a character, and what it matched would be no text.
  std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
  for (const char flag : flags) {
    switch (flag) {
      case 'i': options |= PCRE2_CASELESS; break;
      case 'm': options |= PCRE2_MULTILINE; break;
      case 's': options |= PCRE2_DOTALL; break;
      case 'x': options |= PCRE2_EXTENDED; break;
      case 'U': options |= PCRE2_UNGREEDY; break;
      default: throw std::runtime_error(std::string("unknown flag '") + flag + "': i, m, s, x, U");
    }
  }
  return options;
}

}  // namespace

pattern::pattern(std::string_view expression, std::string_view flags) {
  int error = 0;
  std::size_t offset = 0;
  code_.reset(::pcre2_compile(units(expression), expression.size(), options_of(flags), &error, &offset, nullptr),
              ::pcre2_code_free);
  if (!code_)
    throw std::runtime_error("the pattern is not valid at offset " + std::to_string(offset) + ": " + message(error));
  context_.reset(::pcre2_match_context_create(nullptr), ::pcre2_match_context_free);
  ::pcre2_set_match_limit(context_.get(), UINT32_MAX);
  ::pcre2_set_depth_limit(context_.get(), UINT32_MAX);
  ::pcre2_set_heap_limit(context_.get(), heap_limit_kib);
}

void pattern::each(std::string_view subject, const std::function<bool(match)>& take) const {
  const std::shared_ptr<pcre2_match_data> data(::pcre2_match_data_create_from_pattern(code_.get(), nullptr),
                                               ::pcre2_match_data_free);
  std::uint32_t name_count = 0, entry_size = 0;
  PCRE2_SPTR names = nullptr;
  ::pcre2_pattern_info(code_.get(), PCRE2_INFO_NAMECOUNT, &name_count);
  ::pcre2_pattern_info(code_.get(), PCRE2_INFO_NAMEENTRYSIZE, &entry_size);
  ::pcre2_pattern_info(code_.get(), PCRE2_INFO_NAMETABLE, &names);
  std::uint32_t group_count = 0;
  ::pcre2_pattern_info(code_.get(), PCRE2_INFO_CAPTURECOUNT, &group_count);

  std::size_t at = 0;
  std::uint32_t options = 0;
  std::uint32_t checked =
      0;  // the first match checks the whole subject; checking the rest each time would be quadratic
  while (at <= subject.size()) {
    const int result =
        ::pcre2_match(code_.get(), units(subject), subject.size(), at, options | checked, data.get(), context_.get());
    checked = PCRE2_NO_UTF_CHECK;
    if (result == PCRE2_ERROR_NOMATCH) {
      if (options == 0) break;
      // After an empty match, nothing else began here: one character on.
      options = 0;
      ++at;
      while (at < subject.size() && (static_cast<unsigned char>(subject[at]) & 0xc0) == 0x80) ++at;
      continue;
    }
    if (result < 0) throw std::runtime_error("the match failed: " + message(result));
    const std::size_t* offsets = ::pcre2_get_ovector_pointer(data.get());
    auto group = [&](std::uint32_t i) -> std::optional<std::string> {
      if (offsets[2 * i] == PCRE2_UNSET) return std::nullopt;
      return std::string(subject.substr(offsets[2 * i], offsets[2 * i + 1] - offsets[2 * i]));
    };
    if (offsets[0] > offsets[1]) throw std::runtime_error("\\K in a lookahead sets the start after the end");
    match one;
    one.start = offsets[0];
    one.end = offsets[1];
    one.text = *group(0);
    for (std::uint32_t i = 1; i <= group_count; ++i) one.groups.push_back(group(i));
    for (std::uint32_t i = 0; i < name_count; ++i) {
      const PCRE2_SPTR entry = names + std::size_t{i} * entry_size;  // two bytes of number, then the name
      auto& named = one.named[reinterpret_cast<const char*>(entry + 2)];
      // (?J) gives a name to several groups: the one that matched counts.
      if (!named) named = group(static_cast<std::uint32_t>(entry[0] << 8 | entry[1]));
    }
    at = one.end;
    options = one.start == one.end ? PCRE2_NOTEMPTY_ATSTART | PCRE2_ANCHORED : 0;
    if (!take(std::move(one))) return;
  }
}

std::vector<match> pattern::search(std::string_view subject, std::size_t limit) const {
  std::vector<match> found;
  if (limit == 0) return found;
  each(subject, [&](match one) {
    found.push_back(std::move(one));
    return found.size() < limit;
  });
  return found;
}

std::string pattern::replace(std::string_view subject, std::string_view replacement) const {
  std::string out(subject.size() + 256, '\0');
  constexpr std::uint32_t options =
      PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_EXTENDED | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH;
  for (;;) {
    std::size_t size = out.size();
    const int result =
        ::pcre2_substitute(code_.get(), units(subject), subject.size(), 0, options, nullptr, context_.get(),
                           units(replacement), replacement.size(), reinterpret_cast<PCRE2_UCHAR*>(out.data()), &size);
    if (result == PCRE2_ERROR_NOMEMORY && size > out.size()) {
      out.resize(size);
      continue;
    }
    if (result < 0) throw std::runtime_error("the replacement failed: " + message(result));
    out.resize(size);
    return out;
  }
}

std::vector<std::string> pattern::split(std::string_view subject, std::size_t limit) const {
  std::vector<std::string> parts;
  std::size_t from = 0;
  if (limit > 0)
    each(subject, [&](const match& separator) {
      // An empty match splits between two characters, not beside a separator or an end of the text; as in Perl.
      const bool empty = separator.start == separator.end;
      if (empty && (separator.start == from || separator.start == subject.size())) return true;
      parts.emplace_back(subject.substr(from, separator.start - from));
      from = separator.end;
      return parts.size() < limit;
    });
  parts.emplace_back(subject.substr(from));
  return parts;
}

}  // namespace text
