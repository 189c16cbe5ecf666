// Resource limits by setrlimit: address space, CPU time, descriptors, file sizes, threads, no core dumps.
#pragma once

#include "sandbox/layer.hpp"

#include <string_view>

namespace bulkhead::sandbox {

// In the layer's detail, where nothing here keeps a plugin with children from making ever more.
inline constexpr std::string_view threads_not_counted = "threads not counted";

class limits final : public layer {
 public:
  // `own_user_namespace`: threads can be counted for each worker, not just for all of the user together.
  limits(const policy::values& granted, bool own_user_namespace);
  const char* name() const override { return "limits"; }
  sandbox_layer status() const override { return status_; }
  void apply() override;

 private:
  const policy::values granted_;
  const bool count_threads_;
  sandbox_layer status_;
};

}  // namespace bulkhead::sandbox
