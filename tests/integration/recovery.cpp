// What supervision does in the course of time: probes of a plugin that was given up, drains that take too long, workers that
// get old, restarts that wait, and what reports keep of a worker's last words.
#include "watched_host.hpp"

#include <csignal>
#include <future>

#include <sys/ptrace.h>
#include <sys/wait.h>

namespace bulkhead::testing {
namespace {

using kind = enum lifecycle_event::kind;
using state = enum plugin_status::state;

// A debugger that holds a process until it is destroyed. None where that is not allowed.
class debugger {
 public:
  explicit debugger(pid_t pid) {
    int ends[2], told[2];
    if (::pipe2(ends, O_CLOEXEC) != 0 || ::pipe2(told, O_CLOEXEC) != 0) return;
    pid_ = ::fork();
    char byte = 0;
    if (pid_ == 0) {
      ::close(ends[1]);
      byte = ::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) == 0 ? 1 : 0;
      if (::write(told[1], &byte, 1) == 1) [[maybe_unused]]
        const ssize_t end = ::read(ends[0], &byte, 1);
      ::_exit(0);
    }
    ::close(ends[0]);
    ::close(told[1]);
    holds_ = ::read(told[0], &byte, 1) == 1 && byte == 1;
    ::close(told[0]);
    lifeline_.reset(ends[1]);
  }
  ~debugger() {
    lifeline_.reset();
    ::waitpid(pid_, nullptr, 0);
  }
  debugger(const debugger&) = delete;
  debugger& operator=(const debugger&) = delete;
  explicit operator bool() const { return holds_; }

 private:
  pid_t pid_ = -1;
  bool holds_ = false;
  unique_fd lifeline_;
};

}  // namespace

