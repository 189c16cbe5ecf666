// A minimal root: a small tmpfs with the library roots, the granted paths and the plugin's own file in it, each read-only
// unless granted otherwise, in a mount namespace that workers join. There is no /proc in it, and no way back.
#pragma once

#include "sandbox/namespaces.hpp"

#include <string>

namespace bulkhead::sandbox {

// Where the plugin's file is in every such root.
inline constexpr const char* library_in_root = "/plugin.so";

// Builds one; `library` (or -1) is copied into it. Returns its mount namespace; the caller is inside it afterwards.
// `left_out` says which grants are not in it (see granted_paths.hpp).
// Throws std::system_error naming what failed; the caller may then be in a half-built one, and has to leave it.
unique_fd build_root(const namespaces& spaces, const policy::values& granted, int library, std::string& left_out);

// Into the mount namespace of a root, or the host's view.
void enter_mounts(int mount_namespace);

// For a worker that was granted it: a tmpfs of its own on /tmp.
void make_private_tmp();

}  // namespace bulkhead::sandbox
