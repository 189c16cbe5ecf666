/* Interfaces of the kernel that have been ways in before. */
#include "attempts.h"

#include <signal.h>
#include <string.h>

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned char zeros[256];

static long by_number(uintptr_t number) { return escape_result(syscall((long)number, zeros, zeros, 0L, 0L, 0L)); }
static long mount_something(uintptr_t kind) {
  static const char* const types[] = {"proc", "tmpfs", "sysfs", "devpts", "overlay", "fuse"};
  return escape_result(mount("none", "/usr/lib", types[kind], 0, ""));
}
static long bind_something(uintptr_t flags) { return escape_result(mount("/", "/usr/lib", NULL, flags, NULL)); }
static long unmount(uintptr_t flags) { return escape_result(umount2("/usr/lib", (int)flags)); }
static long set_prctl(uintptr_t option) { return escape_result(prctl((int)option, 1L, 0L, 0L, 0L)); }
/* Past the C library, which has but 32 bits for it; the kernel cuts it to them. */
static long set_prctl_by_number(uintptr_t option) { return escape_result(syscall(SYS_prctl, option, 1L, 0L, 0L, 0L)); }
static long raise_limit(uintptr_t which) {
  struct rlimit more = {1 << 20, 1 << 20};
  return escape_result(syscall(SYS_setrlimit, (long)which, &more));
}
static long raise_limit64(uintptr_t which) {
  struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
  return escape_result(prlimit(0, (__rlimit_resource_t)which, &more, NULL));
}
static long catch_denials(uintptr_t high) {
  /* The number's high half is not looked at by the kernel. */
  return escape_result(syscall(SYS_rt_sigaction, (long)(high | SIGSYS), zeros, NULL, 8L));
}
static long own_filter(uintptr_t flags) {
  struct {
    unsigned short length;
    void* program;
  } empty = {0, NULL};
  return escape_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (long)flags, &empty));
}
static long change_user(uintptr_t uid) { return escape_result(syscall(SYS_setuid, (long)uid)); }
static long change_groups(uintptr_t gid) {
  const gid_t group = (gid_t)gid;
  return escape_result(syscall(SYS_setgroups, 1L, &group));
}
static long change_personality(uintptr_t value) { return escape_result(syscall(SYS_personality, (long)value)); }
static long realtime(uintptr_t policy) {
  struct sched_param most = {1};
  return escape_result(syscall(SYS_sched_setscheduler, 0, (long)policy, &most));
}
static long rename_host(uintptr_t unused) {
  (void)unused;
  return escape_result(syscall(SYS_sethostname, "mine", 4L));
}
static long set_clock(uintptr_t unused) {
  (void)unused;
  static const struct timespec past = {-1, -1}; /* invalid: the rights are checked last */
  return escape_result(syscall(SYS_clock_settime, 0L, &past));
}
static long take_port(uintptr_t level) { return escape_result(syscall(SYS_iopl, (long)level)); }

