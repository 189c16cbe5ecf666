// See process_server.hpp. Children are this process's, which tells the host how each has ended (protocol.hpp says why), and
// so is what they leave behind (PR_SET_CHILD_SUBREAPER): so it can be reaped, and killed in the end. A plain child starts as
// after vfork, sharing this process's memory until it executes its program; one with a sandbox has a copy, since putting
// that up allocates. What a child can't do it says on the host's pipe, so nobody waits here.
#include "process/process_server.hpp"

#include "control_message.hpp"
#include "denied_calls.hpp"
#include "process/child_start.hpp"
#include "sandbox/cgroup.hpp"
#include "sandbox_cache.hpp"
#include <bulkhead/ipc/system.hpp>

#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <list>
#include <map>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead {
namespace {

using namespace process;

constexpr unsigned signal_group = 4;             // PIDFD_SIGNAL_PROCESS_GROUP, of Linux 6.9
constexpr std::chrono::milliseconds dying{800};  // of the second that the host waits
constexpr int dying_turn_ms = 10;
constexpr std::size_t stack_size = std::size_t{256} << 10;

struct incoming {
  request head;
  std::vector<unique_fd> fds;
  std::vector<char> bytes;  // of the strings
  std::vector<char*> strings;

  // A child's init is a copy of this process, and what others have in their environment none of its business.
  ~incoming() { ::explicit_bzero(bytes.data(), bytes.size()); }
};

struct living {
  unique_fd pidfd;
  pid_t pid = -1;
  std::uint32_t flags = 0;
  unique_fd end_pipe{};  // none for those adopted, which are another's children
};

// False when the host is gone. What does not fit together leaves no strings.
bool receive(int control, incoming& in) {
  in.bytes.resize(inline_limit);
  const auto got = control_message::receive<descriptors_limit>(control, in.head, in.bytes, in.fds);
  if (!got.whole || in.head.magic != magic || in.head.version != version) return false;
  if (got.cut_short) in.fds.clear();  // no descriptor is free here
  in.bytes.resize(got.rest);
  return true;
}

// 0, or the error.
int read_strings(incoming& in) {
  if (in.head.flags & strings_in_memfd) {
    in.bytes.resize(in.head.strings_size);
    std::size_t done = 0;
    while (done < in.bytes.size()) {
      const ssize_t n =
          ::pread(in.fds.back().get(), in.bytes.data() + done, in.bytes.size() - done, static_cast<off_t>(done));
      if (n <= 0) return EIO;
      done += static_cast<std::size_t>(n);
    }
    in.fds.pop_back();
  }
  if (in.bytes.size() != in.head.strings_size || in.bytes.empty() || in.bytes.back() != 0) return EINVAL;
  for (char *at = in.bytes.data(), *end = at + in.bytes.size(); at < end; at += std::strlen(at) + 1)
    in.strings.push_back(at);
  const std::size_t fixed = in.head.flags & sandboxed ? 3 : 2;
  return in.strings.size() == fixed + in.head.arguments + in.head.environment && in.head.arguments > 0 ? 0 : EINVAL;
}

class server {
 public:
  server(int control, process_server_kind kind, bool detached, unsigned user)
      : control_(control),
        detached_(detached),
        epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
        denied_(epoll_.get()) {
    if (kind != process_server_kind::plain)
      sandboxes_.emplace(
          sandbox::namespaces::options{.network = kind == process_server_kind::isolated, .unprivileged = user});
    // One descriptor for each child, which itself gets the host's limit.
    ::getrlimit(RLIMIT_NOFILE, &files_);
    const rlimit most{files_.rlim_max, files_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &most);
    void* const stack =
        ::mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) throw_errno("mmap of a stack");
    stack_top_ = static_cast<char*>(stack) + stack_size;
    watch(control);
    if (!detached) checked(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)");
    sigset_t ended;
    ::sigemptyset(&ended);
    ::sigaddset(&ended, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &ended, nullptr);
    ended_.reset(checked(::signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd"));
    watch(ended_.get());
  }

  int run() {
    for (;;) {
      epoll_event events[32];
      const int count = ::epoll_wait(epoll_.get(), events, 32, denied_.resume());
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == control_) {
          if (!serve_one()) return kill_all();
        } else if (fd == ended_.get()) {
          reap_ended();
        } else if (const auto dead = children_.find(fd); dead != children_.end()) {
          // One that has not come to execute its program ends without SIGCHLD.
          if (dead->second.end_pipe) reap_ended();
          else forget(dead);
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
    if (detached_) return 0;
    for (const auto& [fd, each] : children_) {
      // While the process is there, not reaped, its number is nobody else's.
      if (each.flags & own_process_group && ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, signal_group) != 0 &&
          ::syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0) == 0)
        ::kill(-each.pid, SIGKILL);
      ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
    }
    // What they had started becomes this process's when they die, until there is no more. A host that is only shutting down
    // still wants to know how its own have ended.
    const auto until = std::chrono::steady_clock::now() + dying;
    while (reap_ended() && std::chrono::steady_clock::now() < until) {
      std::ifstream mine("/proc/thread-self/children");
      for (pid_t each = 0; mine >> each;) ::kill(each, SIGKILL);
      pollfd ended{ended_.get(), POLLIN, 0};
      ::poll(&ended, 1, dying_turn_ms);
    }
    return 0;
  }

