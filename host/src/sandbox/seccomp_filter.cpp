// See seccomp_filter.hpp. libseccomp writes the program: a check of the architecture and of x32 numbers first, then a
// tree over the numbers. All comparisons are of 64 bits, and all rules allow: an argument with unexpected high bits is
// denied rather than cut short.
#include "sandbox/seccomp_filter.hpp"

#include "sandbox/syscall_groups.hpp"
#include "sandbox/violation_trap.hpp"
#include <bulkhead/ipc/system.hpp>

#include <seccomp.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <memory>
#include <set>

#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace bulkhead::sandbox {
namespace {

// Stands for the worker's pid in a program made before there is a worker; no pid is as high (pid_max is 2^22).
constexpr std::uint32_t own_pid = 0x7f0b1d00;

class builder {
 public:
  builder(const policy::values& granted, bool pid_namespace, bool own_root, bool truncation, bool listens, bool traps)
      : granted_(granted),
        pid_namespace_(pid_namespace),
        own_root_(own_root),
        truncation_(truncation || own_root || granted.learn),
        learns_(granted.learn && !traps),
        children_(granted.subprocesses || learns_),
        unhandled_(listens ? SCMP_ACT_NOTIFY : SCMP_ACT_ERRNO(EPERM)),
        denied_(traps ? SCMP_ACT_TRAP : unhandled_),
        context_(::seccomp_init(denied_), ::seccomp_release) {
    if (!context_) throw std::runtime_error("seccomp_init failed");
    attribute(SCMP_FLTATR_ACT_BADARCH, denied_ == SCMP_ACT_ERRNO(EPERM) ? SCMP_ACT_ERRNO(ENOSYS) : denied_);
    attribute(SCMP_FLTATR_CTL_NNP, 0);
    attribute(SCMP_FLTATR_CTL_OPTIMIZE, 2);
  }

  // `names`: of the calls that it allows.
  std::vector<sock_filter> build(std::set<std::string>& names) {
    add_group(names, "base");
    const bool writes = !granted_.write.empty() || !granted_.create.empty() || granted_.private_tmp;
    if (writes) add_group(names, "files-write");
    if (granted_.needs_network()) add_group(names, "tcp");
    if (granted_.connect.empty()) names.erase("connect");
    if (granted_.bind.empty())
      for (const char* each : {"bind", "listen", "accept", "accept4"}) names.erase(each);
    if (granted_.subprocesses) add_group(names, "subprocesses");
    for (const std::string& each : granted_.syscalls) {
      if (syscall_group(each).empty()) names.insert(each);
      else add_group(names, each);
    }
    const auto take_away = [&](std::initializer_list<const char*> calls) {
      for (const char* each : calls)
        if (!granted_.syscalls.contains(each)) names.erase(each);
    };
    if (!own_root_ && !granted_.all_files) take_away({"chmod", "fchmod", "fchmodat", "utimensat"});
    if (!truncation_) take_away({"truncate", "openat2"});  // of openat2 the flags are in memory
    writes_ = writes || granted_.syscalls.contains("files-write");
    jit_ = granted_.syscalls.contains("jit");
    program_ = granted_.syscalls.contains("program");
    for (const std::string& name : names)
      if (!filtered(name)) allow(name);
    // clone3's flags are in memory, where no filter sees them; glibc falls back from it to clone.
    rule(SCMP_ACT_ERRNO(ENOSYS), "clone3");
    // glibc makes threads and children with all signals blocked: SIGSYS would kill there.
    if (!granted_.subprocesses) rule(unhandled_, "clone", {SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)});
    for (const char* name : {"sched_setaffinity", "sched_setscheduler"})
      if (!names.contains(name) && !granted_.learn) rule(unhandled_, name);
    return take();
  }

 private:
  using condition = scmp_arg_cmp;

  void attribute(scmp_filter_attr which, std::uint32_t value) { ::seccomp_attr_set(context_.get(), which, value); }

  static void add_group(std::set<std::string>& names, std::string_view group) {
    for (const char* each : syscall_group(group)) names.insert(each);
  }

  void rule(std::uint32_t action, const std::string& name, const std::vector<condition>& conditions = {}) {
    const int number = ::seccomp_syscall_resolve_name(name.c_str());
    if (number < 0 || action == denied_) return;  // this machine has no such call
    const int result = ::seccomp_rule_add_array(context_.get(), action, number,
                                                static_cast<unsigned>(conditions.size()), conditions.data());
    if (result < 0 && result != -EEXIST) {
      errno = -result;
      throw_errno("seccomp_rule_add for " + name);
    }
  }
  void allow(const std::string& name, const std::vector<condition>& conditions = {}) {
    rule(SCMP_ACT_ALLOW, name, conditions);
  }
  template <class... V>
  void allow_values(const std::string& name, unsigned argument, V... values) {
    (allow(name, {condition{argument, SCMP_CMP_EQ, static_cast<scmp_datum_t>(values), 0}}), ...);
  }

