// A layer of the sandbox: one mechanism of the kernel, in a file of its own. The fork server asks each what it can do
// on this machine for a policy (`prepare`), once; each worker then has it applied by trusted code before its plugin is
// loaded (`apply`), where a failure is the end of the worker: nothing that was reported in force is ever left out.
#pragma once

#include <bulkhead/policy.hpp>

#include <memory>
#include <string>

namespace bulkhead::sandbox {

// What makes one worker's sandbox different from that of another with the same policy.
struct worker_facts {
  bool pid_namespace = false;  // then its pid is 1
  bool sealed_library = false;
};

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
