// Seccomp: which system calls a worker may make, by number and by argument. The program is built once for a policy, in
// the fork server, and loaded by each worker. Denied calls raise SIGSYS, whose handler reports them and makes them fail
// (see violation_trap.hpp). Where no handler can be - in programs that the plugin starts, and where the C library makes
// threads and children with all signals blocked - the fork server is asked, which reports them and makes them fail (see
// denied_calls.hpp); if that can't be either, they fail unreported.
#pragma once

#include "sandbox/layer.hpp"
#include <bulkhead/ipc/system.hpp>

#include <set>
#include <string>
#include <vector>

#include <linux/filter.h>

namespace bulkhead::sandbox {

class seccomp_filter final : public layer {
 public:
  // `pid_namespace`: whether the worker is pid 1 of its own, and may therefore signal no pid but 1. `own_root`: whether
  // it sees only what is granted. If not, it may not change modes and times of files, which Landlock does not look after,
  // nor truncate any without having opened it for writing, unless `truncation` says that Landlock looks after that.
  // `supervised`: whether there is a fork server to be asked.
  seccomp_filter(const policy::values& granted, bool pid_namespace, bool own_root, bool truncation, bool supervised);

  const char* name() const override { return "seccomp"; }
  sandbox_layer status() const override { return status_; }
  void apply() override { load(); }
  // As apply(). What the fork server is asked through, which must leave this process before the plugin is loaded: whoever
  // has it decides. None when it is not asked.
  unique_fd load();
  // Whether SIGSYS needs its handler.
  bool traps() const { return traps_; }
  // Whether it lets a system call pass, if only with some arguments.
  bool allows(const std::string& call) const { return allowed_.contains(call); }
  // Whether load() gives a listener.
  bool listens() const { return listens_; }

  // Whether the kernel has it, and this process may use it.
  static bool available();

 private:
  sandbox_layer status_;
  bool traps_ = false, listens_ = false;
  std::set<std::string> allowed_;
  std::vector<sock_filter> program_;
};

}  // namespace bulkhead::sandbox
