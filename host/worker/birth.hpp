// The child's side of the fork server's clone: steps 2 and 3 of a worker's birth (see docs/security.md), then the bootstrap
// or the foreign program.
#pragma once

#include "fork_requests.hpp"
#include "sandbox/sandbox.hpp"

namespace bulkhead::fork_server {

// `supervisor`: the socket for the filter's listener.
[[noreturn]] void become_worker(incoming& in, sandbox::prepared& prepared, int supervisor);

}  // namespace bulkhead::fork_server
