// Descriptors that go between the host and the attack plugin, made anew for each attempt, and what became of them.
#pragma once

#include "plugin/shared.h"
#include <bulkhead/host.hpp>

#include <array>
#include <string>

namespace bulkhead::testing {

class passed {
 public:
  // Passes them all to the plugin; or, `returned`, has it make memory and return it. Without `seal`, memory is left
  // unsealed, which the suite has to notice.
  passed(const plugin& attacker, const std::string& directory, bool returned, bool seal);
  ~passed();
  passed(const passed&) = delete;

  // What of the memory is not as it was made, or nothing.
  std::string damage() const;

 private:
  void make_memory(escape_kind kind, int seals, bool seal);

  std::array<unique_fd, escape_kinds> all_;
  std::uint8_t* mapped_ = nullptr;  // of escape_mapped, to write to
};

}  // namespace bulkhead::testing
