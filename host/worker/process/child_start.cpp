// See child_start.hpp.
#include "process/child_start.hpp"

#include <cerrno>
#include <csignal>
#include <system_error>

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bulkhead::process {
namespace {

[[noreturn]] void fail(const start& with, step where, int error) {
  const failure what{where, error};
  [[maybe_unused]] const ssize_t n = ::write(with.failure_pipe, &what, sizeof what);
  ::_exit(127);
}

void attempt(start& with, step where, long result) {
  if (result < 0) fail(with, where, errno);
}

// All else that is open here is close-on-exec, as everything of the server's is.
void place_streams(start& with) {
  const int count = static_cast<int>(with.streams.size());
  // Out of the way of the numbers to be given.
  const auto raise = [&](int& fd) { attempt(with, step::streams, fd = ::fcntl(fd, F_DUPFD_CLOEXEC, count)); };
  raise(with.failure_pipe);
  if (with.end_pipe >= 0) raise(with.end_pipe);
  if (with.prepared) {
    raise(with.supervisor);
    with.prepared->move_descriptor(count);
  }
  for (int i = 0; i < count; ++i)
    if (with.streams[i] < count) raise(with.streams[i]);
  for (int i = 0; i < count; ++i) attempt(with, step::streams, ::dup2(with.streams[i], i));
}

void take_group(start& with) {
  const request& head = *with.head;
  if (head.flags & detached) return attempt(with, step::session, ::setsid());
  if (with.group_told < 0)
    return attempt(with, step::session, ::setpgid(0, head.flags & own_process_group ? 0 : head.pid));
  ::close(with.group_teller);  // the server's is the last then: should that die, this is not to wait for it
  int error = EPERM;
  [[maybe_unused]] const ssize_t n = ::read(with.group_told, &error, sizeof error);
  if (error) fail(with, step::session, error);
}

void take_identity(start& with) {
  const request& head = *with.head;
  if (head.flags & (has_user | has_group)) {
    if (::geteuid() == 0) attempt(with, step::identity, ::syscall(SYS_setgroups, 0, nullptr));
    // Not glibc's: in the server's memory, those would call upon its threads.
    if (head.flags & has_group)
      attempt(with, step::identity, ::syscall(SYS_setresgid, head.group, head.group, head.group));
    if (head.flags & has_user) attempt(with, step::identity, ::syscall(SYS_setresuid, head.user, head.user, head.user));
  }
}

void execute(start& with) {
  int error = ENOENT;
  for (char* file : with.candidates) {
    ::execve(file, with.argv.data(), with.envp.data());
    if (errno == EACCES) error = EACCES;  // but there may be another further on
    else if (errno != ENOENT && errno != ENOTDIR) fail(with, step::execute, errno);
    else if (with.candidates.size() == 1) error = errno;
  }
  fail(with, step::execute, error);
}

// What the init has been sent, to whom it is meant.
void forward(const siginfo_t& signal, pid_t program) {
  const bool alone = ::getpid() == 1;
  const int value = signal.si_value.sival_int;
  if (signal.si_code == SI_QUEUE && (value & init_mark_mask) == init_mark) {
    if (!(value & init_tree)) ::kill(program, value & init_number);
    else if (alone) ::kill(-1, value & init_number);
  } else if (signal.si_code != SI_KERNEL) {  // a terminal's has come to the program, too
    ::kill(program, signal.si_signo);
  }
}

// Pid 1 of the namespace, if there is one. A program there would ignore signals that it has no handler for, its own abort()
// included, and would have to reap what others leave behind. Ends them all when nobody is left to be told of it: the host
// has gone. Returns in the program's process.
void be_init(start& with) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t init = ::getpid();
  const pid_t program = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  attempt(with, step::sandbox, program);
  if (program == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);  // without a namespace it would live on
    if (::getppid() != init) ::_exit(127);
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    return;
  }
  const int pipe = with.end_pipe;
  ::close_range(0, static_cast<unsigned>(pipe) - 1, 0);
  ::close_range(static_cast<unsigned>(pipe) + 1, ~0u, 0);
  pollfd told[] = {{::signalfd(-1, &all, 0), POLLIN, 0}, {with.head->flags & detached ? -1 : pipe, 0, 0}};
  if (told[0].fd < 0) ::_exit(127);
  for (;;) {
    ::poll(told, 2, -1);
    if (told[1].revents) {
      if (with.head->flags & own_process_group) ::kill(0, SIGKILL);  // for where there is no namespace
      ::_exit(127);
    }
    siginfo_t signal{};
    const timespec at_once{};
    if (::sigtimedwait(&all, &signal, &at_once) < 0) continue;
    if (signal.si_signo != SIGCHLD) {
      forward(signal, program);
      continue;
    }
    int status = 0;
    for (pid_t ended = 0; (ended = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (ended != program) continue;
      const end program_end{.inner = 1, .status = status};
      [[maybe_unused]] const ssize_t n = ::write(pipe, &program_end, sizeof program_end);
      ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
  }
}

// In memory of its own, so it may allocate and throw.
void enter_sandbox(start& with) {
  static black_box unused;
  with.prepared->enter_files();
  attempt(with, step::directory, ::chdir(*with.directory ? with.directory : "/"));
  with.prepared->enter();
  with.prepared->seal(unused, -1, unique_fd(with.supervisor));
}

}  // namespace

int start_child(void* given) {
  start& with = *static_cast<start*>(given);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);  // the server has blocked some for itself
  // Before it does anything, or starts an init that would stay outside.
  for (const int each : with.cgroups) attempt(with, step::sandbox, ::write(each, "0", 1));
  ::setrlimit(RLIMIT_NOFILE, &with.files);
  take_group(with);
  place_streams(with);
  if (with.prepared) {
    try {
      enter_sandbox(with);
    } catch (const std::system_error& e) {
      fail(with, step::sandbox, e.code().value());
    } catch (const std::exception&) {
      fail(with, step::sandbox, EPERM);
    }
  } else {
    if (*with.directory) attempt(with, step::directory, ::chdir(with.directory));
    take_identity(with);
  }
  if (with.end_pipe >= 0) be_init(with);
  execute(with);
  return 127;
}

}  // namespace bulkhead::process
