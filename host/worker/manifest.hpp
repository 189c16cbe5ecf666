// Reads a plugin's manifest from its ELF section without running any of its code. The file is hostile: it is read with
// pread() only, every offset is checked, and sizes are capped. Meant to run inside a worker.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace bulkhead {

struct manifest {
  std::string id, version, name, license, description;
  unsigned abi = 0;
  bool thread_safe = false;
  std::vector<std::string> requests;
};

// The file is no plugin, or not one for this worker, and will not become one by trying again. The text says why.
class not_a_plugin : public std::runtime_error {
 public:
  explicit not_a_plugin(const std::string& why) : runtime_error("not a bulkhead plugin: " + why) {}
};

// Throws not_a_plugin.
manifest read_manifest(int fd);

}  // namespace bulkhead
