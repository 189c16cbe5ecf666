// The host and its fork server killed at the same moment, as by an administrator or for want of memory: nobody is left to
// end the workers, so each has to see for itself that its channel has ended. What can't see that, a plugin that hangs,
// is the work of a fork server that lives: see `chaos hosts`.
#include "fixture.hpp"
#include <bulkhead/process.hpp>

#include <csignal>

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead::testing {
namespace {

#ifdef BULKHEAD_SANITIZED
constexpr auto limit = 10s;  // a sanitizer's runtime takes its time to end a process, ten of which end here at once
#else
constexpr auto limit = 1s;
#endif

// Says which its fork server is once everything runs.
[[noreturn]] void be_host(int say) {
  host host;
  auto idle = host.load(plugin_path("echo"), {.instances = 2, .supervision = {.spares = 1}});
  auto networked = host.load(plugin_path("echo"), {.policy = policy{}.allow_connect(443)});  // of another fork server
  auto parent = host.load(plugin_path("chaos"), {.policy = policy{}.allow_subprocesses().threads(64)});
  parent.call<int>("children", 3);
  auto busy = host.load(plugin_path("chaos"));
  auto peer = host.launch({BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello", "ready", "hold"});
  launcher launch;
  auto child = launch.spawn("sleep", {"1000"});
  busy.async_call("sleep_ms", std::tuple{100}, [](boost::system::error_code) {});
  while (busy.workers().at(0).phase != phase::call) std::this_thread::yield();
  const pid_t server = host.fork_server_pid();
  if (::write(say, &server, sizeof server) != sizeof server) ::_exit(1);
  for (;;) ::pause();
}

struct process {
  pid_t pid;
  unique_fd end;
};

// It and all that it has started, whichever of its threads did.
void add_tree(std::vector<process>& to, pid_t root) {
  to.push_back({root, unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, root, 0)))});
  std::error_code gone;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(root) + "/task", gone)) {
    std::ifstream children(task.path() / "children");
    for (pid_t child = 0; children >> child;) add_tree(to, child);
  }
}

}  // namespace

TEST_CASE("a host that is killed together with its fork server leaves no process behind, whichever goes first") {
  const bool server_first = GENERATE(true, false);
  INFO((server_first ? "the fork server goes first" : "the host goes first"));
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  const pid_t host = ::fork();
  if (host == 0) be_host(pipe[1]);
  ::close(pipe[1]);
  pid_t server = -1;
  CHECK(::read(pipe[0], &server, sizeof server) == sizeof server);
  ::close(pipe[0]);
  std::vector<process> all;
  add_tree(all, host);
  CHECK(all.size() >= 13);  // with 7 workers, 3 children of one, 2 fork servers, the program; the launcher's
  if (server > 0) ::kill(server_first ? server : host, SIGKILL);
  ::kill(server_first ? host : server, SIGKILL);
  const auto until = std::chrono::steady_clock::now() + limit;
  for (const process& each : all) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd end{each.end.get(), POLLIN, 0};
    const bool ended = !each.end || ::poll(&end, 1, static_cast<int>(std::max<std::int64_t>(left, 0))) == 1;
    INFO("process " << each.pid);
    CHECK(ended);
    if (!ended) ::syscall(SYS_pidfd_send_signal, each.end.get(), SIGKILL, nullptr, 0);
  }
  ::waitpid(host, nullptr, 0);
}

}  // namespace bulkhead::testing
