// See namespaces.hpp.
#include "sandbox/namespaces.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bulkhead::sandbox {
namespace {

bool put(const char* file, const std::string& text) {
  const unique_fd fd(::open(file, O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::string first_line(const char* file) {
  char text[64]{};
  const unique_fd fd(::open(file, O_RDONLY | O_CLOEXEC));
  if (!fd || ::read(fd.get(), text, sizeof text - 1) <= 0) return "";
  return std::string(text, ::strcspn(text, "\n"));
}

bool has_capability(int which) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  return ::syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1u << which));
}

// Capabilities tell what may be; a security module or a filter may deny it all the same.
bool can_clone(unsigned long flag) {
  const long child = ::syscall(SYS_clone, flag | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) ::_exit(0);
  return child > 0 && ::waitpid(static_cast<pid_t>(child), nullptr, 0) == child;
}

// Why the kernel refuses user namespaces, and what to do about it; the usual three.
std::string no_user_namespace(int error) {
  if (first_line("/proc/sys/kernel/unprivileged_userns_clone") == "0")
    return "user namespaces are switched off: sysctl kernel.unprivileged_userns_clone=1";
  if (error == ENOSPC || first_line("/proc/sys/user/max_user_namespaces") == "0")
    return "no user namespace is left: raise sysctl user.max_user_namespaces";
  if (error == EINVAL) return "no user namespace: the fork server has more than one thread (a sanitizer's)";
  return std::string("no user namespace (") + std::strerror(error) +
         "): in a container, its seccomp profile denies unshare(); Docker: --security-opt seccomp=unconfined, or run the "
         "host with CAP_SYS_ADMIN";
}

}  // namespace

void namespaces::note(const std::string& what) { why_ += (why_.empty() ? "" : "; ") + what; }

// Drops the user but keeps the capabilities, which the namespaces' making may need where user namespaces are denied.
void namespaces::become(uid_t user) {
  ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
  if (::setgroups(0, nullptr) != 0 || ::setresgid(user, user, user) != 0 || ::setresuid(user, user, user) != 0) {
    runs_as_root_ = ::geteuid() == 0;
    note(std::string("workers can't run as an unprivileged user: ") + std::strerror(errno));
    return;
  }
  ::prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) == 0) {
    for (auto& each : data) each.effective = each.permitted;
    ::syscall(SYS_capset, &header, data);
  }
  ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // or its own files in /proc, which the id maps are, would be root's
}

void namespaces::enter_user() {
  const auto uid = std::to_string(::getuid()), gid = std::to_string(::getgid());
  if (::unshare(CLONE_NEWUSER) != 0) return note(no_user_namespace(errno));
  put("/proc/self/setgroups", "deny");
  if (!put("/proc/self/uid_map", uid + " " + uid + " 1") || !put("/proc/self/gid_map", gid + " " + gid + " 1"))
    note("the user namespace has no id map: is /proc mounted?");
  user_ = true;
}

namespaces::namespaces(const options& wanted) {
  if (!put("/proc/self/oom_score_adj", "1000"))  // workers inherit it: rather them than the host
    note("out of memory, the kernel may end the host before its workers: oom_score_adj can't be set");
  if (::geteuid() == 0) become(wanted.unprivileged);
  enter_user();

  const auto enter = [this](int flag, const char* name) {
    if (::unshare(flag) == 0) return true;
    const int error = errno;
    std::string text = std::string("no ") + name + " namespace: " + std::strerror(error);
    if (error == EPERM && user_ && first_line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1")
      text +=
          " (AppArmor takes the rights away inside user namespaces: give the host a profile with 'userns,', or "
          "sysctl kernel.apparmor_restrict_unprivileged_userns=0)";
    note(text);
    return false;
  };
  const bool able = user_ || has_capability(CAP_SYS_ADMIN);
  if (!able) return;
  if (enter(CLONE_NEWNS, "mount")) {
    // What the host mounts later is there for roots that are made then, and what it unmounts is not held.
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0)
      view_.reset(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    if (!view_) note(std::string("the mount namespace is of no use: ") + std::strerror(errno));
  }
  net_ = wanted.network && enter(CLONE_NEWNET, "network");
  ipc_ = enter(CLONE_NEWIPC, "ipc");
  uts_ = enter(CLONE_NEWUTS, "uts");
  cgroup_ = enter(CLONE_NEWCGROUP, "cgroup");
  pid_ = has_capability(CAP_SYS_ADMIN) && can_clone(CLONE_NEWPID);
  if (!pid_) note("PID namespaces are denied");
}

sandbox_layer namespaces::status(const policy::values& granted) const {
  sandbox_layer made;
  made.name = "namespaces";
  made.in_force = user_ || ipc_ || net_;
  for (const auto& [have, name] : {std::pair(user_, "user"), std::pair(mount(), "mount"), std::pair(net_, "network"),
                                   std::pair(ipc_, "ipc"), std::pair(uts_, "uts"), std::pair(cgroup_, "cgroup")})
    if (have) made.detail += (made.detail.empty() ? "" : ", ") + std::string(name);
  if (!net_ && granted.needs_network()) made.detail += " (the network is the host's, as granted)";
  if (!why_.empty()) made.detail += (made.detail.empty() ? "" : "; ") + why_;
  return made;
}

sandbox_layer namespaces::pid_status(const policy::values& granted) const {
  if (granted.without.contains("pid")) return {"pid", false, "left out by the policy"};
  return {"pid", pid_, pid_ ? "a PID namespace of its own" : "no PID namespace: " + why_};
}

}  // namespace bulkhead::sandbox
