// A layer that a worker puts up by itself: one mechanism of the kernel, in a file of its own. The fork server makes it for
// a policy, once, and finds out what it can do on this machine; each worker then has it applied by trusted code before its
// plugin is loaded, where a failure is the end of the worker: nothing that was reported in force is ever left out. Those
// that others put up for it - namespaces, root, pid, channel, cgroup - have but a status.
#pragma once

#include <bulkhead/policy.hpp>

namespace bulkhead::sandbox {

class layer {
 public:
  virtual ~layer() = default;
  virtual const char* name() const = 0;
  // Whether it is in force for workers of this policy, and what it enforces; or else why not and what would help.
  virtual sandbox_layer status() const = 0;
  // In the worker, in the order of birth. Throws std::system_error naming what failed.
  virtual void apply() = 0;
};

}  // namespace bulkhead::sandbox
