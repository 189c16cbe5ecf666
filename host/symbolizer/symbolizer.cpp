// A plugin of the host's own: names for the frames of a crashed worker's stack, and what a library says to the linker, for
// `bulkhead check`. Each report gets a worker of its own, under the strict policy, so that a file which takes the reader
// over has nothing to gain by it.
#include "facts.hpp"
#include "names.hpp"
#include <bulkhead/sdk.hpp>

#include <array>
#include <tuple>

#include <fcntl.h>

BULKHEAD_MANIFEST(description, "description=Names for the frames of a crashed worker's stack");

namespace {

using named = std::vector<std::tuple<std::string, std::string, int>>;  // function, source, line

std::vector<named> names(int descriptor, const std::string& build_id, const std::vector<std::uint64_t>& offsets) {
  const symbolizer::file file(descriptor, build_id);
  std::vector<named> all;
  for (const std::uint64_t offset : offsets) {
    named& found = all.emplace_back();
    for (auto& each : file.at(offset)) found.emplace_back(std::move(each.function), std::move(each.source), each.line);
  }
  return all;
}

struct packed_facts {
  symbolizer::facts of;
  template <class Packer>
  void msgpack_pack(Packer& packer) const {
    packer.pack_map(7).pack("exported").pack(of.exported).pack("unresolved").pack(of.unresolved);
    packer.pack("needed").pack(of.needed).pack("missing").pack(of.missing).pack("run_path").pack(of.run_path);
    packer.pack("executable_stack").pack(of.executable_stack).pack("text_relocations").pack(of.text_relocations);
  }
};

}  // namespace

BULKHEAD_PLUGIN("bulkhead-symbolizer", "1.0.0") {
  plugin.method("names",
                [](bulkhead::handle file, const std::string& build_id, const std::vector<std::uint64_t>& offsets) {
                  return names(file.release(), build_id, offsets);
                },
                "For each offset what was running there, the innermost function first",
                {"file", "build_id", "offsets"});
  plugin.method("names_in_library",
                [](const std::string& path, const std::string& build_id, const std::vector<std::uint64_t>& offsets) {
                  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
                  if (file < 0) throw bulkhead::error("there is no " + path);
                  return names(file, build_id, offsets);
                },
                "The same of a system library, as the sandbox has it", {"path", "build_id", "offsets"});
  plugin.method("facts", [](const bulkhead::handle& file) { return packed_facts{symbolizer::facts_of(file.fd())}; },
                "What a shared library exports, needs and lacks", {"file"});
}
