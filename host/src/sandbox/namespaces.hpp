// The fork server's namespaces: entered once, shared by all its workers. A user namespace (for an unprivileged host it
// gives the right to make the others; a host that is root becomes nobody first), an empty network, ipc, uts, cgroup, and
// a mount namespace of its own from which roots are made (see root.hpp). What can't be had is recorded, not fatal.
#pragma once

#include <bulkhead/ipc/system.hpp>
#include <bulkhead/policy.hpp>

namespace bulkhead::sandbox {

class namespaces {
 public:
  struct options {
    bool network = true;         // a network namespace; without, workers may be granted TCP
    uid_t unprivileged = 65534;  // whom a root host's workers run as outside
  };
  // Enters them. Single-threaded processes only. Never throws: `why` says what is missing.
  explicit namespaces(const options& wanted);
  // Enters none: for a worker that nobody's fork server has made.
  namespaces() : why_("not started by a fork server") {}

  bool user() const { return user_; }
  bool mount() const { return static_cast<bool>(view_); }
  bool net() const { return net_; }
  bool pid() const { return pid_; }
  bool runs_as_root() const { return runs_as_root_; }
  // Whether all are in force that a worker with this policy may have, but for the user's, whose place another user may take,
  // and for those that are layers of their own.
  bool complete(const policy::values& granted) const {
    return (net_ || granted.needs_network()) && ipc_ && uts_ && cgroup_;
  }
  // As it was for the host: the mount namespace in which foreign programs run and roots are put together.
  int host_view() const { return view_.get(); }

  // For the report of a worker with this policy.
  sandbox_layer status(const policy::values& granted) const;
  sandbox_layer pid_status(const policy::values& granted) const;
  const std::string& why() const { return why_; }

 private:
  void become(uid_t user);
  void enter_user();
  void note(const std::string& what);

  bool user_ = false, net_ = false, ipc_ = false, uts_ = false, cgroup_ = false, pid_ = false, runs_as_root_ = false;
  unique_fd view_;
  std::string why_;
};

}  // namespace bulkhead::sandbox
