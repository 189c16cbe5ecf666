// Names for the frames of a crash report, found by a worker that runs host/symbolizer under the strict policy.
#pragma once

#include "host_core.hpp"

namespace bulkhead {

// Leaves the stack as it is where nothing can be found, for whatever reason. Blocks, for 10 s at most.
void symbolize(const std::shared_ptr<host_core>& core, crash_report& report);

}  // namespace bulkhead
