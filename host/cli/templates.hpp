// The files that `bulkhead new` writes, as they lie in templates/: part of the program, so that it needs no folder of its
// own.
#pragma once

#include <span>
#include <string_view>

namespace bulkhead::cli {

struct template_file {
  std::string_view kind;  // c++, c, rust, or common to all
  std::string_view path;  // below the new folder
  std::string_view text;
  // In path and text, @NAME@ stands for the plugin's name, and @PACKAGES@ for the Debian packages that building it takes.
};
extern const std::span<const template_file> template_files;

}  // namespace bulkhead::cli
