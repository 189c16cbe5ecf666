/* Reaching into other processes, or making some. */
#include "attempts.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int victim(uintptr_t which) {
  return which == 0   ? escape_facts.host_pid
         : which == 1 ? escape_facts.fork_server_pid
         : which == 2 ? escape_facts.sibling_pid
         : which == 3 ? -1
                      : 2;
}

/* Signal 0 asks whether it would be allowed. */
static long by_kill(uintptr_t who) { return escape_result(syscall(SYS_kill, victim(who), 0)); }
static long by_tkill(uintptr_t who) { return escape_result(syscall(SYS_tkill, victim(who), 0)); }
static long by_tgkill(uintptr_t who) { return escape_result(syscall(SYS_tgkill, victim(who), victim(who), 0)); }
static long by_queue(uintptr_t who) {
  siginfo_t info = {0};
  info.si_code = SI_QUEUE;
  return escape_result(syscall(SYS_rt_sigqueueinfo, victim(who), 0, &info));
}
static long by_thread_queue(uintptr_t who) {
  siginfo_t info = {0};
  info.si_code = SI_QUEUE;
  return escape_result(syscall(SYS_rt_tgsigqueueinfo, victim(who), victim(who), 0, &info));
}
static long by_pidfd(uintptr_t who) {
  const long fd = syscall(434 /* pidfd_open */, victim(who), 0);
  if (fd < 0) return escape_result(fd);
  const long got = escape_result(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
  close((int)fd);
  return got;
}
static long attach(uintptr_t who) { return escape_result(ptrace(PTRACE_ATTACH, victim(who), 0L, 0L)); }
static long seize(uintptr_t who) { return escape_result(ptrace(PTRACE_SEIZE, victim(who), 0L, 0L)); }
static char buffer[64];
static long read_memory(uintptr_t who) {
  struct iovec here = {buffer, sizeof buffer}, there = {buffer, sizeof buffer};
  return escape_result(syscall(SYS_process_vm_readv, victim(who), &here, 1L, &there, 1L, 0L));
}
static long write_memory(uintptr_t who) {
  struct iovec here = {buffer, sizeof buffer}, there = {buffer, sizeof buffer};
  return escape_result(syscall(SYS_process_vm_writev, victim(who), &here, 1L, &there, 1L, 0L));
}
static long open_pidfd(uintptr_t who) {
  const long fd = syscall(434, victim(who), 0);
  if (fd >= 0) close((int)fd);
  return escape_result(fd);
}
static long take_descriptor(uintptr_t who) {
  const long fd = syscall(434, victim(who), 0);
  if (fd < 0) return escape_result(fd);
  const long got = escape_result(syscall(438 /* pidfd_getfd */, fd, 0, 0));
  close((int)fd);
  return got;
}
static long advise(uintptr_t who) {
  const long fd = syscall(434, victim(who), 0);
  if (fd < 0) return escape_result(fd);
  const long got = escape_result(syscall(440 /* process_madvise */, fd, NULL, 0L, 4, 0));
  close((int)fd);
  return got;
}
static long change_limits(uintptr_t who) {
  struct rlimit none = {0, 0};
  return escape_result(prlimit(victim(who), RLIMIT_NOFILE, &none, NULL));
}
static long read_limits(uintptr_t who) {
  struct rlimit limits;
  return escape_result(prlimit(victim(who), RLIMIT_NOFILE, NULL, &limits));
}
static long renice(uintptr_t who) { return escape_result(setpriority(PRIO_PROCESS, (id_t)victim(who), 19)); }
static long move_to_cpu(uintptr_t who) {
  unsigned long cpu = 1;
  return escape_result(syscall(SYS_sched_setaffinity, victim(who), sizeof cpu, &cpu));
}
static long compare(uintptr_t who) { return escape_result(syscall(SYS_kcmp, victim(who), getpid(), 0, 0, 0)); }
static long robust_list(uintptr_t who) {
  void* head;
  size_t size;
  return escape_result(syscall(SYS_get_robust_list, victim(who), &head, &size));
}
static long move_pages_of(uintptr_t who) {
  return escape_result(syscall(SYS_move_pages, victim(who), 0L, NULL, NULL, NULL, 0L));
}
static long session_of(uintptr_t who) { return escape_result(getsid(victim(who))); }

/* A child that leaves at once. */
static long child(long pid) {
  if (pid == 0) _exit(0);
  return escape_result(pid);
}
static long by_fork(uintptr_t unused) {
  (void)unused;
  return child(syscall(SYS_fork));
}
static long by_glibc_fork(uintptr_t unused) {
  (void)unused;
  return child(fork());
}
static long by_clone(uintptr_t flags) { return child(syscall(SYS_clone, (long)flags, 0L, 0L, 0L, 0L)); }
static long by_clone3(uintptr_t flags) {
  struct {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  } arguments = {flags, 0, 0, 0, SIGCHLD, 0, 0, 0};
  return child(syscall(435, &arguments, sizeof arguments));
}
/* As many as it gets, all at once. */
static long by_fork_bomb(uintptr_t wanted) {
  static pid_t made[300];
  long got = 0;
  size_t count = 0;
  for (; count < wanted; ++count) {
    made[count] = (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
    if (made[count] == 0)
      for (;;) pause();
    if (made[count] < 0) {
      got = escape_result(-1);
      break;
    }
  }
  while (count-- > 0) {
    kill(made[count], SIGKILL);
    waitpid(made[count], NULL, 0);
  }
  return got;
}
static long by_exec(uintptr_t unused) {
  (void)unused;
  char* argv[] = {"/bin/true", NULL};
  return escape_result(execve("/bin/true", argv, argv + 1));
}
static long by_system(uintptr_t unused) {
  (void)unused;
  errno = 0;
  const int status = system("true");
  return status == 0 ? 0 : errno ? -errno : -EACCES;
}
static long unshare_namespace(uintptr_t flags) { return escape_result(syscall(SYS_unshare, (long)flags)); }
static long join_namespace(uintptr_t type) { return escape_result(syscall(SYS_setns, 0, (long)type)); }

#define EVERYBODY(what, run, stops)                                                                        \
  {"processes", what " the host", run, 0, stops}, {"processes", what " the fork server", run, 1, stops}, { \
    "processes", what " a sibling", run, 2, stops                                                          \
  }
#define HIDDEN "seccomp pid:ESRCH"

static const struct escape_attempt list[] = {
    EVERYBODY("signal (kill)", by_kill, HIDDEN),
    EVERYBODY("signal (tkill)", by_tkill, HIDDEN),
    EVERYBODY("signal (tgkill)", by_tgkill, HIDDEN),
    EVERYBODY("signal (rt_sigqueueinfo)", by_queue, HIDDEN),
    EVERYBODY("signal (rt_tgsigqueueinfo)", by_thread_queue, HIDDEN),
    EVERYBODY("signal (pidfd)", by_pidfd, HIDDEN),
    EVERYBODY("attach to", attach, "seccomp pid:ESRCH"),
    EVERYBODY("seize", seize, "seccomp pid:ESRCH"),
    EVERYBODY("read the memory of", read_memory, HIDDEN),
    EVERYBODY("write the memory of", write_memory, HIDDEN),
    EVERYBODY("open a pidfd of", open_pidfd, HIDDEN),
    EVERYBODY("take a descriptor of", take_descriptor, HIDDEN),
    EVERYBODY("advise the memory of", advise, HIDDEN),
    EVERYBODY("change the limits of", change_limits, HIDDEN),
    EVERYBODY("read the limits of", read_limits, HIDDEN),
    EVERYBODY("renice", renice, HIDDEN),
    EVERYBODY("move between CPUs", move_to_cpu, HIDDEN),
    EVERYBODY("compare with", compare, HIDDEN),
    EVERYBODY("move the pages of", move_pages_of, "seccomp pid:ESRCH kernel:ENOSYS"),
    EVERYBODY("find the lock list of", robust_list, "pid:ESRCH"),
    EVERYBODY("find the session of", session_of, "pid:ESRCH"),
    {"processes", "signal everybody (kill -1)", by_kill, 3, HIDDEN},
    {"processes", "fork", by_fork, 0, "seccomp"},
    {"processes", "fork by the C library", by_glibc_fork, 0, "seccomp:EPERM"},
    {"processes", "make 300 children", by_fork_bomb, 300, "seccomp:EPERM limits:EAGAIN"},
    {"processes", "clone a child", by_clone, SIGCHLD, "seccomp:EPERM"},
    {"processes", "clone into a user namespace", by_clone, 0x10000000 | SIGCHLD, "seccomp:EPERM"},
    {"processes", "clone into a mount namespace", by_clone, 0x00020000 | SIGCHLD, "seccomp:EPERM privileges:EPERM"},
    {"processes", "clone into a PID namespace", by_clone, 0x20000000 | SIGCHLD, "seccomp:EPERM privileges:EPERM"},
    {"processes", "clone into a network namespace", by_clone, 0x40000000 | SIGCHLD, "seccomp:EPERM privileges:EPERM"},
    {"processes", "clone a sibling", by_clone, 0x00008000 | SIGCHLD, "seccomp:EPERM kernel:EINVAL"},
    {"processes", "clone by clone3", by_clone3, 0, "seccomp:ENOSYS"},
    {"processes", "clone by clone3 into a user namespace", by_clone3, 0x10000000, "seccomp:ENOSYS"},
    {"processes", "clone with high bits set", by_clone, 0x100000000ul | SIGCHLD, "seccomp:EPERM"},
    {"processes", "execute a program", by_exec, 0, "seccomp"},
    {"processes", "run a shell", by_system, 0, "seccomp:EPERM"},
    {"processes", "unshare the user namespace", unshare_namespace, 0x10000000, "seccomp"},
    {"processes", "unshare the mount namespace", unshare_namespace, 0x00020000, "seccomp privileges:EPERM"},
    {"processes", "unshare the PID namespace", unshare_namespace, 0x20000000, "seccomp privileges:EPERM"},
    {"processes", "unshare the network namespace", unshare_namespace, 0x40000000, "seccomp privileges:EPERM"},
    {"processes", "unshare the ipc namespace", unshare_namespace, 0x08000000, "seccomp privileges:EPERM"},
    {"processes", "unshare the uts namespace", unshare_namespace, 0x04000000, "seccomp privileges:EPERM"},
    {"processes", "unshare the cgroup namespace", unshare_namespace, 0x02000000, "seccomp privileges:EPERM"},
    {"processes", "unshare the time namespace", unshare_namespace, 0x00000080, "seccomp privileges:EPERM"},
    {"processes", "join a namespace", join_namespace, 0, "seccomp kernel:EINVAL"},
};

struct escape_list escape_processes(void) {
  return (struct escape_list){list, sizeof list / sizeof *list};
}
