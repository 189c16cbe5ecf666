// See server_process.hpp. The host itself never forks: posix_spawn uses vfork semantics, whose cost does not grow with the
// host's memory, and only once; all else comes from the servers.
#include "fork_server/server_process.hpp"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead::fork_server {
namespace {

constexpr int killed_ms = 1000;  // for the kernel to end what was killed

// Where it may be, the likeliest first. No absolute path is compiled in: what is installed can be moved.
std::vector<std::filesystem::path> worker_places() {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  std::vector<std::filesystem::path> places{program / "bulkhead-worker"};
  Dl_info us{};
  if (::dladdr(reinterpret_cast<void*>(&worker_places), &us) && us.dli_fname) {  // the shared library's file
    const auto library = std::filesystem::canonical(us.dli_fname, ignored);
    if (!library.empty()) places.push_back(library.parent_path() / BULKHEAD_WORKER_FROM_LIBRARY);
  }
  places.push_back((program / BULKHEAD_WORKER_FROM_PROGRAM).lexically_normal());
#ifdef BULKHEAD_BUILT_WORKER_PATH
  places.emplace_back(BULKHEAD_BUILT_WORKER_PATH);
#endif
  return places;
}

}  // namespace

bool has_ended(int pidfd, int within_ms) {
  pollfd end{pidfd, POLLIN, 0};
  int polled = 0;
  do polled = ::poll(&end, 1, within_ms);
  while (polled < 0 && errno == EINTR);
  return polled > 0;
}

server_end end_server(int pidfd, int within_ms) {
  server_end out;
  out.by_itself = has_ended(pidfd, within_ms);
  if (!out.by_itself) {
    ::syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
    has_ended(pidfd, killed_ms);
  }
  siginfo_t how{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &how, WEXITED | WNOHANG) != 0 || how.si_pid == 0) return out;
  (how.si_code == CLD_EXITED ? out.code : out.signal) = how.si_status;
  return out;
}

std::filesystem::path find_worker_program(const std::filesystem::path& configured) {
  const auto places = configured.empty() ? worker_places() : std::vector{configured};
  std::string searched;
  for (const auto& place : places) {
    if (::access(place.c_str(), X_OK) == 0) return place;
    searched += (searched.empty() ? "" : ", ") + place.string();
  }
  throw std::runtime_error("bulkhead: the program bulkhead-worker was not found (searched: " + searched +
                           "); build or install it, or name it in host_options::worker_path");
}

std::filesystem::path command_program(const std::filesystem::path& worker) {
  const auto folder = worker.parent_path(), beside = folder / "bulkhead";
  const auto installed = (folder / BULKHEAD_PROGRAM_FROM_WORKER).lexically_normal();
  const auto there = [](const auto& place) { return ::access(place.c_str(), X_OK) == 0; };
  return !there(beside) && there(installed) ? installed : beside;
}

server_process start_server(const std::filesystem::path& program, const std::string& variable,
                            std::vector<std::string> environment) {
  constexpr int control_fd = 3;
  int pair[2];
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
  unique_fd ours(pair[0]), theirs(pair[1]);

  // The descriptor must lose close-on-exec, which dup2 does only when the numbers differ.
  const unique_fd high(checked(::fcntl(theirs.get(), F_DUPFD_CLOEXEC, 10), "fcntl(F_DUPFD_CLOEXEC)"));

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, 0, 1);  // stderr stays: a program that can't start says why there
  ::posix_spawn_file_actions_adddup2(&actions, high.get(), control_fd);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  std::string name = program.string();
  environment.push_back(variable + "=" + std::to_string(control_fd));
  char* argv[] = {name.data(), nullptr};
  std::vector<char*> envp;
  for (std::string& each : environment) envp.push_back(each.data());
  // A sanitizer's runtime has to be there before a plugin that was built with it: see docs/authors.md.
  const char* preload = std::getenv("BULKHEAD_WORKER_PRELOAD");
  std::string preloaded = std::string("LD_PRELOAD=") + (preload ? preload : "");
  if (preload) envp.push_back(preloaded.data());
#ifndef BULKHEAD_SANITIZED
  if (preload)
#endif
    for (char** entry = environ; *entry; ++entry)
      if (std::strstr(*entry, "SAN_OPTIONS=")) envp.push_back(*entry);
  envp.push_back(nullptr);
  server_process started;
  const int failed = ::posix_spawn(&started.pid, name.c_str(), &actions, &attributes, argv, envp.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (failed) throw std::system_error(failed, std::generic_category(), "could not start " + name);
  started.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, started.pid, 0)));
  if (!started.pidfd) {  // nobody could tell when it ends
    const std::error_code why(errno, std::generic_category());
    ::kill(started.pid, SIGKILL);
    ::waitpid(started.pid, nullptr, 0);
    throw std::system_error(why, "pidfd_open");
  }
  started.control = std::move(ours);
  return started;
}

}  // namespace bulkhead::fork_server
