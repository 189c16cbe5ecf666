// What a shared library says of itself to the linker: which symbols it exports and lacks, which libraries it needs.
#pragma once

#include <string>
#include <vector>

namespace symbolizer {

struct facts {
  std::vector<std::string> exported;    // strong symbols; weak ones are the C++ runtime's templates
  std::vector<std::string> unresolved;  // found in none of the libraries it needs
  std::vector<std::string> needed;      // libraries
  std::vector<std::string> missing;     // of those: that can't be loaded, each with the reason
  std::string run_path;
  bool executable_stack = false, text_relocations = false;
};

// Throws std::runtime_error. Loads the libraries that the file needs, not the file.
facts facts_of(int descriptor);

}  // namespace symbolizer
