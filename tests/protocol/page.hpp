// The test vectors as docs/protocol.md has them: the page that authors of workers read is what the tests read.
#pragma once

#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace bulkhead::testing {

using bytes_t = std::vector<std::uint8_t>;

inline bytes_t from_hex(const std::string& text) {
  bytes_t out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    out.push_back(static_cast<std::uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return out;
}

// The lines `name: hex  # meaning` of the fenced block called `block`.
inline std::map<std::string, bytes_t> vectors(const std::string& block) {
  std::ifstream page(BULKHEAD_PROTOCOL_PAGE);
  std::map<std::string, bytes_t> found;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("```")) inside = line == "```" + block;
    const auto colon = line.find(": ");
    if (!inside || line.starts_with('#') || colon == std::string::npos) continue;
    const auto end = line.find(' ', colon + 2);
    found[line.substr(0, colon)] = from_hex(line.substr(colon + 2, end - colon - 2));
  }
  if (found.empty()) throw std::runtime_error("docs/protocol.md has no block " + block);
  return found;
}

inline bytes_t vector_named(const std::string& name) {
  const auto all = vectors("vectors");
  const auto found = all.find(name);
  if (found == all.end()) throw std::runtime_error("docs/protocol.md has no vector " + name);
  return found->second;
}

}  // namespace bulkhead::testing
