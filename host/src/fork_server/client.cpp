// See client.hpp. The host itself never forks: posix_spawn uses vfork semantics, whose cost does not grow with the
// host's memory, and only once; workers come from the fork server.
#include "fork_server/client.hpp"

#include <array>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/wait.h>

namespace bulkhead::fork_server {
namespace {

constexpr int answer_timeout_ms = 5000;
constexpr int deaths_allowed = 3;
constexpr std::chrono::seconds death_window{60};
constexpr int control_fd = 3;

}  // namespace

std::filesystem::path find_worker_program(const std::filesystem::path& configured) {
  std::error_code ignored;
  std::vector<std::filesystem::path> places;
  if (!configured.empty()) {
    places.push_back(configured);
  } else {
    places.push_back(std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / "bulkhead-worker");
    places.emplace_back(BULKHEAD_INSTALLED_WORKER_PATH);
    places.emplace_back(BULKHEAD_BUILT_WORKER_PATH);
  }
  std::string searched;
  for (const auto& place : places) {
    if (::access(place.c_str(), X_OK) == 0) return place;
    searched += (searched.empty() ? "" : ", ") + place.string();
  }
  throw std::runtime_error("bulkhead: the program bulkhead-worker was not found (searched: " + searched +
                           "); build or install it, or name it in host_options::worker_path");
}

client::client(const std::filesystem::path& configured) : program_(find_worker_program(configured)) { start(); }

client::~client() { stop(); }

void client::start() {
  int pair[2];
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
  unique_fd ours(pair[0]), theirs(pair[1]);

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, 0, 1);  // stderr stays: a program that can't start says why there
  // The descriptor must lose close-on-exec, which dup2 does only when the numbers differ.
  const unique_fd high(checked(::fcntl(theirs.get(), F_DUPFD_CLOEXEC, 10), "fcntl(F_DUPFD_CLOEXEC)"));
  ::posix_spawn_file_actions_adddup2(&actions, high.get(), control_fd);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  std::string name = program_.string(), variable = "BULKHEAD_FORK_SERVER_FD=" + std::to_string(control_fd);
  char* argv[] = {name.data(), nullptr};
  std::vector<char*> envp = {variable.data()};
#ifdef BULKHEAD_SANITIZED
  for (char** entry = environ; *entry; ++entry)
    if (std::strstr(*entry, "SAN_OPTIONS=")) envp.push_back(*entry);
#endif
  envp.push_back(nullptr);
  const int failed = ::posix_spawn(&pid_, name.c_str(), &actions, &attributes, argv, envp.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (failed) throw std::system_error(failed, std::generic_category(), "could not start " + name);
  control_ = std::move(ours);
}

spawned client::spawn(const std::vector<int>& fds, const std::vector<std::string>& arguments,
                      const std::vector<std::string>& environment, std::uint64_t memory_limit) {
  request head;
  head.kind = arguments.empty() ? request_kind::spawn_plugin : request_kind::spawn_program;
  head.arguments = static_cast<std::uint32_t>(arguments.size());
  head.strings = static_cast<std::uint32_t>(arguments.size() + environment.size());
  head.memory_limit = memory_limit;
  std::string strings;
  for (const auto* list : {&arguments, &environment})
    for (const std::string& each : *list) strings.append(each.c_str(), std::strlen(each.c_str()) + 1);
  if (strings.size() > strings_limit)
    throw std::runtime_error("arguments and environment of a worker are limited to 32 KiB together");
  head.strings_size = static_cast<std::uint32_t>(strings.size());

  std::lock_guard held(mutex_);
  for (;;) {
    if (stopped_) throw std::runtime_error("the host has been shut down");
    answer out;
    unique_fd pidfd;
    if (exchange(head, strings, fds, out, pidfd)) {
      if (out.error) throw std::system_error(out.error, std::generic_category(), "the fork server could not clone a worker");
      living_[pidfd.get()] = out.pid;
      return {std::move(pidfd), out.pid, out.pid_namespace != 0};
    }
    // It has died; its workers live on. Start another and tell it of them, a few times at most.
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    const auto now = std::chrono::steady_clock::now();
    while (!deaths_.empty() && now - deaths_.front() > death_window) deaths_.pop_front();
    deaths_.push_back(now);
    if (deaths_.size() >= deaths_allowed)
      throw std::runtime_error("the fork server died " + std::to_string(deaths_.size()) + " times within a minute; giving up");
    start();
    adopt_all();
  }
}

void client::adopt_all() {
  for (const auto& [pidfd, pid] : living_) {
    request head;
    head.kind = request_kind::adopt;
    answer unused;
    unique_fd none;
    exchange(head, "", {pidfd}, unused, none);
  }
}

bool client::exchange(const request& head, const std::string& strings, const std::vector<int>& fds, answer& out,
                      unique_fd& pidfd) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)]{};
  std::array<iovec, 2> parts = {iovec{const_cast<request*>(&head), sizeof head},
                                iovec{const_cast<char*>(strings.data()), strings.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  ssize_t n = 0;
  do n = ::sendmsg(control_.get(), &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0) return false;
  if (head.kind == request_kind::adopt) return true;

  pollfd ready{control_.get(), POLLIN, 0};
  int polled = 0;
  do polled = ::poll(&ready, 1, answer_timeout_ms);
  while (polled < 0 && errno == EINTR);
  if (polled <= 0) return false;
  alignas(cmsghdr) char incoming[CMSG_SPACE(sizeof(int))];
  iovec part{&out, sizeof out};
  message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = incoming;
  message.msg_controllen = sizeof incoming;
  n = ::recvmsg(control_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n != static_cast<ssize_t>(sizeof out) || out.magic != magic) return false;
  header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    pidfd.reset(fd);
  }
  return out.error != 0 || pidfd;
}

void client::forget(int pidfd) {
  std::lock_guard held(mutex_);
  living_.erase(pidfd);
}

void client::stop() {
  std::lock_guard held(mutex_);
  if (std::exchange(stopped_, true)) return;
  control_.reset();  // its end-of-file: the fork server kills what is left and exits
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

pid_t client::pid() const {
  std::lock_guard held(mutex_);
  return pid_;
}

}  // namespace bulkhead::fork_server
