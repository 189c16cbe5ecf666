// What every worker sees of the file system: the places that the dynamic loader looks in, and four devices.
#pragma once

#include <string>
#include <vector>

namespace bulkhead::sandbox {

// Those of them that exist here.
inline const std::vector<std::string>& library_roots() {
  static const std::vector<std::string> roots = {"/lib",       "/lib64",         "/usr/lib",
                                                 "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"};
  return roots;
}

inline constexpr const char* harmless_devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom",
                                                   "/dev/random"};

}  // namespace bulkhead::sandbox
