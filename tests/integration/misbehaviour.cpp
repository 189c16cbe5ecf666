// Every way to misbehave that the chaos plugin knows, in a call: exactly one right outcome, and the host, the other
// plugin and the next call are none the worse for it.
#include "fixture.hpp"

#include <csignal>

#include <fcntl.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

struct expectation {
  const char* kind;
  bulkhead::outcome outcome;
  exit_reason reason = exit_reason::unknown;  // of its worker's end, if it ends
  int signal_or_code = 0;
};

constexpr auto signalled = exit_reason::signalled, exited = exit_reason::exited, hung = exit_reason::hung,
               closed = exit_reason::closed;

const expectation expectations[] = {
    {"segfault", outcome::worker_lost, signalled, SIGSEGV},
    {"abort", outcome::worker_lost, signalled, SIGABRT},
    {"stack_overflow", outcome::worker_lost, signalled, SIGSEGV},
    {"bus_error", outcome::worker_lost, signalled, SIGBUS},
    {"write_to_code", outcome::worker_lost, signalled, SIGSEGV},
    {"illegal_instruction", outcome::worker_lost, signalled, SIGILL},
    {"exit_0", outcome::worker_lost, exited, 0},
    {"exit_3", outcome::worker_lost, exited, 3},
    {"_exit_0", outcome::worker_lost, exited, 0},
    {"uncaught_exception_in_thread", outcome::worker_lost, signalled, SIGABRT},
    {"terminate", outcome::worker_lost, signalled, SIGABRT},
    {"jump_to_null", outcome::worker_lost, signalled, SIGSEGV},
    {"raise_sigterm", outcome::worker_lost, signalled, SIGTERM},
    {"fork_children", outcome::worker_lost, signalled, SIGSEGV},
    {"close_all_fds", outcome::worker_lost, closed, SIGKILL},
    {"close_channel", outcome::worker_lost, closed, SIGKILL},
#ifndef BULKHEAD_SANITIZED  // these a sanitizer catches first, or makes impossible
    {"divide_by_zero", outcome::worker_lost, signalled, SIGFPE},
    {"smashed_stack", outcome::worker_lost, signalled, SIGABRT},
    {"smashed_return", outcome::worker_lost, signalled, SIGSEGV},
    {"smashed_everything", outcome::worker_lost, signalled, SIGSEGV},
    {"thread_stack_overflow", outcome::worker_lost, signalled, SIGSEGV},
    {"double_free", outcome::worker_lost, signalled, SIGABRT},
    {"memory_bomb", outcome::worker_lost, exit_reason::out_of_memory, SIGABRT},
#endif
    {"exception", outcome::plugin_error},
    {"foreign_exception", outcome::plugin_error},
    {"deadlock", outcome::timeout, hung, SIGKILL},
    {"endless_loop", outcome::timeout, hung, SIGKILL},
    {"ignore_cancel", outcome::timeout, hung, SIGKILL},
    {"never_answer", outcome::timeout, hung, SIGKILL},
    {"garbage_on_channel", outcome::protocol, exit_reason::protocol, SIGKILL},
    {"forged_response", outcome::protocol, exit_reason::protocol, SIGKILL},
    {"stdout_flood", outcome::ok},
    {"stderr_lines", outcome::ok},
    {"answer_twice", outcome::ok},
    {"raise_sigkill", outcome::ok},  // pid 1 of its namespace can't kill itself
    {"sigstop_self", outcome::ok},   // nor stop itself
};

}  // namespace

