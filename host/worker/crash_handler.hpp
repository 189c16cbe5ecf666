// Records why a worker dies, in its black box, from a signal handler on a stack of its own or from std::terminate.
#pragma once

#include "report/black_box.hpp"

namespace bulkhead {

// Installs the handlers. `box` must stay mapped; `memory_limited`: whether running out of memory is a likely cause.
void install_crash_handlers(black_box& box, bool memory_limited);

}  // namespace bulkhead