  void keep(unique_fd pidfd, pid_t pid, std::uint32_t flags, unique_fd end_pipe) {
    const int fd = pidfd.get();
    if (end_pipe) own_[pid] = fd;
    children_.emplace(fd, living{std::move(pidfd), pid, flags, std::move(end_pipe)});
    watch(fd);
  }

  void forget(std::map<int, living>::iterator dead) {
    // Closing it is not enough: a child that was cloned a moment ago still has a copy, and it would be heard of under a
    // number that is another's by then.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, dead->first, nullptr);
    children_.erase(dead);
  }

  // All that have ended, those that others have left to this process included. False when no child is left.
  bool reap_ended() {
    signalfd_siginfo told;
    while (::read(ended_.get(), &told, sizeof told) > 0) {
    }
    for (;;) {
      int status = 0;
      rusage used{};
      const pid_t pid = ::wait4(-1, &status, __WALL | WNOHANG, &used);
      if (pid <= 0) return pid == 0;
      const auto own = own_.find(pid);
      if (own == own_.end()) continue;
      const auto dead = children_.find(own->second);
      own_.erase(own);
      denied_.died(pid);
      tell(dead->second.end_pipe.get(), status, used);
      forget(dead);
    }
  }

  static void tell(int end_pipe, int status, const rusage& used) {
    const auto us = [](const timeval& time) { return std::int64_t{time.tv_sec} * 1'000'000 + time.tv_usec; };
    const end how{.status = status,
                  .user_us = us(used.ru_utime),
                  .system_us = us(used.ru_stime),
                  .max_resident = std::int64_t{used.ru_maxrss} * 1024};
    [[maybe_unused]] const ssize_t n = ::write(end_pipe, &how, sizeof how);
  }

  bool serve_one() {
    incoming in;
    if (!receive(control_, in)) return false;
    if (in.head.kind == request_kind::adopt) {
      if (!in.fds.empty()) keep(std::move(in.fds[0]), in.head.pid, in.head.flags, {});
      return true;
    }
    if (in.head.kind == request_kind::kill) {
      for (const auto& [fd, each] : children_)
        if (each.pid == in.head.pid) ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
      return true;
    }
    answer out;
    std::string text;
    unique_fd pidfd;
    try {
      pidfd = spawn(in, out, text);
    } catch (const std::system_error& e) {
      out.error = e.code().value();
    } catch (const std::exception&) {
      out.error = ENOMEM;
    }
    unique_fd end_pipe;
    if (pidfd) end_pipe = std::move(in.fds[1]);
    in.fds.clear();  // an end of a pipe that is kept here would hide its end-of-file
    const bool heard = reply(out, text, pidfd.get());
    if (pidfd) keep(std::move(pidfd), out.pid, in.head.flags, std::move(end_pipe));
    return heard;
  }

  bool reply(answer& out, std::string& text, int pidfd) {
    out.text_size = static_cast<std::uint32_t>(text.size());
    return control_message::send<1>(control_, out, text, {&pidfd, pidfd >= 0 ? std::size_t{1} : 0}) >= 0;
  }

