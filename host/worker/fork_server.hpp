// The fork server: small, single-threaded, does nothing but clone workers that become the host's children.
#pragma once

namespace bulkhead {

// Serves requests on `control` until the host is gone, then kills the workers that are left. Returns the exit status
// of the fork server; in a cloned worker it does not return. `network`: its workers share the host's network, as far as
// their policy allows. `user`: whom they run as when the host is root.
int serve_fork_requests(int control, bool network, unsigned user);

}  // namespace bulkhead
