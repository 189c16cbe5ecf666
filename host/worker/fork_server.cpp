// See fork_server.hpp. Workers are cloned with CLONE_PARENT and exit_signal 0: the host is their parent and gets their
// status from the pidfd, while the application's own wait() and SIGCHLD never see them. Programs of others are this
// process's children (protocol.hpp says why), which tells the host how each has ended. When the host dies, the end of
// the control channel makes this process kill every worker that still lives, also those that no longer listen to their
// own channel.
#include "fork_server.hpp"

#include "birth.hpp"
#include "denied_calls.hpp"
#include "fork_requests.hpp"
#include "sandbox/report_text.hpp"
#include "sandbox_cache.hpp"
#include <bulkhead/ipc/system.hpp>

#include <csignal>
#include <map>

#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead {
namespace {

using namespace fork_server;

constexpr int dying_ms = 300;

struct living {
  unique_fd pidfd;
  pid_t pid = -1;        // -1 for those adopted
  unique_fd end_pipe{};  // of a program, which is a child of this process
};

class server {
 public:
  server(int control, const sandbox::namespaces::options& options)
      : control_(control),
        epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
        denied_(epoll_.get()),
        sandboxes_(options) {
    watch(control);
  }

  int run() {
    for (;;) {
      epoll_event events[32];
      const int count = ::epoll_wait(epoll_.get(), events, 32, denied_.resume());
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == control_) {
          if (!serve_one()) return kill_all();
        } else if (const auto dead = workers_.find(fd); dead != workers_.end()) {
          // Closing it is not enough: a worker that was cloned a moment ago still has a copy, and it would be heard of under
          // a number that is another's by then.
          ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
          denied_.died(dead->second.pid);
          if (dead->second.end_pipe) reap(dead->second);
          workers_.erase(dead);
        } else {
          denied_.serve(fd);
        }
      }
    }
  }

 private:
  void watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }

  int kill_all() {
    for (const auto& [fd, each] : workers_) ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
    // A host that is only shutting down may still want to know.
    for (const auto& [fd, each] : workers_)
      if (pollfd ended{fd, POLLIN, 0}; each.end_pipe && ::poll(&ended, 1, dying_ms) == 1) reap(each);
    return 0;
  }

  static void reap(const living& dead) {
    int status = 0;
    rusage used{};
    if (::wait4(dead.pid, &status, __WALL, &used) != dead.pid) return;
    const auto us = [](const timeval& time) { return std::int64_t{time.tv_sec} * 1'000'000 + time.tv_usec; };
    const end how{.status = status,
                  .cpu_us = us(used.ru_utime) + us(used.ru_stime),
                  .max_resident = std::int64_t{used.ru_maxrss} * 1024};
    [[maybe_unused]] const ssize_t n = ::write(dead.end_pipe.get(), &how, sizeof how);
  }

  void keep(unique_fd pidfd, pid_t pid, unique_fd end_pipe = {}) {
    const int fd = pidfd.get();
    workers_.emplace(fd, living{std::move(pidfd), pid, std::move(end_pipe)});
    watch(fd);
  }

  // False when the host is gone.
  bool serve_one() {
    incoming in;
    if (!receive(control_, in)) return false;
    if (in.head.kind == request_kind::adopt) {
      if (!in.fds.empty()) keep(std::move(in.fds[0]), -1);
      return true;
    }
    answer out;
    std::string text;
    if (in.head.kind == request_kind::examine) {
      examine(in, out, text);
      return send(control_, out, text, -1);
    }
    unique_fd pidfd = clone_worker(in, out, text);
    unique_fd end_pipe;
    if (pidfd && in.head.kind == request_kind::spawn_program) end_pipe = std::move(in.fds[end_index]);
    // The worker's descriptors are the worker's alone: an end of a log pipe kept here would hide its end-of-file.
    in.fds.clear();
    const bool heard = send(control_, out, text, pidfd.get());
    if (pidfd) keep(std::move(pidfd), out.pid, std::move(end_pipe));
    return heard || kill_all();
  }

  void examine(const incoming& in, answer& out, std::string& text) {
    try {
      text = sandbox::to_lines(sandboxes_.prepare(in.policy(), -1).report());
    } catch (const std::exception& e) {
      out.refused = 1;
      text = e.what();
    }
  }

  unique_fd clone_worker(incoming& in, answer& out, std::string& text) {
    const bool plugin = in.head.kind == request_kind::spawn_plugin;
    const std::size_t got = in.fds.size();
    if (plugin ? got != plugin_index + 1 && got != descriptors_limit : got != end_index + 1 || in.head.arguments == 0) {
      out.error = EINVAL;
      return {};
    }
    sandbox::prepared* const prepared =
        sandboxes_.for_child(in.policy(), plugin ? in.fds[plugin_index].get() : -1, text);
    if (!prepared) {
      out.refused = 1;
      return {};
    }
    int pidfd = -1;
    // glibc keeps the thread's id in memory that only its own fork() updates; the kernel tells where (prctl(2)).
    int* thread_id = nullptr;
    if (::prctl(PR_GET_TID_ADDRESS, &thread_id) != 0) thread_id = nullptr;
    clone_args args{};
    args.flags = (plugin ? CLONE_PARENT : 0u) | CLONE_PIDFD | (prepared->wants_pid_namespace() ? CLONE_NEWPID : 0u) |
                 (thread_id ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0u);
    args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
    args.child_tid = reinterpret_cast<std::uint64_t>(thread_id);
    args.exit_signal = 0;
    long pid = ::syscall(SYS_clone3, &args, sizeof args);
    // The filters of containers know clone3 not; clone stores the pidfd where a thread's id would go.
    if (pid < 0 && errno == ENOSYS) pid = ::syscall(SYS_clone, args.flags, nullptr, &pidfd, thread_id, nullptr);
    if (pid == 0) become_worker(in, *prepared, denied_.supervisor());
    if (pid < 0) out.error = errno;
    out.pid = static_cast<std::int32_t>(pid);
    if (pid > 0 && prepared->listens())
      denied_.expect(out.pid, pidfd, prepared->granted(), std::move(in.fds[reports_index]),
                     std::move(in.fds[black_box_index]));
    return unique_fd(pidfd);
  }

  const int control_;
  unique_fd epoll_;
  denied_calls denied_;
  sandbox_cache sandboxes_;
  std::map<int, living> workers_;  // by their pidfds
};

}  // namespace

int serve_fork_requests(int control, bool network, unsigned user) {
  ::prctl(PR_SET_NAME, "bulkhead-forks");
  // A host may read no more of what it is told. Ignored, it would be so for programs, too; a handler is not inherited.
  struct sigaction nothing {};
  nothing.sa_handler = [](int) {};
  ::sigaction(SIGPIPE, &nothing, nullptr);
  // Four descriptors for each worker.
  if (rlimit files{}; ::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  return server(control, {.network = !network, .unprivileged = user}).run();
}

}  // namespace bulkhead
