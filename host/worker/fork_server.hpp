// The fork server: small, single-threaded, does nothing but clone workers that become the host's children.
#pragma once

namespace bulkhead {

// Serves requests on `control` until the host is gone, then kills the workers that are left. Returns the exit status
// of the fork server; in a cloned worker it does not return.
int serve_fork_requests(int control);

}  // namespace bulkhead
