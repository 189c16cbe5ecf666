// The plugin text over a whole document, one of this project's own: what it finds is counted in another way as well.
#include "fixture.hpp"

#include <map>

namespace bulkhead::testing::documents {
namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct match {
  std::size_t start = 0, end = 0;
  std::string text;
  std::map<std::string, std::string> named;
  MSGPACK_DEFINE_MAP(start, end, text, named)
  bool operator==(const match&) const = default;
};

// Where `$/name` stands in backquotes, without any pattern.
std::vector<match> names_in_backquotes(const std::string& document) {
  std::vector<match> found;
  const std::string opening = "`$/";
  for (std::size_t at = document.find(opening); at != std::string::npos; at = document.find(opening, at + 1)) {
    std::size_t end = at + opening.size();
    while (document[end] == '_' || std::islower(static_cast<unsigned char>(document[end]))) ++end;
    if (document[end] != '`' || end == at + opening.size()) continue;
    const std::string name = document.substr(at + opening.size(), end - at - opening.size());
    found.push_back({at, end + 1, document.substr(at, end + 1 - at), {{"name", name}}});
  }
  return found;
}

}  // namespace

TEST_CASE("text searches, replaces and splits a whole document as another way of counting does") {
  const std::string document = read(BULKHEAD_DOCUMENT);
  REQUIRE(document.size() > 10'000);
  host host;
  auto text = host.load(plugin_path("text"));

  const auto expected = names_in_backquotes(document);
  REQUIRE(expected.size() > 20);
  CHECK(text.call<std::vector<match>>("search", document, "`\\$/(?<name>[a-z_]+)`") == expected);

  std::string swapped = document;
  std::size_t swaps = 0;
  for (std::size_t at = 0; (at = swapped.find("MessagePack", at)) != std::string::npos; ++swaps)
    swapped.replace(at, 11, "Pack-Message");
  REQUIRE(swaps > 5);
  CHECK(text.call<std::string>("replace", document, "(Message)(?<what>Pack)", "${what}-$1") == swapped);

  const auto lines = text.call<std::vector<std::string>>("split", document, "\n");
  CHECK(lines.size() == static_cast<std::size_t>(std::count(document.begin(), document.end(), '\n')) + 1);
  std::string joined;
  for (const std::string& line : lines) joined += (&line == &lines.front() ? "" : "\n") + line;
  CHECK(joined == document);
}

}  // namespace bulkhead::testing::documents
