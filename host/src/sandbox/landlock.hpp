// Landlock: files by path, TCP by port, signals and abstract sockets, as far as the kernel's version of it goes. The
// rule set is made once for a policy in the fork server and binds each worker from before its plugin is loaded.
#pragma once

#include "sandbox/layer.hpp"
#include <bulkhead/ipc/system.hpp>

namespace bulkhead::sandbox {

class landlock final : public layer {
 public:
  // To be made inside the mount namespace that the worker will see. The plugin's file is `library` there, or, if that is
  // empty, the one open as `library_fd` (-1: none).
  landlock(const policy::values& granted, const std::string& library, int library_fd);

  const char* name() const override { return "landlock"; }
  sandbox_layer status() const override { return status_; }
  void apply() override;
  void move_descriptor(int lowest);

  bool confines_files() const { return status_.in_force; }
  bool confines_truncation() const { return status_.in_force && abi_ >= 3; }
  bool confines_tcp() const { return status_.in_force && abi_ >= 4; }
  bool confines_signals() const { return status_.in_force && abi_ >= 6; }
  bool complete() const { return confines_signals(); }  // with all of its parts

  // Its version on this kernel; 0: none.
  static int kernel_abi();

 private:
  sandbox_layer status_;
  int abi_ = 0;
  unique_fd rules_;
};

}  // namespace bulkhead::sandbox
