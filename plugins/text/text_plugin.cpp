// The plugin `text`: search, replace and split with Perl-compatible regular expressions.
#include "pattern.hpp"
#include <bulkhead/sdk.hpp>

#include <limits>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Search, replace and split with PCRE2");

namespace {

struct packed_match {
  text::match found;
  template <class Packer>
  void msgpack_pack(Packer& packer) const {
    packer.pack_map(5).pack("start").pack(found.start).pack("end").pack(found.end).pack("text").pack(found.text);
    packer.pack("groups").pack(found.groups).pack("named").pack(found.named);
  }
};

std::size_t limit_of(const std::optional<std::uint64_t>& limit) {
  return limit.value_or(std::numeric_limits<std::uint64_t>::max());
}

}  // namespace

BULKHEAD_PLUGIN("text", "1.0.0") {
  using std::string_view;
  using optional_text = std::optional<std::string>;
  using optional_limit = std::optional<std::uint64_t>;

  plugin
      .method("search",
              [](string_view subject, string_view pattern, optional_text flags, optional_limit limit) {
                std::vector<packed_match> found;
                for (auto& match : text::pattern(pattern, flags.value_or("")).search(subject, limit_of(limit)))
                  found.push_back({std::move(match)});
                return found;
              },
              "All matches: {start, end, text, groups, named}, offsets in bytes", {"text", "pattern", "flags", "limit"})
      .idempotent();
  plugin
      .method("matches",
              [](string_view subject, string_view pattern, optional_text flags, bulkhead::writer<packed_match> found) {
                text::pattern(pattern, flags.value_or("")).each(subject, [&](text::match match) {
                  found.send({std::move(match)});
                  return true;
                });
              },
              "As search, but each match is sent as soon as it is found", {"text", "pattern", "flags"})
      .idempotent();
  plugin
      .method("replace",
              [](string_view subject, string_view pattern, string_view replacement, optional_text flags) {
                return text::pattern(pattern, flags.value_or("")).replace(subject, replacement);
              },
              "The text with every match replaced; $1 and ${name} refer to groups",
              {"text", "pattern", "replacement", "flags"})
      .idempotent();
  plugin
      .method("split",
              [](string_view subject, string_view pattern, optional_limit limit) {
                return text::pattern(pattern, "").split(subject, limit_of(limit));
              },
              "The parts between matches", {"text", "pattern", "limit"})
      .idempotent();
}
