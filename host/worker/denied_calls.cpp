// See denied_calls.hpp.
#include "denied_calls.hpp"

#include "report/black_box.hpp"
#include "sandbox/violation_line.hpp"
#include <bulkhead/ipc/attachment.hpp>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace bulkhead::fork_server {
namespace {

constexpr std::chrono::milliseconds period{100};
constexpr unsigned answers_per_period = 500, reports_per_period = 10;
constexpr int learned_patience_ms = 1000;
constexpr std::size_t learned_limit = 8192;

sandbox::denied_call call_of(const seccomp_notif& asked) {
  sandbox::denied_call call{asked.data.arch, asked.data.nr, {}};
  for (std::size_t i = 0; i < 6; ++i) call.arguments[i] = asked.data.args[i];
  return call;
}

bool opens(const sandbox::denied_call& call) {
#ifdef SYS_open
  if (call.number == SYS_open) return true;
#endif
  return call.number == SYS_openat;
}

}  // namespace

denied_calls::denied_calls(int epoll) : epoll_(epoll), proc_(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  int pair[2];
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
  ours_.reset(pair[0]);
  theirs_.reset(pair[1]);
  const int yes = 1;  // who hands over is told by the kernel
  checked(::setsockopt(ours_.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes), "setsockopt(SO_PASSCRED)");
  watch(ours_.get(), EPOLL_CTL_ADD, EPOLLIN);
}

void denied_calls::watch(int fd, int operation, std::uint32_t events) const {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  ::epoll_ctl(epoll_, operation, fd, &event);
}

void denied_calls::expect(pid_t pid, int pidfd, const policy::values& granted, unique_fd reports, unique_fd black_box) {
  expected_[pid] = {.pid = pid,
                    .pidfd = unique_fd(granted.kill ? ::fcntl(pidfd, F_DUPFD_CLOEXEC, 0) : -1),
                    .reports = std::move(reports),
                    .black_box = std::move(black_box),
                    .kills = granted.kill,
                    .learns = granted.learn,
                    .reads = granted.explain || granted.learn};
}

bool denied_calls::serve(int fd) {
  if (fd == ours_.get()) {
    take_over();
    return true;
  }
  const auto found = listeners_.find(fd);
  if (found == listeners_.end()) return false;
  // Its counter of requests never falls below the number of those that wait, so what poll() has seen is received or is
  // withdrawn, but never waited for.
  pollfd ready{fd, POLLIN, 0};
  ::poll(&ready, 1, 0);
  if (ready.revents & POLLIN) {
    answer(fd, found->second.second);
  } else if (ready.revents) {  // everybody under the filter has ended
    watch(fd, EPOLL_CTL_DEL, 0);
    paused_.erase(fd);
    listeners_.erase(found);
  }
  return true;
}

void denied_calls::take_over() {
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = CMSG_SPACE(sizeof(ucred)) + CMSG_LEN(sizeof(int));  // CMSG_SPACE() has room for two
  if (::recvmsg(ours_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0) return;
  unique_fd listener;
  ucred sender{};
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS)
      std::memcpy(&sender, CMSG_DATA(header), sizeof sender);
  }
  take_descriptors(message, [&](unique_fd fd) { listener = std::move(fd); });
  auto from = expected_.extract(sender.pid);
  if (!listener || !from) return;
  const int fd = listener.get();
  listeners_.emplace(fd, std::pair(std::move(listener), supervised{.who = std::move(from.mapped())}));
  watch(fd, EPOLL_CTL_ADD, EPOLLIN);
}

int denied_calls::resume() {
  int next = -1;
  const auto now = clock::now();
  std::erase_if(paused_, [&](int fd) {
    const auto begun = listeners_.at(fd).second.period;
    const auto left = static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(begun + period - now).count());
    if (left <= 0) watch(fd, EPOLL_CTL_MOD, EPOLLIN);
    else next = next < 0 ? left : std::min(next, left);
    return left <= 0;
  });
  return next;
}

