// Reads a plugin's manifest from its ELF section without running any of its code. The file is hostile: it is read with
// pread() only, every offset is checked, and sizes are capped. Meant to run inside a worker.
#pragma once

#include <string>
#include <vector>

namespace bulkhead {

struct manifest {
  std::string id, version, name, license, description;
  unsigned abi = 0;
  std::vector<std::string> requests;
};

// Throws std::runtime_error saying what is wrong with the file.
manifest read_manifest(int fd);

}  // namespace bulkhead
