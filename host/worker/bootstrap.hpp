// From a process that has its descriptors to a worker that serves: the second half of a worker's birth. The first half
// (clone, descriptors, limits) is the fork server's, or that of whoever started `bulkhead-worker PLUGIN` by exec.
#pragma once

#include "report/black_box.hpp"

#include <functional>
#include <string>

namespace bulkhead {

// What a fork server has prepared for a worker.
struct worker_sandbox {
  std::string library;                   // the plugin's file as the worker sees it; empty: by its descriptor
  bool memory_limited = false;           // whether running out of memory is a likely end
  bool may_send_handles = false;         // the host takes descriptors from it
  std::function<void(black_box&)> seal;  // puts up what is left of the sandbox; throws
};

// Reads the channel from the environment (BULKHEAD_CHANNEL_FD, BULKHEAD_PROTOCOL; and BULKHEAD_PLUGIN_FD,
// BULKHEAD_BLACK_BOX_FD when the fork server set them) and runs the worker to its end. `path` is the plugin's file
// when no descriptor was passed. Returns the exit status; does not return for a worker that was told to leave.
int run_worker(const std::string& path, const worker_sandbox& sandbox);

// The same for a worker whose parent is not a fork server: it puts up what it can by itself, which is all but namespaces.
int run_worker_alone(const std::string& path);

}  // namespace bulkhead
