// Seccomp: which system calls a worker may make, by number and by argument. The program is built once for a policy, in
// the fork server, and loaded by each worker. Denied calls raise SIGSYS, whose handler reports them and makes them fail
// (see violation_trap.hpp); where no handler can be, they fail with EPERM at once.
#pragma once

#include "sandbox/layer.hpp"

#include <vector>

#include <linux/filter.h>

namespace bulkhead::sandbox {

class seccomp_filter final : public layer {
 public:
  // `pid_namespace`: whether the worker is pid 1 of its own, and may therefore signal no pid but 1. `own_root`: whether
  // it sees only what is granted. If not, it may not change modes and times of files, which Landlock does not look after.
  seccomp_filter(const policy::values& granted, bool pid_namespace, bool own_root);

  const char* name() const override { return "seccomp"; }
  sandbox_layer status() const override { return status_; }
  void apply() override;

  // Whether the kernel has it, and this process may use it.
  static bool available();

 private:
  sandbox_layer status_;
  std::vector<sock_filter> program_;
};

}  // namespace bulkhead::sandbox