void denied_calls::answer(int listener, supervised& from) {
  if (const auto now = clock::now(); now - from.period >= period) {
    from.period = now;
    from.answered = from.reported = 0;
  }
  alignas(seccomp_notif) char room[512]{};  // a later kernel may know more of a notification than this header
  if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, room) != 0)
    return;  // withdrawn: its caller has died, or got a signal
  seccomp_notif asked;
  std::memcpy(&asked, room, sizeof asked);
  const sandbox::denied_call call = call_of(asked);
  const bool learning = from.who.learns && call.native();
  const int error = learning ? 0 : call.error();
  if (!learning) {
    ++from.denied;
    [[maybe_unused]] const ssize_t n = ::pwrite(from.who.black_box.get(), &from.denied, sizeof from.denied,
                                                offsetof(black_box, supervised_violations));
  }
  // First the report: when the caller goes on, the host has it.
  if (learning || from.who.kills || ++from.reported <= reports_per_period)
    report(listener, from, asked, error, learning ? 'l' : from.who.kills ? 'k' : ' ');
  if (from.who.kills && !learning) ::syscall(SYS_pidfd_send_signal, from.who.pidfd.get(), SIGKILL, nullptr, 0);

  seccomp_notif_resp told{};
  told.id = asked.id;
  told.error = -error;
  if (learning) told.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  ::ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &told);
  if (learning || ++from.answered < answers_per_period) return;
  paused_.insert(listener);
  watch(listener, EPOLL_CTL_MOD, 0);
}

void denied_calls::report(int listener, supervised& from, const seccomp_notif& asked, int error, char mode) {
  const sandbox::denied_call call = call_of(asked);
  const auto thread = static_cast<pid_t>(asked.pid);
  const pid_t process = process_of(thread);
  const std::string program = process == from.who.pid ? "" : program_of(process);
  const auto [at, most, address] = object_of(call);
  std::string object = most && from.who.reads ? read_memory(thread, at, most) : "";
  if (!address) object.resize(::strnlen(object.data(), object.size()));
  char method[sizeof black_box::method]{};
  std::uint32_t in_call = 0;
  const int box = from.who.black_box.get();
  if (process == from.who.pid && ::pread(box, &in_call, sizeof in_call, offsetof(black_box, in_call)) > 0 && in_call &&
      ::pread(box, method, sizeof method - 1, offsetof(black_box, method)) < 0)
    method[0] = 0;
  // Whose number this was may have ended meanwhile, and the number be another's.
  if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked.id) != 0) return;
  // A file that is not there is no need of the plugin's.
  struct stat file {};
  const bool needs_it = call.number == SYS_execve || (opens(call) && !call.makes());
  if (mode == 'l' && needs_it && ::stat(object.c_str(), &file) != 0) return;

  sandbox::violation_line line;
  line.hex(static_cast<unsigned long>(process));
  line.text(" ");
  line.word(program.c_str(), 300);
  line.text(" ");
  line.begin(call, error, mode);
  line.word(method, sizeof method);
  line.text(" ");
  if (object.empty()) line.text("-");
  for (const char c : object) line.encoded(c);
  const std::string_view text = line.finish();
  if (mode == 'l') {
    if (from.learned.size() < learned_limit && !from.learned.emplace(text).second) return;
    pollfd room{from.who.reports.get(), POLLOUT, 0};
    if (from.heard) from.heard = ::poll(&room, 1, learned_patience_ms) > 0;
  }
  [[maybe_unused]] const ssize_t n = ::write(from.who.reports.get(), text.data(), text.size());
}

std::string denied_calls::read_file(const std::string& name) const {
  const unique_fd file(::openat(proc_.get(), name.c_str(), O_RDONLY | O_CLOEXEC));
  char text[1024];
  const ssize_t n = file ? ::read(file.get(), text, sizeof text) : -1;
  return {text, static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
}

// Nothing where the kernel refuses: a worker can't be looked into, programs that it started can, if nothing else is in
// the way.
std::string denied_calls::read_memory(pid_t thread, unsigned long at, std::size_t most) const {
  const unique_fd memory(::openat(proc_.get(), (std::to_string(thread) + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(most, '\0');
  ssize_t n = memory ? ::pread(memory.get(), text.data(), most, static_cast<off_t>(at)) : -1;
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  return text;
}

pid_t denied_calls::process_of(pid_t thread) const {
  const std::string status = read_file(std::to_string(thread) + "/status");
  const std::size_t found = status.find("\nTgid:\t");
  pid_t process = thread;
  if (found != std::string::npos) std::from_chars(status.data() + found + 7, status.data() + status.size(), process);
  return process;
}

std::string denied_calls::program_of(pid_t process) const {
  const std::string folder = std::to_string(process);
  char path[300];
  const ssize_t n = ::readlinkat(proc_.get(), (folder + "/exe").c_str(), path, sizeof path);
  if (n > 0) return {path, static_cast<std::size_t>(n)};
  std::string name = read_file(folder + "/comm");
  if (name.ends_with('\n')) name.pop_back();
  return name.empty() ? "?" : name;
}

}  // namespace bulkhead::fork_server
