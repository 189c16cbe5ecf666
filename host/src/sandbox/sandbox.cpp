// See sandbox.hpp.
#include "sandbox/sandbox.hpp"

#include "sandbox/inventory.hpp"
#include "sandbox/root.hpp"
#include "sandbox/violation_trap.hpp"
#include <bulkhead/ipc/attachment.hpp>

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

namespace bulkhead::sandbox {

namespace {

void send_descriptor(int socket, int fd) {
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  attachment<1> attached;
  attached.add_to(message, {&fd, 1});
  checked(::sendmsg(socket, &message, MSG_NOSIGNAL), "sendmsg(the filter's listener)");
}

}  // namespace

prepared::prepared(const namespaces& spaces, const policy& wanted, int library, bool supervised)
    : granted_(wanted.granted()),
      namespaces_complete_(spaces.complete(granted_)),
      own_user_namespace_(spaces.user()),
      namespaces_(spaces.status(granted_)),
      pid_(spaces.pid_status(granted_)),
      limits_(granted_, own_user_namespace_),
      privileges_(granted_, spaces.runs_as_root()) {
  root_status_.name = "root";
  if (granted_.without.contains("root") || granted_.learn) {
    root_status_.detail = granted_.learn ? "left out while learning" : "left out by the policy";
  } else if (granted_.all_files) {
    root_status_.detail = "the host's own files, as granted";
  } else if (!spaces.mount()) {
    root_status_.detail = "no root of its own: " + spaces.why();
  } else {
    try {
      std::string left_out;
      root_ = build_root(spaces, granted_, library, left_out);
      if (library >= 0) library_ = library_in_root;
      root_status_.in_force = true;
      root_status_.detail = "a read-only root with libraries and what is granted" + left_out;
    } catch (const std::system_error& e) {
      root_status_.detail = std::string("no root of its own: ") + e.what();
      library_.clear();
    }
  }
  // Rules name files as the worker will see them.
  if (!root_ && spaces.mount()) {
    enter_mounts(spaces.host_view());
    root_.reset(::fcntl(spaces.host_view(), F_DUPFD_CLOEXEC, 10));
  }
  policy::values to_be_had = granted_;
  if (granted_.private_tmp && !root_status_.in_force && !granted_.learn) {
    to_be_had.private_tmp = false;  // /tmp is the machine's there
    root_status_.detail += "; so no /tmp of its own";
  }
  landlock_.emplace(to_be_had, library_, library);
  seccomp_.emplace(granted_, pid_.in_force, root_status_.in_force, landlock_->confines_truncation(), supervised);

  not_held_ = not_held();
  sandbox_layer landlocked = landlock_->status();
  landlocked.detail += not_held_;
  report_.layers = {namespaces_, root_status_,      pid_, limits_.status(), privileges_.status(),
                    landlocked,  seccomp_->status()};
  report_.level = level();
}

// Of grants that seccomp can't tell from more than they are.
std::string prepared::not_held() const {
  std::string text;
  if (!granted_.write.empty() && !landlock_->confines_files())
    text += "; without it, files can be made and removed where they may be written";
  const auto leaks = [&](const std::set<std::uint16_t>& ports, const char* call) {
    return seccomp_->allows(call) && !ports.contains(0);
  };
  if (granted_.needs_network() && !landlock_->confines_tcp() &&
      (leaks(granted_.connect, "connect") || leaks(granted_.bind, "bind")))
    text += "; TCP is not held to the granted ports before ABI 4 (Linux 6.7)";
  if (!pid_.in_force && !landlock_->confines_signals())
    for (const char* call : {"kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"})
      if (seccomp_->allows(call))
        return text + "; without a PID namespace, signals reach processes outside before ABI 6 (Linux 6.12)";
  return text;
}

sandbox_level prepared::level() const {
  if (!limits_.status().in_force || !privileges_.status().in_force) return sandbox_level::none;
  const bool files = root_status_.in_force || landlock_->confines_files();
  if (!seccomp_->status().in_force || !files || !not_held_.empty()) return sandbox_level::limited;
  const bool every =
      namespaces_complete_ && (root_status_.in_force || granted_.all_files) && pid_.in_force && landlock_->complete();
  return every ? sandbox_level::full : sandbox_level::confined;
}

std::string prepared::shortcoming() const {
  std::string text = "the sandbox reaches the level '" + std::string(to_string(report_.level)) +
                     "', the policy requires '" + std::string(to_string(granted_.required)) + "'";
  for (const sandbox_layer& each : report_.layers)
    if (!each.in_force || (each.name == landlock_->name() && (!not_held_.empty() || !landlock_->complete())) ||
        (each.name == namespaces_.name && !namespaces_complete_))
      text += "; " + each.name + ": " + each.detail;
  return text + ". policy::at_least() accepts less";
}

void prepared::enter_files() {
  if (root_) enter_mounts(root_.get());
  if (!granted_.private_tmp || !root_status_.in_force) return;
  make_private_tmp();
  landlock_.emplace(granted_, library_, -1);  // a rule for the directory that it hides would not count
}

void prepared::enter() {
  // A user namespace for each worker, for the kernel counts threads by user and user namespace.
  if (own_user_namespace_ && granted_.threads) checked(::unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)");
  limits_.apply();
  privileges_.apply();
}

void prepared::seal(black_box& box, int highest_descriptor, unique_fd supervisor) {
  landlock_->apply();
  if (seccomp_->traps()) install_violation_trap(granted_, box);
  if (const unique_fd listener = seccomp_->load()) send_descriptor(supervisor.get(), listener.get());
  supervisor.reset();
  // Last: neither the listener nor the way to hand one over may be left.
  if (highest_descriptor >= 0) check_inventory(highest_descriptor);
}

}  // namespace bulkhead::sandbox
