// Cgroups for workers: memory and swap, processes and CPU time per second of a worker and all that it started. The host
// makes them, since workers' users may not; version 2 where the host's own cgroup is delegated to it (or another is
// named in host_options::cgroup), version 1 where that is what there is.
#pragma once

#include <bulkhead/ipc/system.hpp>
#include <bulkhead/policy.hpp>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace bulkhead::sandbox {

// One worker's. Removed when it is destroyed, which is after the worker has ended: who is still in there, it has started,
// and is killed.
class cgroup {
 public:
  cgroup(bool unified, std::map<std::string, std::filesystem::path> directories);
  ~cgroup();
  cgroup(const cgroup&) = delete;
  cgroup& operator=(const cgroup&) = delete;

  // False: the kernel does not count swap (none in it, or swapaccount=0), so only memory is limited. Throws
  // std::system_error.
  bool limit(const policy::values& granted);
  void add(pid_t pid) const;
  // Kills whoever is in there.
  void kill_all() const;
  // A process that writes "0" to each of these has joined, whoever it is: the right to was this process's.
  std::vector<unique_fd> doors() const;
  // Whether the kernel has killed a process for want of memory.
  bool ran_out_of_memory() const;

 private:
  void remove() noexcept;
  void end_members(const std::filesystem::path& directory) const;

  const bool unified_;                                              // version 2
  const std::map<std::string, std::filesystem::path> directories_;  // by controller; version 2: one, under ""
};

// Where the host can make them. Thread-safe.
class cgroup_maker {
 public:
  explicit cgroup_maker(std::filesystem::path delegated) : delegated_(std::move(delegated)) {}

  // Whether the policy asks for what only a cgroup can hold it to.
  static bool wanted(const policy::values& granted) { return granted.counted_memory || granted.milli_cpus > 0; }
  // The same of workers for which this is all else that stands: children have to be counted, and to end with the worker.
  static bool wanted(const policy::values& granted, const sandbox_report& rest);
  // The layer as it would be. Makes one and removes it, once.
  sandbox_layer examine(const policy::values& granted);
  // A cgroup with the limits of the policy; nothing, with the reason in `layer`, where none can be had.
  std::unique_ptr<cgroup> make(const policy::values& granted, sandbox_layer& layer);

 private:
  void find();
  void find_bases();
  void remove_left_behind() const;
  void find_unified(const std::filesystem::path& base);
  void find_legacy();

  const std::filesystem::path delegated_;
  std::mutex mutex_;
  bool found_ = false, unified_ = false;
  std::map<std::string, std::filesystem::path> bases_;  // by controller, as in cgroup
  std::string why_not_;
  std::uint64_t next_ = 0;
};

// Of version 2, a cgroup with processes in it can't have children with controllers (cgroups(7), "no internal processes").
// A process that is alone in its own, delegated cgroup therefore moves into a leaf of it, `host`: before it starts
// others. Returns the cgroup that is free now; empty: nothing was changed. `files`: where the machine's files are.
std::filesystem::path vacate_own_cgroup(const std::filesystem::path& files = "/");

}  // namespace bulkhead::sandbox
