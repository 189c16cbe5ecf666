// The names that a file's symbols and debug information give to addresses in it, by elfutils.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace symbolizer {

// A function that was running; several for one address where functions were inlined, the innermost first.
struct place {
  std::string function;  // demangled; empty: not known
  std::string source;
  int line = 0;
};

class file {
 public:
  // Takes the descriptor. `build_id`, in hexadecimal digits, must be the file's if both have one. Throws
  // std::runtime_error.
  file(int descriptor, const std::string& build_id);
  ~file();
  file(const file&) = delete;

  // `offset` as the file counts. Empty when nothing is known.
  std::vector<place> at(std::uint64_t offset) const;

 private:
  struct module;
  std::unique_ptr<module> module_;
};

}  // namespace symbolizer
