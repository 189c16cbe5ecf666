// A machine's files as Linux has them, gone with this object.
#pragma once

#include "../scratch_folder.hpp"

#include <fstream>
#include <sstream>
#include <string>

namespace bulkhead::testing {

struct machine {
  const scratch_folder folder;
  const std::filesystem::path& root = folder.path;

  void put(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  }
  std::string get(const std::string& file) const {
    std::ostringstream text;
    text << std::ifstream(root / file).rdbuf();
    return text.str();
  }
};

inline const std::string mount_of_proc = "22 1 0:20 / /proc rw,nosuid - proc proc rw\n";

}  // namespace bulkhead::testing