TEST_CASE("each way to misbehave has its one right outcome, and the next call is served") {
  mailbox<lifecycle_event> exits;
  host host({.on_lifecycle =
                 [&](const lifecycle_event& event) {
                   if (event.kind == lifecycle_event::kind::exited) exits.put(event);
                 },
             .spawns = any_number_of_spawns});
  auto neighbour = host.load(plugin_path("echo"));
  auto chaos = host.load(plugin_path("chaos"), untiring({.memory_limit = std::size_t{256} << 20}));
  std::size_t deaths = 0;
  for (const expectation& expected : expectations) {
    INFO(expected.kind);
    const bool hangs = expected.outcome == outcome::timeout;
    const auto limit = hangs ? 100ms : 20'000ms;
    const pid_t pid = chaos.call<int>("echo", 1) == 1 ? chaos.workers().at(0).pid : -1;
    const reply result = chaos.with({.deadline = limit}).try_call("misbehave", expected.kind);
    CHECK(result.outcome() == expected.outcome);
    CHECK(neighbour.call<int>("add", 20, 22) == 42);
    if (expected.outcome == outcome::protocol) {  // one is enough
      CHECK(chaos.try_call("echo", 7).outcome() == outcome::unavailable);
      chaos.reset();
    }
    CHECK(chaos.call<int>("echo", 7) == 7);
    if (expected.outcome == outcome::ok || expected.outcome == outcome::plugin_error) {
      CHECK(chaos.workers().at(0).pid == pid);
      continue;
    }
    REQUIRE(exits.wait_for(++deaths));
    const auto report = exits.values().back().report;
    CHECK(report->pid == pid);
    CHECK(report->reason == expected.reason);
    CHECK((expected.reason == exited ? report->exit_code : report->signal) == expected.signal_or_code);
    if (std::string_view(expected.kind) != "never_answer")
      CHECK(report->method == "misbehave");  // that one had returned
  }
}

TEST_CASE("a call that hangs ends at its deadline, and not with the grace that its worker has from then on") {
  mailbox<pid_t> dead;
  host host({.on_lifecycle =
                 [&](const lifecycle_event& event) {
                   if (event.kind == lifecycle_event::kind::exited) dead.put(event.pid);
                 },
             .spawns = any_number_of_spawns});
  auto chaos = host.load(plugin_path("chaos"), untiring());
  constexpr auto limit = 100ms, late = limit + 500ms;  // the grace is 1 s
  for (const char* kind : {"deadlock", "endless_loop", "ignore_cancel", "never_answer"})
    for (const bool async : {false, true}) {
      INFO(kind << (async ? ", asynchronous" : ""));
      const auto attempt = [&] {
        REQUIRE(chaos.call<int>("echo", 1) == 1);
        const pid_t pid = chaos.workers().at(0).pid;
        const auto began = std::chrono::steady_clock::now();
        mailbox<outcome> ended;
        if (async) chaos.async_call<reply>("misbehave", std::tuple{kind}, outcome_to(ended), {.deadline = limit});
        else ended.put(chaos.with({.deadline = limit}).try_call("misbehave", kind).outcome());
        REQUIRE(ended.wait_for(1));
        const auto took = std::chrono::steady_clock::now() - began;
        ::kill(pid, SIGKILL);  // sooner than the grace would
        CHECK(dead.wait([&](const auto& all) { return std::ranges::count(all, pid) > 0; }));
        CHECK(ended.values().at(0) == outcome::timeout);
        CHECK(took >= limit);
        return took;
      };
      CHECK(least_time(late, attempt) < late);
    }
}

TEST_CASE("children that a plugin forked die with its worker") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.policy = policy{}.allow_subprocesses()});
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  chaos.call("hold", pass_fd{pipe[1]});  // and so will each child hold it
  ::close(pipe[1]);
  CHECK(chaos.try_call("misbehave", "fork_children").outcome() == outcome::worker_lost);
  char byte = 0;
  CHECK(::read(pipe[0], &byte, 1) == 0);  // the end of the pipe: nobody is left to hold it
  ::close(pipe[0]);
}

TEST_CASE("calls under way when a worker dies end once each") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  mailbox<outcome> ended;
  for (int i = 0; i < 5; ++i)
    chaos.async_call<reply>("later", std::tuple{60'000},
                            [&](boost::system::error_code, const reply& r) { ended.put(r.outcome()); });
  CHECK(chaos.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
  REQUIRE(ended.wait_for(5));
  for (const outcome each : ended.values()) CHECK(each == outcome::worker_lost);
}
