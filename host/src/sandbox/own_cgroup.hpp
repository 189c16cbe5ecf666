// Where this process is in the cgroup hierarchies, and how much CPU time it gets there.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bulkhead::sandbox {

// A mount of a hierarchy. It may show a part of it only, as in a container: what is below `root`.
struct cgroup_mount {
  std::filesystem::path root, point;
  std::string options;

  // Of the cgroup of this name.
  std::filesystem::path directory(const std::string& name) const;
};

// Those of a type of file system: "cgroup" (version 1) or "cgroup2". `files`: where the machine's files are.
std::vector<cgroup_mount> cgroup_mounts(const std::string& type, const std::filesystem::path& files = "/");
// Whether it is one of version 1 with this controller.
bool has_controller(const cgroup_mount& mount, const std::string& controller);
// This process's cgroup in the hierarchy of `controller` (version 2: "").
std::string own_cgroup(const std::string& controller, const std::filesystem::path& files = "/");

// How many CPUs' time per second this process and the others of its cgroup may spend (cpu.max, or cpu.cfs_quota_us in
// version 1), the limits of the cgroups above it included as far as they can be seen. Nothing: no limit.
std::optional<double> cpu_quota(const std::filesystem::path& files = "/");

// A file's contents; empty where it can't be read.
std::string contents(const std::filesystem::path& file);
bool has_word(const std::string& text, const std::string& word);

}  // namespace bulkhead::sandbox