#define NUMBER(name, stops) \
  { "kernel", "call " #name, by_number, SYS_##name, stops }
#define LIMIT(name)                                                                     \
  {"kernel", "raise " #name, raise_limit, name, "seccomp limits:EPERM"}, {              \
    "kernel", "raise " #name " by prlimit", raise_limit64, name, "seccomp limits:EPERM" \
  }
#define CAPABLE "seccomp privileges:EPERM"

static const struct escape_attempt list[] = {
    NUMBER(bpf, "seccomp"),
    NUMBER(perf_event_open, "seccomp"),
    NUMBER(userfaultfd, "seccomp"),
    NUMBER(keyctl, "seccomp"),
    NUMBER(add_key, "seccomp"),
    NUMBER(request_key, "seccomp"),
    NUMBER(modify_ldt, "seccomp"),
    NUMBER(io_setup, "seccomp"),
    NUMBER(init_module, "seccomp"),
    NUMBER(delete_module, "seccomp"),
    NUMBER(syslog, "seccomp"),
    NUMBER(acct, CAPABLE),
    NUMBER(vhangup, CAPABLE),
    NUMBER(fanotify_init, "seccomp"),
    NUMBER(inotify_init1, "seccomp"),
    NUMBER(lookup_dcookie, "seccomp"),
    NUMBER(vmsplice, "seccomp"),
    NUMBER(mbind, "seccomp"),
    NUMBER(migrate_pages, "seccomp"),
    NUMBER(shmget, "seccomp"),
    NUMBER(msgget, "seccomp"),
    NUMBER(semget, "seccomp"),
    NUMBER(mq_open, "seccomp"),
    NUMBER(capset, "seccomp"),
    {"kernel", "set up io_uring", by_number, 425, "seccomp"},
    {"kernel", "use io_uring", by_number, 426, "seccomp"},
    {"kernel", "register with io_uring", by_number, 427, "seccomp"},
    {"kernel", "open a mount tree", by_number, 428, "seccomp"},
    {"kernel", "move a mount", by_number, 429, "seccomp"},
    {"kernel", "open a file system", by_number, 430, "seccomp privileges:EPERM"},
    {"kernel", "make secret memory", by_number, 447, "seccomp"},
    {"kernel", "make a Landlock rule set", by_number, 444, "seccomp"},
    {"kernel", "set a mount's attributes", by_number, 442, "seccomp"},
    {"kernel", "map a shadow stack", by_number, 453, "seccomp"},
    {"kernel", "list mounts", by_number, 458, "seccomp"},
    {"kernel", "look at a mount", by_number, 457, "seccomp"},
    {"kernel", "list security modules", by_number, 461, "seccomp"},
    {"kernel", "open a tree with attributes", by_number, 467, "seccomp"},
    {"kernel", "a system call yet to come", by_number, 999, "seccomp"},
    {"kernel", "mount proc", mount_something, 0, CAPABLE},
    {"kernel", "mount tmpfs", mount_something, 1, CAPABLE},
    {"kernel", "mount sysfs", mount_something, 2, CAPABLE},
    {"kernel", "mount devpts", mount_something, 3, CAPABLE},
    {"kernel", "mount overlay", mount_something, 4, CAPABLE},
    {"kernel", "mount fuse", mount_something, 5, CAPABLE},
    {"kernel", "bind a directory", bind_something, MS_BIND, CAPABLE},
    {"kernel", "make mounts writable", bind_something, MS_REMOUNT | MS_BIND, CAPABLE},
    {"kernel", "make mounts shared", bind_something, MS_SHARED, CAPABLE},
    {"kernel", "unmount", unmount, 0, CAPABLE},
    {"kernel", "unmount lazily", unmount, MNT_DETACH, CAPABLE},
    {"kernel", "be dumpable", set_prctl, PR_SET_DUMPABLE, "seccomp"},
    {"kernel", "be dumpable by a number with high bits", set_prctl_by_number, 0x100000000ul | PR_SET_DUMPABLE,
     "seccomp"},
    {"kernel", "keep capabilities", set_prctl, PR_SET_KEEPCAPS, "seccomp privileges:EPERM"},
    {"kernel", "change the security bits", set_prctl, PR_SET_SECUREBITS, "seccomp privileges:EPERM"},
    {"kernel", "allow anybody to trace it", set_prctl, 0x59616d61, "seccomp"},
    {"kernel", "become a reaper", set_prctl, PR_SET_CHILD_SUBREAPER, "seccomp"},
    {"kernel", "move its own mappings", set_prctl, PR_SET_MM, "seccomp privileges:EPERM|EINVAL"},
    {"kernel", "use speculation", set_prctl, PR_SET_SPECULATION_CTRL, "seccomp"},
    {"kernel", "set strict seccomp mode", set_prctl, PR_SET_SECCOMP, "seccomp"},
    {"kernel", "have its time stamps fault", set_prctl, PR_SET_TSC, "seccomp"},
    {"kernel", "take an ambient capability", set_prctl, PR_CAP_AMBIENT, "seccomp"},
    {"kernel", "ask for a signal when its parent dies", set_prctl, PR_SET_PDEATHSIG, "seccomp"},
    LIMIT(RLIMIT_NOFILE),
    LIMIT(RLIMIT_CORE),
    LIMIT(RLIMIT_NPROC),
    LIMIT(RLIMIT_MEMLOCK),
    LIMIT(RLIMIT_MSGQUEUE),
    LIMIT(RLIMIT_RTPRIO),
    {"kernel", "replace the handler of denials", catch_denials, 0, "seccomp"},
    {"kernel", "replace it by a number with high bits", catch_denials, 0x100000000ul, "seccomp"},
    {"kernel", "install a filter of its own", own_filter, 0, "seccomp"},
    {"kernel", "install a filter with a listener", own_filter, 8, "seccomp"},
    {"kernel", "become root", change_user, 0, "seccomp privileges:EPERM|EINVAL"},
    {"kernel", "become another user", change_user, 1000, "seccomp privileges:EPERM|EINVAL"},
    {"kernel", "join another group", change_groups, 0, "seccomp privileges:EPERM|EINVAL"},
    {"kernel", "switch off address randomisation", change_personality, 0x0040000, "seccomp"},
    {"kernel", "map the page at zero", change_personality, 0x0100000, "seccomp"},
    {"kernel", "run in real time", realtime, SCHED_FIFO, "seccomp limits:EPERM"},
    {"kernel", "run in real time, in turns", realtime, SCHED_RR, "seccomp limits:EPERM"},
    {"kernel", "rename the machine", rename_host, 0, CAPABLE},
    {"kernel", "set the clock", set_clock, 0, "seccomp privileges:EPERM|EINVAL"},
    {"kernel", "use I/O ports", take_port, 3, "seccomp"},
};

struct escape_list escape_kernel(void) {
  return (struct escape_list){list, sizeof list / sizeof *list};
}
