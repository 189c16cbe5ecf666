// Records why a worker dies, in its black box, from a signal handler on a stack of its own or from std::terminate.
#pragma once

#include "report/black_box.hpp"

#include <memory>

namespace bulkhead {

// Installs the handlers. `box` must stay mapped; `memory_limited`: whether running out of memory is a likely cause.
void install_crash_handlers(black_box& box, bool memory_limited);

// The handlers' own stack, for a thread other than the one that installed them.
class crash_stack {
 public:
  crash_stack();
  ~crash_stack();
  crash_stack(const crash_stack&) = delete;

 private:
  std::unique_ptr<char[]> memory_;
};

// Which method this thread runs, and for which call; null: none. The text must stay.
void note_method(const char* name, std::uint32_t call);

}  // namespace bulkhead
