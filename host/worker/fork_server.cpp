// See fork_server.hpp. Workers are cloned with CLONE_PARENT and exit_signal 0: the host is their parent and gets their
// status from the pidfd, while the application's own wait() and SIGCHLD never see them. When the host dies, the end of
// the control channel makes this process kill every worker that still lives, also those that no longer listen to their
// own channel.
#include "fork_server.hpp"

#include "bootstrap.hpp"
#include "fork_server/protocol.hpp"
#include "report/black_box.hpp"
#include "sandbox/report_text.hpp"
#include "sandbox/sandbox.hpp"
#include <bulkhead/error.hpp>
#include <bulkhead/ipc/system.hpp>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <span>
#include <vector>

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace bulkhead {
namespace {

using namespace fork_server;

constexpr std::size_t plugin_index = 3;  // among a request's descriptors
constexpr std::size_t sandboxes_kept = 64;

struct incoming {
  request head;
  std::vector<std::string> strings;
  std::vector<unique_fd> fds;

  const std::string& policy() const { return strings.front(); }
  std::span<std::string> arguments() { return std::span(strings).subspan(1, head.arguments); }
  std::span<std::string> environment() { return std::span(strings).subspan(1 + head.arguments); }
};

class server {
 public:
  server(int control, const sandbox::namespaces::options& options)
      : control_(control), epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")), spaces_(options) {
    watch(control);
  }

  int run() {
    for (;;) {
      epoll_event events[32];
      const int count = ::epoll_wait(epoll_.get(), events, 32, -1);
      for (int i = 0; i < count; ++i) {
        if (events[i].data.fd != control_) workers_.erase(events[i].data.fd);  // it has died
        else if (!serve_one()) return kill_all();
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
    for (const auto& [fd, pidfd] : workers_) ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
    return 0;
  }

  void keep(unique_fd pidfd) {
    const int fd = pidfd.get();
    workers_.emplace(fd, std::move(pidfd));
    watch(fd);
  }

  // False when the host is gone.
  bool serve_one() {
    incoming in;
    if (!receive(in)) return false;
    if (in.head.kind == request_kind::adopt) {
      if (!in.fds.empty()) keep(std::move(in.fds[0]));
      return true;
    }
    answer out;
    std::string text;
    if (in.head.kind == request_kind::examine) {
      examine(in, out, text);
      return send_answer(out, text, -1);
    }
    unique_fd pidfd = clone_worker(in, out, text);
    // The worker's descriptors are the worker's alone: an end of a log pipe kept here would hide its end-of-file.
    in.fds.clear();
    if (!send_answer(out, text, pidfd.get())) return false;
    if (pidfd) keep(std::move(pidfd));
    return true;
  }

  void examine(const incoming& in, answer& out, std::string& text) {
    try {
      text = sandbox::to_lines(prepare(in).report());
    } catch (const std::exception& e) {
      out.refused = 1;
      text = e.what();
    }
  }

  // The sandbox for a policy and a plugin's file: made once, then kept for the workers to come.
  sandbox::prepared& prepare(const incoming& in) {
    std::string key = in.policy();
    int library = -1;
    if (in.head.kind == request_kind::spawn_plugin) {
      library = in.fds[plugin_index].get();
      struct stat file {};
      checked(::fstat(library, &file), "fstat");
      for (const auto part : {static_cast<std::uint64_t>(file.st_dev), static_cast<std::uint64_t>(file.st_ino),
                              static_cast<std::uint64_t>(file.st_size), static_cast<std::uint64_t>(file.st_ctim.tv_sec),
                              static_cast<std::uint64_t>(file.st_ctim.tv_nsec)})
        key += " " + std::to_string(part);
    }
    for (auto at = sandboxes_.begin(); at != sandboxes_.end(); ++at)
      if (at->first == key) {
        sandboxes_.splice(sandboxes_.begin(), sandboxes_, at);
        return at->second;
      }
    sandboxes_.emplace_front(std::piecewise_construct, std::forward_as_tuple(key),
                             std::forward_as_tuple(spaces_, policy::from_text(in.policy()), library));
    if (sandboxes_.size() > sandboxes_kept) sandboxes_.pop_back();
    return sandboxes_.front().second;
  }

  bool receive(incoming& in) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)];
    std::vector<char> strings(strings_limit);
    iovec parts[2] = {{&in.head, sizeof in.head}, {strings.data(), strings.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t n = 0;
    do n = ::recvmsg(control_, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); n >= 0 && header; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
        in.fds.emplace_back(fd);
      }
    }
    const auto got = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
    if (got < sizeof in.head || in.head.magic != magic || in.head.version != version ||
        got - sizeof in.head != in.head.strings_size)
      return false;
    const char* at = strings.data();
    const char* const end = at + in.head.strings_size;
    for (std::uint32_t i = 0; i < in.head.strings && at < end; ++i) {
      in.strings.emplace_back(at, ::strnlen(at, static_cast<std::size_t>(end - at)));
      at += in.strings.back().size() + 1;
    }
    return in.head.kind == request_kind::adopt || in.head.arguments + 1 <= in.strings.size();
  }

  bool send_answer(answer& out, std::string& text, int pidfd) const {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    text.resize(std::min(text.size(), report_limit));
    out.text_size = static_cast<std::uint32_t>(text.size());
    iovec parts[2] = {{&out, sizeof out}, {text.data(), text.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (pidfd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &pidfd, sizeof pidfd);
    }
    return ::sendmsg(control_, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof out + text.size());
  }

  unique_fd clone_worker(incoming& in, answer& out, std::string& text) {
    const std::size_t wanted = in.head.kind == request_kind::spawn_plugin ? 4 : 3;
    if (in.fds.size() != wanted || (in.head.kind == request_kind::spawn_program && in.head.arguments == 0)) {
      out.error = EINVAL;
      return {};
    }
    sandbox::prepared* prepared = nullptr;
    try {
      prepared = &prepare(in);
    } catch (const std::exception& e) {
      out.refused = 1;
      text = std::string("its sandbox could not be prepared: ") + e.what();
      return {};
    }
    if (!prepared->sufficient()) {
      out.refused = 1;
      text = prepared->shortcoming();
      return {};
    }
    text = sandbox::to_lines(prepared->report());
    int pidfd = -1;
    // glibc keeps the thread's id in memory that only its own fork() updates; the kernel tells where (prctl(2)).
    int* thread_id = nullptr;
    if (::prctl(PR_GET_TID_ADDRESS, &thread_id) != 0) thread_id = nullptr;
    clone_args args{};
    args.flags = CLONE_PARENT | CLONE_PIDFD | (prepared->wants_pid_namespace() ? CLONE_NEWPID : 0u) |
                 (thread_id ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0u);
    args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
    args.child_tid = reinterpret_cast<std::uint64_t>(thread_id);
    args.exit_signal = 0;
    long pid = ::syscall(SYS_clone3, &args, sizeof args);
    // The filters of containers know clone3 not; clone stores the pidfd where a thread's id would go.
    if (pid < 0 && errno == ENOSYS) pid = ::syscall(SYS_clone, args.flags, nullptr, &pidfd, thread_id, nullptr);
    if (pid == 0) become_worker(in, *prepared);
    if (pid < 0) out.error = errno;
    out.pid = static_cast<std::int32_t>(pid);
    return unique_fd(pidfd);
  }

  // The child's side: steps 2 and 3 of the birth, then the bootstrap or the foreign program.
  [[noreturn]] static void become_worker(incoming& in, sandbox::prepared& prepared) {
    const bool plugin = in.head.kind == request_kind::spawn_plugin;
    bool placed = false;
    try {
      prepared.enter_files();
      place_descriptors(in.fds, prepared);
      placed = true;
      prepared.enter();
    } catch (const std::exception& e) {
      if (placed) leave_note(std::string("its sandbox could not be set up: ") + e.what());
      ::_exit(126);
    }
    ::clearenv();
    for (std::string& each : in.environment()) ::putenv(each.data());
    for (const std::string& each : prepared.granted().environment) ::putenv(::strdup(each.c_str()));
    ::setenv("BULKHEAD_CHANNEL_FD", std::to_string(channel_fd).c_str(), 1);
    ::setenv("BULKHEAD_PROTOCOL", "1", 1);
    if (plugin) {
      ::setenv("BULKHEAD_BLACK_BOX_FD", std::to_string(black_box_fd).c_str(), 1);
      ::setenv("BULKHEAD_PLUGIN_FD", std::to_string(plugin_fd).c_str(), 1);
      worker_sandbox seal{prepared.library(), prepared.granted().memory > 0, prepared.granted().handles,
                          [&](black_box& box) { prepared.seal(box, plugin_fd); }};
      ::_exit(run_worker("", seal));
    }
    exec_program(in, prepared);
  }

  // 0 is /dev/null already; 1 and 2 become the log, then channel, black box and plugin. All else is closed.
  static void place_descriptors(std::vector<unique_fd>& fds, sandbox::prepared& prepared) {
    constexpr std::array targets = {channel_fd, 1, black_box_fd, plugin_fd};
    std::vector<int> high;  // out of the way of the targets first
    for (const unique_fd& fd : fds) high.push_back(::fcntl(fd.get(), F_DUPFD, 64));
    prepared.move_descriptor(64);
    for (std::size_t i = 0; i < high.size(); ++i) ::dup2(high[i], targets[i]);
    ::dup2(1, 2);
    if (high.size() <= plugin_index) ::close(plugin_fd);
    ::close(sandbox_fd);
    prepared.move_descriptor(sandbox_fd);
    ::syscall(SYS_close_range, first_closed_fd, ~0u, 0);
    for (unique_fd& fd : fds) fd.release();
  }

  // Why a worker ends before it can speak: read by the host from its black box.
  static void leave_note(const std::string& why) {
    const std::string cut = why.substr(0, sizeof black_box::message - 1);
    [[maybe_unused]] const ssize_t n =
        ::pwrite(black_box_fd, cut.c_str(), cut.size() + 1, offsetof(black_box, message));
  }

  [[noreturn]] static void exec_program(incoming& in, sandbox::prepared& prepared) {
    ::fcntl(black_box_fd, F_SETFD, FD_CLOEXEC);
    std::vector<char*> argv;
    for (std::string& each : in.arguments()) argv.push_back(each.data());
    argv.push_back(nullptr);
    static black_box unused;
    try {
      prepared.seal(unused, black_box_fd);
    } catch (const std::exception& e) {
      leave_note(std::string("its sandbox could not be set up: ") + e.what());
      ::_exit(126);
    }
    ::execve(argv[0], argv.data(), environ);
    leave_note(std::string("could not start ") + argv[0] + ": " + std::strerror(errno));
    ::_exit(127);
  }

  const int control_;
  unique_fd epoll_;
  sandbox::namespaces spaces_;
  std::list<std::pair<std::string, sandbox::prepared>> sandboxes_;  // the last used first
  std::map<int, unique_fd> workers_;                                // pidfds of the living
};

}  // namespace

int serve_fork_requests(int control, bool network, unsigned user) {
  ::prctl(PR_SET_NAME, "bulkhead-forks");
  return server(control, {.network = !network, .unprivileged = user}).run();
}

}  // namespace bulkhead