  // Allows a call by its arguments; false for calls that need no look at them.
  bool filtered(const std::string& name) {
    if (name == "clone") clone_rules();
    else if (name == "clone3") return true;  // its flags are in memory, where no filter sees them
    else if (name == "mmap" || name == "mprotect" || name == "pkey_mprotect") memory_rules(name);
    else if (name == "madvise")
      allow_values(name, 2, MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE,
                   MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK, MADV_KEEPONFORK,
                   MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE);
    else if (name == "prctl") prctl_rules();
    else if (name == "fcntl") fcntl_rules();
    else if (name == "ioctl") allow_values(name, 1, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ);
    else if (name == "tgkill" && !children_) allow_values(name, 0, pid_namespace_ ? 1u : own_pid);
    else if (name == "rt_sigaction" && !children_)
      allow(name, {SCMP_A0(SCMP_CMP_NE, SIGSYS)});  // the handler that reports denials stays
    else if (name == "prlimit64" && !program_)
      allow(name, {SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0)});  // reading its own
    else if (name == "sendto" && !reaches_others())
      allow(name, {SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0), SCMP_A4(SCMP_CMP_EQ, 0)});
    // TCP Fast Open connects past Landlock's rules for ports.
    else if (name == "sendto" || name == "sendmmsg") allow(name, {SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0)});
    else if (name == "sendmsg") allow(name, {SCMP_A2(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0)});
    else if (name == "socketpair") pair_rules();
    else if (name == "socket") socket_rules();
    else if (name == "arch_prctl")
      allow_values(name, 0, 0x1002, 0x1003, 0x3001);  // SET_FS, GET_FS, CET_STATUS: a program's start
    else if (name == "personality") allow_values(name, 0, 0u, 0xffffffffu);
    else if ((name == "open" || name == "openat") && learns_) return true;  // each is looked at
    else if (name == "open" && !writes_) allow(name, {SCMP_A1(SCMP_CMP_MASKED_EQ, write_flags, 0)});
    else if (name == "openat" && !writes_) allow(name, {SCMP_A2(SCMP_CMP_MASKED_EQ, write_flags, 0)});
    else if ((name == "open" || name == "openat") && !truncation_) truncation_rules(name);
    else return false;
    return true;
  }

  static constexpr std::uint64_t write_flags = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);

  // What is opened for reading can be truncated by that.
  void truncation_rules(const std::string& name) {
    const unsigned flags = name == "open" ? 1 : 2;
    allow(name, {condition{flags, SCMP_CMP_MASKED_EQ, O_TRUNC, 0}});
    for (const scmp_datum_t mode : {O_WRONLY, O_RDWR})
      allow(name, {condition{flags, SCMP_CMP_MASKED_EQ, O_ACCMODE, mode}});
  }

  void clone_rules() {
    constexpr std::uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    constexpr std::uint64_t optional =
        CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_DETACHED;
    allow("clone", {SCMP_A0(SCMP_CMP_MASKED_EQ, ~optional, thread)});
    if (!granted_.subprocesses) return;
    constexpr std::uint64_t never = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                    CLONE_NEWPID | CLONE_NEWNET | CLONE_PARENT | CLONE_PTRACE | CLONE_UNTRACED |
                                    CLONE_THREAD | 0xffffffff00000000;
    allow("clone", {SCMP_A0(SCMP_CMP_MASKED_EQ, never, 0)});
  }

  void memory_rules(const std::string& name) {
#ifdef BULKHEAD_SANITIZED
    return allow(name);
#else
    if (jit_) return allow(name);
    allow(name, {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)});
    allow(name, {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE, 0)});