TEST_CASE("a plugin that was given up is tried again with one worker, and comes back if that one stays well") {
  watched_host host;
  load_options options{.instances = 2};
  options.supervision.intensity.restarts = 0;
  options.supervision.probe_after = 20ms;
  SECTION("it stays well") {
    options.supervision.backoff.healthy_after = 50ms;
    auto chaos = host.self.load(plugin_path("chaos"), options);
    CHECK(chaos.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    REQUIRE(host.saw(kind::gave_up));
    REQUIRE(host.saw(kind::recovered));
    CHECK(chaos.call<int>("echo", 1) == 1);
    CHECK(chaos.status().state == state::running);
    CHECK(chaos.status().serving == 2);
    CHECK(host.count(kind::started) == 4);  // two, the one that was tried, and another one beside it
    CHECK(host.count(kind::gave_up) == 1);
  }
  SECTION("it fails, too") {
    options.supervision.backoff.healthy_after = 600s;
    auto chaos = host.self.load(plugin_path("chaos"), options);
    CHECK(chaos.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    REQUIRE(host.saw(kind::gave_up));
    while (chaos.status().serving == 0) std::this_thread::yield();
    CHECK(chaos.status().state == state::half_open);
    CHECK(chaos.call<int>("echo", 1) == 1);
    CHECK(chaos.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    REQUIRE(host.saw(kind::gave_up, 2));
    CHECK(host.last(kind::gave_up).text.find("the worker that tried it again ended") != std::string::npos);
  }
}

TEST_CASE("a worker whose calls don't end while it drains is killed, and that is no failure") {
  watched_host host;
  load_options options;
  options.supervision.drain = {.calls = 20ms, .shutdown = 20ms};
  options.poison_limit = 1;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  const pid_t before = chaos.workers().at(0).pid;
  mailbox<outcome> ended;
  chaos.async_call<reply>("misbehave", std::tuple{"ignore_cancel"}, outcome_to(ended));
  REQUIRE(gets_into_call(chaos));
  CHECK(chaos.recycle());
  REQUIRE(host.saw(kind::exited));
  CHECK(host.last(kind::exited).pid == before);
  CHECK(host.last(kind::exited).report->reason == exit_reason::shut_down);
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values()[0] == outcome::worker_lost);
  CHECK(chaos.call<int>("echo", 1) == 1);
  CHECK(host.count(kind::restarting) == 0);
  CHECK(host.count(kind::poisoned) == 0);
}

TEST_CASE("a call in a worker that is waited for no longer ends, without a deadline, too") {
  watched_host host;
  load_options options;
  options.supervision.drain = {.calls = 20ms, .shutdown = 0s, .undead_after = 0s};
  auto chaos = host.self.load(plugin_path("chaos"), options);
  auto call = std::async(std::launch::async, [&] {
    return chaos.with({.deadline = no_deadline}).try_call("misbehave", "ignore_cancel").outcome();
  });
  REQUIRE(gets_into_call(chaos));
  CHECK(chaos.recycle());
  REQUIRE(host.saw(kind::undead));
  CHECK(call.get() == outcome::worker_lost);
  CHECK(host.saw(kind::exited));  // it was killed, after all
  CHECK(chaos.call<int>("echo", 1) == 1);
}

TEST_CASE("a worker that dies under a debugger is reaped when that lets go of it") {
  watched_host host;
  auto echo = host.self.load(plugin_path("echo"));
  const pid_t pid = echo.workers().at(0).pid;
  {
    const debugger holds(pid);
    if (!holds) {
      WARN("nobody may debug a worker here");
      return;
    }
    ::kill(pid, SIGKILL);
    REQUIRE(host.saw(kind::exited));
    CHECK(host.last(kind::exited).pid == pid);
    CHECK(echo.call<int>("add", 1, 2) == 3);
    CHECK(!gone(pid));
  }
  CHECK(eventually([&] { return gone(pid); }));
}

TEST_CASE("a worker that is waited for no longer while it starts fails its load, and holds up no other plugin's") {
  mailbox<lifecycle_event> events;
  host host({.on_lifecycle = [&](const lifecycle_event& event) { events.put(event); }, .spawns = {.at_once = 1}});
  const auto saw = [&](kind what, std::ptrdiff_t times) {
    return events.wait([&](const auto& all) {
      return std::count_if(all.begin(), all.end(), [&](const auto& event) { return event.kind == what; }) >= times;
    });
  };
  auto other = host.load(plugin_path("echo"), {.policy = policy{}.allow_connect(443)});  // by another fork server
  load_options options{.start_timeout = 1s};
  options.supervision.drain.undead_after = 1ms;
  auto stuck = std::async(std::launch::async, [&]() -> std::string {
    try {
      host.launch({"/bin/sleep", "600"}, options);
    } catch (const call_error& error) {
      return error.message();
    }
    return "it started";
  });
  REQUIRE(saw(kind::started, 2));
  const pid_t server = host.fork_server_pid();
  REQUIRE(::kill(server, SIGSTOP) == 0);  // it would tell of the program's end
  CHECK_THAT(stuck.get(), Catch::Contains("could not start: the worker was killed, and does not end"));
  CHECK(other.recycle());
  CHECK(saw(kind::ready, 2));
  ::kill(server, SIGCONT);
  const auto all = events.values();
  CHECK(std::none_of(all.begin(), all.end(), [](const auto& event) { return event.kind == kind::restarting; }));
}

TEST_CASE("a worker is replaced when it has reached its age, and that is no failure") {
  watched_host host;
  load_options options;
  options.supervision.recycle.age = 50ms;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  REQUIRE(host.saw(kind::exited, 2));
  for (const auto& event : host.events.values())
    if (event.kind == kind::exited) CHECK(event.report->reason == exit_reason::shut_down);
  CHECK(chaos.call<int>("echo", 1) == 1);
  CHECK(host.count(kind::restarting) == 0);
}

TEST_CASE("the last lines of a worker that died are in its report and in the event that gives its plugin up") {
  watched_host host;
  load_options options;
  options.supervision.intensity.restarts = 0;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  CHECK(chaos.try_call("misbehave", "stderr_lines").outcome() == outcome::ok);
  const auto died = failure_of([&] { chaos.call("misbehave", "abort"); });
  REQUIRE(died.report());
  REQUIRE(host.saw(kind::gave_up));
  REQUIRE(host.last(kind::gave_up).last_exits.size() == 1);
  for (const auto& report : {died.report(), host.last(kind::gave_up).last_exits[0]}) {
    CHECK(report->log_tail.find("first line on stderr") != std::string::npos);
    CHECK(report->log_tail.find("unfinished line on stderr") != std::string::npos);
  }
}

TEST_CASE("restarts of all plugins together have a limit, first starts do not") {
  mailbox<lifecycle_event> events;
  host host({.on_lifecycle = [&](const lifecycle_event& event) { events.put(event); },
             .spawns = {.restarts = {.restarts = 2, .period = 600s}}});
  auto one = host.load(plugin_path("chaos"), untiring());
  auto other = host.load(plugin_path("chaos"), untiring());
  for (const plugin* each : {&one, &other}) {
    CHECK(each->try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    CHECK(each->call<int>("echo", 1) == 1);
  }
  CHECK(one.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
  REQUIRE(events.wait([](const auto& all) {
    return std::count_if(all.begin(), all.end(), [](const auto& event) { return event.kind == kind::restarting; }) == 3;
  }));
  const auto late = host.load(plugin_path("chaos"));
  CHECK(late.call<int>("echo", 2) == 2);
  CHECK(one.with({.deadline = 20ms}).try_call("echo", 1).outcome() == outcome::timeout);  // it waits for its turn
  CHECK(one.status().state == state::running);
  CHECK(other.call<int>("echo", 3) == 3);
}

TEST_CASE("a group whose restarts are more than all plugins together have left waits for its turn as a whole") {
  mailbox<lifecycle_event> events;
  host host({.on_lifecycle = [&](const lifecycle_event& event) { events.put(event); },
             .spawns = {.restarts = {.restarts = 2, .period = 600s}}});
  auto group = host.group({.strategy = restart_strategy::one_for_all, .intensity = {.restarts = 1'000'000}});
  auto one = group.load(plugin_path("chaos"), untiring());
  auto other = group.load(plugin_path("chaos"), untiring());
  const auto crash = [&](const plugin& which, std::ptrdiff_t stopped) {
    CHECK(which.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    REQUIRE(events.wait([&](const auto& all) {
      return std::count_if(all.begin(), all.end(), [](const auto& event) { return event.kind == kind::regrouped; }) ==
             stopped;
    }));
  };
  crash(one, 2);
  CHECK(one.call<int>("echo", 1) == 1);
  CHECK(other.call<int>("echo", 2) == 2);
  crash(other, 4);
  CHECK(other.with({.deadline = 20ms}).try_call("echo", 3).outcome() == outcome::timeout);
  CHECK(one.with({.deadline = 20ms}).try_call("echo", 4).outcome() == outcome::timeout);
  CHECK(host.load(plugin_path("chaos")).call<int>("echo", 5) == 5);  // it is no restart
}

}  // namespace bulkhead::testing
