// The process server: starts programs for a host, so that a large multi-threaded host never forks, and kills them when the
// host goes away. Small and single-threaded. One without namespaces serves plain children, others those with a policy:
// once in namespaces, a process can give its children no other view of the machine.
#pragma once

namespace bulkhead {

enum class process_server_kind { plain = 0, isolated = 1, networked = 2 };

// Serves requests (process/protocol.hpp) on `control` until the host closes it. `detached`: its children live on then, and
// what they leave behind is not its own; else all that they have ever started is killed. `user`: whom sandboxed children
// run as when the host is root. Returns the exit status.
int serve_process_requests(int control, process_server_kind kind, bool detached, unsigned user);

}  // namespace bulkhead
