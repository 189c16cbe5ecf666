// The host's reading of what the stack recorder left in a black box: every field of it may have been written by a
// hostile plugin, so it is checked here and is plain values afterwards.
#pragma once

#include "report/black_box.hpp"
#include <bulkhead/error.hpp>

#include <vector>

namespace bulkhead {

struct recorded_stack {
  std::vector<stack_frame> frames;
  std::uint64_t omitted = 0;
  std::uint64_t instruction_pointer = 0, stack_pointer = 0;
};

// `box` is a copy that nobody else can write to. Modules that are the plugin's or the worker program's have no name yet.
recorded_stack read_stack(const black_box& box);

}  // namespace bulkhead
