// See fork_server.hpp. Workers are cloned with CLONE_PARENT and exit_signal 0: the host is their parent and gets their
// status from the pidfd, while the application's own wait() and SIGCHLD never see them. When the host dies, the end of
// the control channel makes this process kill every worker that still lives, also those that no longer listen to their
// own channel.
#include "fork_server.hpp"

#include "bootstrap.hpp"
#include "fork_server/protocol.hpp"
#include "report/black_box.hpp"

#include <bulkhead/error.hpp>
#include <bulkhead/ipc/system.hpp>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <map>
#include <sched.h>
#include <span>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <vector>

namespace bulkhead {
namespace {

using namespace fork_server;

struct incoming {
  request head;
  std::vector<std::string> strings;
  std::vector<unique_fd> fds;
};

class server {
 public:
  explicit server(int control) : control_(control), epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {
    watch(control);
    enter_user_namespace();
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
  // An unprivileged user may make PID namespaces only inside a user namespace of its own. Without either, workers go
  // without a PID namespace, and the answer to each request says so.
  void enter_user_namespace() {
    if (has_cap_sys_admin()) return;
    const auto uid = ::getuid();
    const auto gid = ::getgid();
    if (::unshare(CLONE_NEWUSER) != 0) return;
    auto put = [](const char* file, const std::string& text) {
      const unique_fd fd(::open(file, O_WRONLY | O_CLOEXEC));
      return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
    };
    put("/proc/self/setgroups", "deny");
    put("/proc/self/uid_map", std::to_string(uid) + " " + std::to_string(uid) + " 1");
    put("/proc/self/gid_map", std::to_string(gid) + " " + std::to_string(gid) + " 1");
  }

  static bool has_cap_sys_admin() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    return ::syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1u << CAP_SYS_ADMIN));
  }

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
    unique_fd pidfd = clone_worker(in, out);
    // The worker's descriptors are the worker's alone: an end of a log pipe kept here would hide its end-of-file.
    in.fds.clear();
    if (!send_answer(out, pidfd.get())) return false;
    if (pidfd) keep(std::move(pidfd));
    return true;
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
    return in.head.arguments <= in.strings.size();
  }

  bool send_answer(const answer& out, int pidfd) const {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    iovec part{const_cast<answer*>(&out), sizeof out};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (pidfd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &pidfd, sizeof pidfd);
    }
    return ::sendmsg(control_, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof out);
  }

  unique_fd clone_worker(incoming& in, answer& out) {
    const std::size_t wanted = in.head.kind == request_kind::spawn_plugin ? 4 : 3;
    if (in.fds.size() != wanted || (in.head.kind == request_kind::spawn_program && in.head.arguments == 0)) {
      out.error = EINVAL;
      return {};
    }
    int pidfd = -1;
    // glibc keeps the thread's id in memory that only its own fork() updates; the kernel tells where (prctl(2)).
    int* thread_id = nullptr;
    if (::prctl(PR_GET_TID_ADDRESS, &thread_id) != 0) thread_id = nullptr;
    clone_args args{};
    args.flags = CLONE_PARENT | CLONE_PIDFD | CLONE_NEWPID | (thread_id ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0u);
    args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
    args.child_tid = reinterpret_cast<std::uint64_t>(thread_id);
    args.exit_signal = 0;
    out.pid_namespace = 1;
    long pid = ::syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0 && (errno == EPERM || errno == EINVAL || errno == ENOSPC)) {
      args.flags &= ~static_cast<std::uint64_t>(CLONE_NEWPID);
      out.pid_namespace = 0;
      pid = ::syscall(SYS_clone3, &args, sizeof args);
    }
    if (pid == 0) become_worker(in);
    if (pid < 0) out.error = errno;
    out.pid = static_cast<std::int32_t>(pid);
    return unique_fd(pidfd);
  }

  // The child's side: steps 2 and 3 of the birth, then the bootstrap or the foreign program.
  [[noreturn]] static void become_worker(incoming& in) {
    const bool plugin = in.head.kind == request_kind::spawn_plugin;
    place_descriptors(in.fds);
    drop_privileges(in.head);
    ::clearenv();
    for (std::size_t i = in.head.arguments; i < in.strings.size(); ++i) ::putenv(::strdup(in.strings[i].c_str()));
    ::setenv("BULKHEAD_CHANNEL_FD", std::to_string(channel_fd).c_str(), 1);
    ::setenv("BULKHEAD_PROTOCOL", "1", 1);
    if (plugin) {
      ::setenv("BULKHEAD_BLACK_BOX_FD", std::to_string(black_box_fd).c_str(), 1);
      ::setenv("BULKHEAD_PLUGIN_FD", std::to_string(plugin_fd).c_str(), 1);
      ::_exit(run_worker("", in.head.memory_limit > 0));
    }
    exec_program(in);
  }

  // 0 is /dev/null already; 1 and 2 become the log, then channel, black box and plugin. All else is closed.
  static void place_descriptors(std::vector<unique_fd>& fds) {
    constexpr std::array targets = {channel_fd, 1, black_box_fd, plugin_fd};
    std::vector<int> high;  // out of the way of the targets first
    for (const unique_fd& fd : fds) high.push_back(::fcntl(fd.get(), F_DUPFD, 64));
    for (std::size_t i = 0; i < high.size(); ++i) ::dup2(high[i], targets[i]);
    ::dup2(1, 2);
    const int first = high.size() > 3 ? first_closed_fd : plugin_fd;
    ::syscall(SYS_close_range, first, ~0u, 0);
    for (unique_fd& fd : fds) fd.release();
  }

  static void drop_privileges(const request& head) {
    auto limit = [](auto resource, rlim_t value) {
      const rlimit both{value, value};
      ::setrlimit(resource, &both);
    };
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, 256);
#ifndef BULKHEAD_SANITIZED  // a sanitizer reserves terabytes of address space
    if (head.memory_limit) limit(RLIMIT_AS, head.memory_limit);
#else
    (void)head;
#endif
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    for (int cap = 0; cap <= CAP_LAST_CAP; ++cap) ::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2]{};
    ::syscall(SYS_capset, &header, none);
  }

  [[noreturn]] static void exec_program(incoming& in) {
    ::fcntl(black_box_fd, F_SETFD, FD_CLOEXEC);
    std::vector<char*> argv;
    for (std::size_t i = 0; i < in.head.arguments; ++i) argv.push_back(in.strings[i].data());
    argv.push_back(nullptr);
    ::execve(argv[0], argv.data(), environ);
    const std::string why = std::string("could not start ") + argv[0] + ": " + std::strerror(errno);
    const std::string padded = why.substr(0, sizeof black_box::message - 1);
    [[maybe_unused]] const ssize_t n =
        ::pwrite(black_box_fd, padded.c_str(), padded.size() + 1, offsetof(black_box, message));
    ::_exit(127);
  }

  const int control_;
  unique_fd epoll_;
  std::map<int, unique_fd> workers_;  // pidfds of the living
};

}  // namespace

int serve_fork_requests(int control) {
  ::prctl(PR_SET_NAME, "bulkhead-forks");
  return server(control).run();
}

}  // namespace bulkhead
