// No capabilities, none to be had by exec, no new privileges, not dumpable: what a worker's user may do is the most it
// can ever do.
#pragma once

#include "sandbox/layer.hpp"

namespace bulkhead::sandbox {

class privileges final : public layer {
 public:
  // `runs_as_root`: the worker's user is root outside too, since it could not be changed.
  privileges(const policy::values& granted, bool runs_as_root);
  const char* name() const override { return "privileges"; }
  sandbox_layer status() const override { return status_; }
  void apply() override;

 private:
  const bool learns_;
  sandbox_layer status_;
};

}  // namespace bulkhead::sandbox
