// See host_death.hpp. This process is the reaper of all its orphaned descendants (PR_SET_CHILD_SUBREAPER), so once the
// host is dead the kernel itself tells when nothing of it is left: there is no child any more. What lives in a worker's
// own process namespace goes down with the worker, which is the first process there.
#include "host_death.hpp"

#include "plan.hpp"
#include <bulkhead/host.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace chaos {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

const std::string plugin = BULKHEAD_TEST_PLUGINS "/chaos.so";
constexpr auto limit = 1s;

struct victim {
  pid_t pid = -1;
  bulkhead::unique_fd out;
};

victim start_host() {
  int pipe[2];
  bulkhead::checked(::pipe2(pipe, O_CLOEXEC), "pipe2");
  victim made;
  made.out.reset(pipe[0]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  char name[] = "/proc/self/exe", option[] = "be-killed";
  char* argv[] = {name, option, nullptr};
  const int failed = ::posix_spawn(&made.pid, name, &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  if (failed != 0) throw std::system_error(failed, std::generic_category(), "posix_spawn");
  return made;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  std::ifstream list(fmt::format("/proc/{0}/task/{0}/children", parent));
  for (pid_t child = 0; list >> child;) found.push_back(child);
  return found;
}

std::size_t descendants_of(pid_t parent) {
  std::size_t count = 0;
  for (const pid_t child : children_of(parent)) count += 1 + descendants_of(child);
  return count;
}

// How long until nothing was left; nothing when that took longer than the limit.
std::optional<double> time_to_die(const victim& host) {
  const auto began = clock::now();
  ::kill(host.pid, SIGKILL);
  for (;;) {
    const pid_t ended = ::waitpid(-1, nullptr, WNOHANG);
    const auto took = clock::now() - began;
    if (ended < 0) return std::chrono::duration<double, std::milli>(took).count();
    if (took > limit) return std::nullopt;
    if (ended == 0) std::this_thread::sleep_for(200us);
  }
}

std::string survivors() {
  std::string text;
  for (const pid_t child : children_of(::getpid())) {
    std::string name;
    std::getline(std::ifstream("/proc/" + std::to_string(child) + "/comm"), name);
    text += fmt::format(" {} ({}, {} descendants)", child, name, descendants_of(child));
    ::kill(child, SIGKILL);  // whatever it is, it goes now
  }
  while (::waitpid(-1, nullptr, 0) > 0) continue;
  return text;
}

}  // namespace

int kill_hosts(unsigned times, unsigned long seed, bool json) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  dice random(seed);
  std::vector<double> took;
  std::size_t most = 0;
  unsigned failures = 0;
  const auto kill_one = [&](const victim& host, const char* when) {
    most = std::max(most, descendants_of(host.pid));
    if (const auto time = time_to_die(host)) return took.push_back(*time);
    ++failures;
    fmt::print(stderr, "alive 1 s after their host was killed {}:{}\n", when, survivors());
  };
  for (unsigned i = 0; i < times; ++i) {
    const victim host = start_host();
    char ready[6]{};
    if (::read(host.out.get(), ready, sizeof ready) != sizeof ready) {
      fmt::print(stderr, "a host did not start\n");
      survivors();
      return 1;
    }
    kill_one(host, "in calls");
  }
  for (unsigned i = 0; i < times / 4; ++i) {
    const victim host = start_host();
    std::this_thread::sleep_for(std::chrono::microseconds(one_of(random, 30'000)));
    kill_one(host, "at its start");
  }
  std::sort(took.begin(), took.end());
  const double median = took.empty() ? 0 : took[took.size() / 2], worst = took.empty() ? 0 : took.back();
  if (json)
    fmt::print("{}\n", nlohmann::json{{"hosts_killed", times + times / 4},
                                      {"most_descendants", most},
                                      {"survived", failures},
                                      {"gone_after_ms", {{"median", median}, {"worst", worst}}}}
                           .dump(2));
  else
    fmt::print(
        "{} hosts killed, with up to {} processes: all gone after {:.1f} ms (median), {:.1f} ms (worst); {} left "
        "something alive after 1 s\n",
        times + times / 4, most, median, worst, failures);
  return failures == 0 ? 0 : 1;
}

int be_killed() {
  bulkhead::host host;
  auto with_children = host.load(plugin, {.policy = bulkhead::policy{}.allow_subprocesses().threads(64)});
  with_children.call<int>("children", 5);
  auto several = host.load(plugin, {.instances = 3});
  auto stopped = host.load(plugin);
  ::kill(stopped.workers().at(0).pid, SIGSTOP);  // it cannot notice that the host is gone
  const std::vector busy{with_children, several};
  const char* const ways[] = {"ignore_cancel", "endless_loop", "deadlock"};
  for (const auto& each : busy)
    for (std::size_t i = 0; i < each.workers().size(); ++i)
      each.async_call<void>("misbehave", std::tuple(std::string(ways[i])), [](boost::system::error_code) {});
  const auto in_a_call = [](const auto& plugin_of) {
    const auto workers = plugin_of.workers();
    return std::all_of(workers.begin(), workers.end(),
                       [](const auto& worker) { return worker.phase == bulkhead::phase::call; });
  };
  while (!std::all_of(busy.begin(), busy.end(), in_a_call)) std::this_thread::yield();
  if (::write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
  for (;;) ::pause();
}

}  // namespace chaos
