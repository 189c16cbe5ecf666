// Denied system calls that no signal handler can report: those of programs that a plugin has started, and those that the
// C library makes with all signals blocked. The worker's filter asks through a listener (SECCOMP_RET_USER_NOTIF), which the
// worker hands to the fork server before its plugin is loaded. Here each is reported to the host and then fails; the host
// itself may be busy for as long as it likes.
//
// The callers are hostile: what they name is read only to be reported, and only to explain or to learn, since who looks at
// another's memory may have to wait; and nothing is allowed by what was read. A flood is answered at a bounded rate, at the
// cost of the callers' time.
#pragma once

#include <bulkhead/ipc/system.hpp>
#include <bulkhead/policy.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include <linux/seccomp.h>
#include <sys/types.h>

namespace bulkhead::fork_server {

class denied_calls {
 public:
  // `epoll`: where the descriptors to be served are watched, by their numbers.
  explicit denied_calls(int epoll);

  // The end of a socket that new workers hand their listeners over by.
  int supervisor() const { return theirs_.get(); }
  // A worker was born that will hand over a listener; and one has died, which may not have come to it.
  void expect(pid_t pid, int pidfd, const policy::values& granted, unique_fd reports, unique_fd black_box = {});
  void died(pid_t pid) { expected_.erase(pid); }

  // False when it is none of ours.
  bool serve(int fd);
  // Goes on with what was put off; says for how many milliseconds there is nothing more to do so, -1 for ever.
  int resume();

 private:
  using clock = std::chrono::steady_clock;
  struct worker {
    pid_t pid = -1;
    unique_fd pidfd, reports, black_box;
    bool kills = false, learns = false;
    bool reads = false;  // what its calls name
  };
  struct supervised {
    worker who;
    clock::time_point period{};  // for which these are counted
    unsigned answered = 0, reported = 0;
    bool heard = true;  // the host reads what is learned
    std::uint32_t denied = 0;
    std::set<std::string> learned{};
  };

  void take_over();
  void answer(int listener, supervised& from);
  void report(int listener, supervised& from, const seccomp_notif& asked, int error, char mode);
  std::string read_file(const std::string& name) const;
  std::string read_memory(pid_t thread, unsigned long at, std::size_t most) const;
  pid_t process_of(pid_t thread) const;
  std::string program_of(pid_t process) const;
  void watch(int fd, int operation, std::uint32_t events) const;

  const int epoll_;
  unique_fd proc_, ours_, theirs_;
  std::map<pid_t, worker> expected_;
  std::map<int, std::pair<unique_fd, supervised>> listeners_;
  std::set<int> paused_;  // of those
};

}  // namespace bulkhead::fork_server