  unique_fd spawn(incoming& in, answer& out, std::string& text) {
    const bool confined = in.head.flags & sandboxed, has_init = in.head.flags & own_pid_namespace;
    const std::size_t reports = 2, joins = confined ? 3 : 2;
    const std::size_t first = joins + in.head.cgroups;  // of its streams
    const std::size_t wanted = first + in.head.streams + (in.head.flags & strings_in_memfd ? 1 : 0);
    if (in.fds.size() != wanted) return out.error = in.fds.empty() ? EMFILE : EINVAL, unique_fd();
    if ((out.error = read_strings(in)) != 0) return {};
    auto string = in.strings.begin();
    start with;
    with.head = &in.head;
    with.files = files_;
    with.failure_pipe = in.fds[0].get();
    if (has_init) with.end_pipe = in.fds[1].get();
    if (confined) {
      with.prepared = sandboxes_->for_child(*string++, -1, text);
      if (!with.prepared) {
        out.refused = 1;
        return {};
      }
      if (!(in.head.flags & cgroup_settled) &&
          sandbox::cgroup_maker::wanted(with.prepared->granted(), with.prepared->report())) {
        out.uncounted = 1;
        return {};
      }
      with.supervisor = denied_.supervisor();
    }
    for (std::size_t i = 0; i < in.head.cgroups; ++i) with.cgroups.push_back(in.fds[joins + i].get());
    for (std::size_t i = 0; i < in.head.streams; ++i) with.streams.push_back(in.fds[first + i].get());
    char* const file = *string++;
    with.directory = *string++;
    with.argv.assign(string, string + in.head.arguments);
    with.envp.assign(string + in.head.arguments, in.strings.end());
    std::list<std::string> paths;
    find_candidates(file, with, paths);
    with.argv.push_back(nullptr);
    with.envp.push_back(nullptr);

    int pidfd = -1;
    int flags = CLONE_PIDFD;
    if (has_init && (!confined || with.prepared->wants_pid_namespace())) flags |= CLONE_NEWPID;
    unique_fd group_told, group_teller;
    if ((flags & CLONE_NEWPID) && !(in.head.flags & (own_process_group | detached))) {
      int ends[2];
      checked(::pipe2(ends, O_CLOEXEC), "pipe2");
      group_told.reset(with.group_told = ends[0]);
      group_teller.reset(with.group_teller = ends[1]);
    }
#ifdef BULKHEAD_SANITIZED  // whose memory is its own, and who warns, on the child's standard error, of a stack like ours
    const int pid = static_cast<int>(::syscall(SYS_clone, flags, nullptr, &pidfd, nullptr, nullptr));
    if (pid == 0) ::_exit(start_child(&with));
#else
    if (!confined && !has_init) flags |= CLONE_VM | CLONE_VFORK;
    const int pid = ::clone(start_child, stack_top_, flags, &with, &pidfd);
#endif
    if (pid < 0) return out.error = errno, unique_fd();
    out.pid = pid;
    if (group_teller) {
      const int error = ::setpgid(pid, in.head.pid) == 0 ? 0 : errno;
      [[maybe_unused]] const ssize_t n = ::write(group_teller.get(), &error, sizeof error);
    }
    if (confined && with.prepared->listens())
      denied_.expect(pid, pidfd, with.prepared->granted(), std::move(in.fds[reports]));
    return unique_fd(pidfd);
  }

  // As execvp() does it, but with the PATH of the child.
  static void find_candidates(char* file, start& with, std::list<std::string>& paths) {
    if (std::strchr(file, '/') || !*file) return with.candidates.push_back(file);
    std::string_view path = "/usr/local/bin:/usr/bin:/bin";
    for (const char* variable : with.envp)
      if (std::strncmp(variable, "PATH=", 5) == 0) path = variable + 5;
    for (;;) {
      const std::size_t colon = path.find(':');
      std::string place(path.substr(0, colon));
      if (!place.empty()) place += '/';
      paths.push_back(place + file);
      with.candidates.push_back(paths.back().data());
      if (colon == std::string_view::npos) break;
      path.remove_prefix(colon + 1);
    }
  }

  const int control_;
  const bool detached_;
  unique_fd epoll_, ended_;  // ended_: SIGCHLD
  fork_server::denied_calls denied_;
  std::optional<sandbox_cache> sandboxes_;
  rlimit files_{};
  char* stack_top_ = nullptr;
  std::map<int, living> children_;  // by their pidfds
  std::map<pid_t, int> own_;        // of those, this process's own
};

}  // namespace

int serve_process_requests(int control, process_server_kind kind, bool detached, unsigned user) {
  ::prctl(PR_SET_NAME, "bulkhead-procs");
  // A host may care no more how a child ends. Ignored, it would be so for children, too; a handler is not inherited.
  struct sigaction nothing {};
  nothing.sa_handler = [](int) {};
  ::sigaction(SIGPIPE, &nothing, nullptr);
  return server(control, kind, detached, user).run();
}

}  // namespace bulkhead
