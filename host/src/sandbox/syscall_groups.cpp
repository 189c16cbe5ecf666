// See syscall_groups.hpp.
#include "sandbox/syscall_groups.hpp"

#include <seccomp.h>

#include <algorithm>
#include <cstdlib>

namespace bulkhead::sandbox {
namespace {

constexpr const char* base[] = {
    // memory
    "brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "mincore", "membarrier",
    // threads and signals of its own
    "clone", "futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "sched_yield",
    "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_get_priority_max", "sched_get_priority_min",
    "getcpu", "gettid", "getpid", "getppid", "getpgrp", "getpgid", "getsid", "exit", "exit_group", "restart_syscall",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend",
    "sigaltstack", "tgkill", "pause", "prctl",
    // time
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times", "getitimer",
    "setitimer", "alarm", "timer_create", "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete",
    "timerfd_create", "timerfd_settime", "timerfd_gettime",
    // descriptors that it has
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek",
    "close", "close_range", "dup", "dup2", "dup3", "fcntl", "poll", "ppoll", "select", "pselect6", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd", "eventfd2", "pipe", "pipe2", "ioctl",
    "sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown", "getsockopt", "getsockname", "getpeername", "socketpair",
    // reading files, as far as there are any
    "open", "openat", "access", "faccessat", "faccessat2", "stat", "lstat", "fstat", "newfstatat", "statx", "statfs",
    "fstatfs", "readlink", "readlinkat", "getcwd", "getdents64", "fadvise64", "readahead",
    // what it may know
    "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getrlimit", "prlimit64",
    "getrusage", "getpriority", "uname", "sysinfo", "umask", "getrandom"};

constexpr const char* files_write[] = {
    "creat",     "mkdir",     "mkdirat", "rmdir",     "unlink",  "unlinkat",  "rename",
    "renameat",  "renameat2", "link",    "linkat",    "symlink", "symlinkat", "truncate",
    "ftruncate", "fallocate", "fsync",   "fdatasync", "flock",   "utimensat", "copy_file_range",
    "sendfile",  "chmod",     "fchmod",  "fchmodat",  "chdir",   "fchdir",    "sync_file_range"};

constexpr const char* subprocesses[] = {"fork", "vfork",   "execve", "wait4", "waitid",
                                        "kill", "setpgid", "setsid", "chdir", "arch_prctl"};

constexpr const char* tcp[] = {"socket",  "connect",    "bind",     "listen",  "accept",
                               "accept4", "setsockopt", "sendmmsg", "recvmmsg"};
constexpr const char* udp[] = {"socket", "connect", "bind", "setsockopt", "sendmmsg", "recvmmsg"};
constexpr const char* unix_sockets[] = {"socket", "connect", "bind", "listen", "accept", "accept4", "setsockopt"};
constexpr const char* passed_listeners[] = {"accept", "accept4"};  // it can't make any
constexpr const char* jit[] = {"mmap", "mprotect", "pkey_mprotect", "pkey_alloc", "pkey_free"};
constexpr const char* memory_files[] = {"memfd_create", "ftruncate", "fallocate"};
constexpr const char* scheduling[] = {"sched_setaffinity", "sched_setscheduler", "sched_setparam",
                                      "setpriority",       "ioprio_get",         "ioprio_set"};
constexpr const char* memory_locks[] = {"mlock", "mlock2", "munlock", "mlockall", "munlockall"};

// What interpreters and other whole programs use at their start and for their own ends.
constexpr const char* program[] = {"arch_prctl",
                                   "execveat",
                                   "pidfd_open",
                                   "pidfd_send_signal",
                                   "waitid",
                                   "tkill",
                                   "rt_sigqueueinfo",
                                   "setrlimit",
                                   "sched_setaffinity",
                                   "sched_setscheduler",
                                   "setpriority",
                                   "capget",
                                   "memfd_create",
                                   "msync",
                                   "mlock",
                                   "munlock",
                                   "getdents",
                                   "inotify_init1",
                                   "inotify_add_watch",
                                   "inotify_rm_watch",
                                   "signalfd4",
                                   "sendmmsg",
                                   "recvmmsg",
                                   "splice",
                                   "tee",
                                   "fsync",
                                   "getxattr",
                                   "lgetxattr",
                                   "fgetxattr",
                                   "listxattr",
                                   "llistxattr",
                                   "flistxattr",
                                   "setuid",
                                   "setgid",
                                   "setresuid",
                                   "setresgid",
                                   "setgroups",
                                   "sched_getattr",
                                   "sched_setattr",
                                   "get_mempolicy",
                                   "chown",
                                   "fchown",
                                   "fchownat",
                                   "lchown",
                                   "utime",
                                   "utimes",
                                   "futimesat",
                                   "personality",
                                   "clone3",
                                   "pkey_mprotect",
                                   "pkey_alloc",
                                   "pkey_free",
                                   "epoll_pwait2",
                                   "openat2"};

struct group {
  const char* name;
  std::span<const char* const> calls;
};

constexpr group groups[] = {{"base", base},
                            {"files-write", files_write},
                            {"subprocesses", subprocesses},
                            {"tcp", tcp},
                            {"udp", udp},
                            {"unix-sockets", unix_sockets},
                            {"passed-listeners", passed_listeners},
                            {"jit", jit},
                            {"memory-files", memory_files},
                            {"memory-locks", memory_locks},
                            {"scheduling", scheduling},
                            {"program", program}};

constexpr const char* grantable[] = {"files-write",  "udp",          "unix-sockets", "passed-listeners", "jit",
                                     "memory-files", "memory-locks", "scheduling",   "program"};

constexpr const char* never[] = {"ptrace",
                                 "process_vm_readv",
                                 "process_vm_writev",
                                 "process_madvise",
                                 "process_mrelease",
                                 "pidfd_getfd",
                                 "kcmp",
                                 "bpf",
                                 "perf_event_open",
                                 "userfaultfd",
                                 "io_uring_setup",
                                 "io_uring_enter",
                                 "io_uring_register",
                                 "keyctl",
                                 "add_key",
                                 "request_key",
                                 "mount",
                                 "umount",
                                 "umount2",
                                 "pivot_root",
                                 "chroot",
                                 "move_mount",
                                 "open_tree",
                                 "fsopen",
                                 "fsmount",
                                 "fsconfig",
                                 "fspick",
                                 "mount_setattr",
                                 "setns",
                                 "unshare",
                                 "init_module",
                                 "finit_module",
                                 "delete_module",
                                 "kexec_load",
                                 "kexec_file_load",
                                 "reboot",
                                 "swapon",
                                 "swapoff",
                                 "acct",
                                 "quotactl",
                                 "quotactl_fd",
                                 "syslog",
                                 "iopl",
                                 "ioperm",
                                 "modify_ldt",
                                 "vm86",
                                 "vm86old",
                                 "seccomp",
                                 "open_by_handle_at",
                                 "name_to_handle_at",
                                 "fanotify_init",
                                 "fanotify_mark",
                                 "lookup_dcookie",
                                 "vhangup",
                                 "settimeofday",
                                 "clock_settime",
                                 "clock_adjtime",
                                 "adjtimex",
                                 "stime",
                                 "sethostname",
                                 "setdomainname",
                                 "capset",
                                 "mknod",
                                 "mknodat",
                                 "nfsservctl",
                                 "uselib",
                                 "migrate_pages",
                                 "move_pages",
                                 "mbind",
                                 "set_mempolicy",
                                 "vmsplice",
                                 "memfd_secret",
                                 "landlock_create_ruleset",
                                 "landlock_add_rule",
                                 "landlock_restrict_self"};

}  // namespace

std::span<const char* const> syscall_group(std::string_view name) {
  for (const group& each : groups)
    if (name == each.name) return each.calls;
  return {};
}

std::span<const char* const> syscall_group_names() { return grantable; }

bool known_syscalls(const std::string& name) {
  return std::find(std::begin(grantable), std::end(grantable), std::string_view(name)) != std::end(grantable) ||
         syscall_number(name) >= 0;
}

bool never_granted(std::string_view name) {
  return std::find(std::begin(never), std::end(never), name) != std::end(never);
}

std::string syscall_name(int number) {
  char* found = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
  if (!found) return "syscall " + std::to_string(number);
  std::string name(found);
  std::free(found);
  return name;
}

int syscall_number(const std::string& name) {
  const int number = ::seccomp_syscall_resolve_name(name.c_str());
  return number >= 0 ? number : -1;
}

}  // namespace bulkhead::sandbox