#endif
  }

  void prctl_rules() {
    allow_values("prctl", 0, PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_GET_DUMPABLE, PR_GET_TIMERSLACK,
                 PR_SET_TIMERSLACK);
    if (children_)
      allow_values("prctl", 0, PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS,
                   PR_GET_KEEPCAPS);
#ifdef BULKHEAD_SANITIZED
    allow_values("prctl", 0, PR_SET_DUMPABLE);  // its report of a crash
#endif
  }

  void fcntl_rules() {
    allow_values("fcntl", 1, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GET_SEALS, F_GETPIPE_SZ);
    if (writes_) allow_values("fcntl", 1, F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW);
    if (granted_.syscalls.contains("memory-files")) allow_values("fcntl", 1, F_ADD_SEALS);
  }

  bool reaches_others() const {
    return granted_.needs_network() || granted_.syscalls.contains("udp") || granted_.syscalls.contains("unix-sockets");
  }

  static constexpr std::uint64_t type_mask = ~static_cast<std::uint64_t>(SOCK_NONBLOCK | SOCK_CLOEXEC);

  // Not for datagrams: those of a pair go to any socket whose address they are given, also by sendmsg(), whose address no
  // filter sees. The others are connected for good.
  void pair_rules() {
    for (const int type : {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM})
      if (type != SOCK_DGRAM || granted_.syscalls.contains("unix-sockets"))
        allow("socketpair",
              {SCMP_A0(SCMP_CMP_EQ, AF_UNIX), SCMP_A1(SCMP_CMP_MASKED_EQ, type_mask, static_cast<scmp_datum_t>(type))});
  }

  void socket_rules() {
    const auto sockets = [&](int family, int type, std::initializer_list<int> protocols) {
      for (const int protocol : protocols)
        allow("socket", {SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(family)),
                         SCMP_A1(SCMP_CMP_MASKED_EQ, type_mask, static_cast<scmp_datum_t>(type)),
                         SCMP_A2(SCMP_CMP_EQ, static_cast<scmp_datum_t>(protocol))});
    };
    for (const int family : {AF_INET, AF_INET6}) {
      if (granted_.needs_network()) sockets(family, SOCK_STREAM, {0, IPPROTO_TCP});
      if (granted_.syscalls.contains("udp")) sockets(family, SOCK_DGRAM, {0, IPPROTO_UDP});
    }
    if (granted_.syscalls.contains("unix-sockets"))
      for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) sockets(AF_UNIX, type, {0});
  }

  // The library writes to a descriptor only.
  std::vector<sock_filter> take() {
    const unique_fd file(checked(::memfd_create("bulkhead-filter", MFD_CLOEXEC), "memfd_create"));
    if (const int result = ::seccomp_export_bpf(context_.get(), file.get()); result < 0) {
      errno = -result;
      throw_errno("seccomp_export_bpf");
    }
    const off_t size = checked(::lseek(file.get(), 0, SEEK_END), "lseek");
    std::vector<sock_filter> program(static_cast<std::size_t>(size) / sizeof(sock_filter));
    if (::pread(file.get(), program.data(), static_cast<std::size_t>(size), 0) != size) throw_errno("pread");
    return program;
  }

  const policy::values& granted_;
  const bool pid_namespace_, own_root_, truncation_;
  const bool learns_;    // by asking for everything that is denied
  const bool children_;  // there may be some
  const std::uint32_t unhandled_, denied_;
  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
  bool writes_ = false, jit_ = false, program_ = false;
};

// 0 if a filter may have a listener here, or why not: of all filters that a process is under only one may. Found out once,
// by a child, for a filter stays.
int listener_error() {
  static const int error = [] {
    const long child = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (child == 0) {
      sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
      const sock_fprog program{1, &allow};
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      const long fd = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
      ::_exit(fd >= 0 ? 0 : errno);
    }
    int status = 0;
    if (child < 0 || ::waitpid(static_cast<pid_t>(child), &status, 0) != child) return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
  }();
  return error;
}

}  // namespace

bool seccomp_filter::available() {
  const std::uint32_t action = SECCOMP_RET_TRAP;
  return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

seccomp_filter::seccomp_filter(const policy::values& granted, bool pid_namespace, bool own_root, bool truncation,
                               bool supervised) {
  status_.name = name();
  if (granted.without.contains(name())) {
    status_.detail = "left out by the policy";
  } else if (!available()) {
    status_.detail = "this kernel has no seccomp filters; it needs CONFIG_SECCOMP_FILTER";
  } else {
    const int refused = supervised ? listener_error() : 0;
    listens_ = supervised && refused == 0;
    traps_ = !granted.subprocesses && !(granted.learn && listens_);
    program_ = builder(granted, pid_namespace, own_root, truncation, listens_, traps_).build(allowed_);
    if (traps_) add_trap_prologue(program_, granted);
    status_.in_force = true;
    status_.detail = std::to_string(program_.size()) + " instructions; denied calls " +
                     (granted.kill    ? "kill"
                      : granted.learn ? "are recorded and allowed"
                                      : "fail");
    if (refused != 0)
      status_.detail +=
          std::string("; unreported: children of the plugin's, and what they do (") +
          (refused == EBUSY ? "the filter that this host runs in has a listener already" : std::strerror(refused)) +
          ")";
  }
}

unique_fd seccomp_filter::load() {
  if (!status_.in_force) return {};
  for (sock_filter& each : program_)
    if (each.k == own_pid) each.k = static_cast<std::uint32_t>(::getpid());
  const sock_fprog program{static_cast<unsigned short>(program_.size()), program_.data()};
  const unsigned long flags = listens_ ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;
  const long made =
      checked(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program), "seccomp(SECCOMP_SET_MODE_FILTER)");
  return unique_fd(listens_ ? static_cast<int>(made) : -1);
}

}  // namespace bulkhead::sandbox
