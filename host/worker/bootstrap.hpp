// From a process that has its descriptors to a worker that serves: the second half of a worker's birth. The first half
// (clone, descriptors, limits) is the fork server's, or that of whoever started `bulkhead-worker PLUGIN` by exec.
#pragma once

#include <string>

namespace bulkhead {

// Reads the channel from the environment (BULKHEAD_CHANNEL_FD, BULKHEAD_PROTOCOL; and BULKHEAD_PLUGIN_FD,
// BULKHEAD_BLACK_BOX_FD when the fork server set them) and runs the worker to its end. `path` is the plugin's file
// when no descriptor was passed. Returns the exit status; does not return for a worker that was told to leave.
int run_worker(const std::string& path, bool memory_limited);

}  // namespace bulkhead
