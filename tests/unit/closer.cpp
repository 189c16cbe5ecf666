// What may take as long as others like, and holds up nobody: here, the end of a killed process.
#include "closer.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <thread>

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

using bulkhead::unique_fd;

namespace {

// A child that has not ended though somebody thinks it was killed, as one in an uninterruptible sleep.
struct undead {
  pid_t pid = ::fork();
  undead() {
    while (pid == 0) ::pause();
    REQUIRE(pid > 0);
  }
  unique_fd pidfd() const {
    unique_fd made(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    REQUIRE(made);
    return made;
  }
};

}  // namespace

TEST_CASE("a killed process that does not end holds up nobody, and is reaped when it does") {
  bulkhead::closer closer;
  const undead child;
  const unique_fd mine = child.pidfd();
  closer.reap(child.pidfd());
  ::kill(child.pid, SIGKILL);
  const auto there = [&] {
    siginfo_t how{};
    return ::waitid(P_PIDFD, static_cast<id_t>(mine.get()), &how, WEXITED | WNOHANG | WNOWAIT) == 0;
  };
  for (const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20); there();) {
    REQUIRE(std::chrono::steady_clock::now() < limit);
    std::this_thread::yield();
  }
  CHECK(errno == ECHILD);
}

TEST_CASE("a killed process that never ends does not hold up the end of who waits for it") {
  const undead child;
  {
    bulkhead::closer closer;
    closer.reap(child.pidfd());
  }
  CHECK(::waitpid(child.pid, nullptr, WNOHANG) == 0);
  ::kill(child.pid, SIGKILL);
  // By whom it is reaped depends on whether the closer's thread was in time for its last look.
  const pid_t reaped = ::waitpid(child.pid, nullptr, 0);
  CHECK((reaped == child.pid || errno == ECHILD));
}
