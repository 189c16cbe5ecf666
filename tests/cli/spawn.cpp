// bulkhead spawn and exec, as a user runs them.
#include "program.hpp"
#include "terminal.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <csignal>

#include <poll.h>
#include <sys/syscall.h>

using namespace bulkhead::testing;
using json = nlohmann::json;

TEST_CASE("spawn runs a program with our streams and ends as it does") {
  const finished done = run({"bulkhead", "spawn", "sh", "-c", "cat; echo err >&2; exit 7"}, "input");
  CHECK(done.status == 7);
  CHECK(done.out == "input");
  CHECK(done.err == "err\n");
  CHECK(run({"bulkhead", "spawn", "--", "sh", "-c", "kill -KILL $$"}).status == 128 + SIGKILL);
}

TEST_CASE("spawn says why nothing was started") {
  const finished missing = run({"bulkhead", "spawn", "no-such-program"});
  CHECK(missing.status == 127);
  CHECK(missing.err.find("bulkhead spawn: spawn no-such-program: execve: No such file") == 0);
  const finished told = run({"bulkhead", "spawn", "--json", "no-such-program"});
  CHECK(told.status == 127);
  CHECK(json::parse(told.err)["reason"] == "not_started");
  CHECK(json::parse(told.err)["errno"] == ENOENT);
  const finished collected = run({"bulkhead", "exec", "--json", "--directory", "/no/such/place", "true"});
  CHECK(json::parse(collected.out)["error"].get<std::string>().find("/no/such/place") != std::string::npos);
  CHECK(run({"bulkhead", "spawn", "/etc/passwd"}).status == 126);
  CHECK(run({"bulkhead", "spawn"}).status == 2);
  CHECK(run({"bulkhead", "spawn", "--grant", "nonsense:1", "true"}).status == 2);
}

TEST_CASE("spawn tells as JSON how a sandboxed program ended, what it used, what it was denied") {
  const finished done = run({"bulkhead", "spawn", "--policy", "strict", "--json", "/usr/bin/unshare", "-U", "true"});
  const json account = json::parse(done.err.substr(done.err.find('{')));
  CHECK(account["reason"] == "exited");
  CHECK(account["code"] == done.status);
  CHECK(account["max_resident_bytes"] > 0);
  REQUIRE(!account["violations"].empty());
  CHECK(account["violations"][0]["system_call"] == "unshare");
  const finished killed = run({"bulkhead", "spawn", "--json", "sh", "-c", "kill -TERM $$"});
  CHECK(json::parse(killed.err)["signal"] == "SIGTERM");
}

TEST_CASE("exec tells as JSON what a sandboxed command wrote and used, and what it was denied") {
  const finished done = run({"bulkhead", "exec", "--policy", "strict", "--grant", "read:/usr/bin", "--json",
                             "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $i; /usr/bin/unshare -U true"});
  INFO(done.out << done.err);
  const json account = json::parse(done.out);
  CHECK(account["stdout"] == "20000\n");
  CHECK(account["stderr"].get<std::string>().starts_with("unshare: "));
  CHECK(account["reason"] == "exited");
  CHECK(account["code"] == done.status);
  CHECK(account["signal"] == nullptr);
  const auto microseconds = account["user_us"].get<long>() + account["system_us"].get<long>();
  CHECK(microseconds > 1000);
  CHECK(microseconds < 60'000'000);
  CHECK(account["max_resident_bytes"] > 100 << 10);
  CHECK(account["max_resident_bytes"] < 1 << 30);
  REQUIRE(!account["violations"].empty());
  CHECK(account["violations"].back()["system_call"] == "unshare");
  CHECK(account["violations"].back()["program"] == "/usr/bin/unshare");
}

TEST_CASE("a policy's file and grants decide what a spawned program sees") {
  const scratch_folder folder;
  const auto file = write(folder / "policy.toml", "read = [\"/usr/bin\", \"/etc/passwd\"]\n");
  CHECK(run({"bulkhead", "spawn", "--policy", "strict", "cat", "/etc/passwd"}).out.empty());
  CHECK(run({"bulkhead", "spawn", "--policy", file, "cat", "/etc/passwd"}).out.find("root:") == 0);
  CHECK(run({"bulkhead", "spawn", "--grant", "read:/etc/passwd", "cat", "/etc/passwd"}).out.find("root:") == 0);
}

TEST_CASE("a timeout ends spawn and exec with a status of its own") {
  CHECK(run({"bulkhead", "spawn", "--timeout", "100ms", "sleep", "300"}).status == 124);
  const finished done = run({"bulkhead", "exec", "--timeout", "200ms", "--json", "echo begun; sleep 300"});
  CHECK(done.status == 124);
  const json account = json::parse(done.out);
  CHECK(account["reason"] == "timed_out");
  CHECK(account["stdout"] == "begun\n");
}

TEST_CASE("what spawn's program has started ends with it, and so does a timeout's") {
  const pid_t left =
      std::stoi(run({"bulkhead", "spawn", "sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & echo $!"}).out);
  CHECK(::kill(left, 0) != 0);
  const finished late = run({"bulkhead", "spawn", "--timeout", "500ms", "--grace", "100ms", "sh", "-c",
                             "sh -c 'trap \"\" TERM; echo $$; exec sleep 300 >/dev/null 2>&1' & wait"});
  CHECK(late.status == 124);
  CHECK(::kill(std::stoi(late.out), 0) != 0);
}

TEST_CASE("exec collects, limits, and shows both outputs") {
  const finished done = run({"bulkhead", "exec", "--input", "abc", "tr a-z A-Z; echo err >&2; exit 3"});
  CHECK(done.status == 3);
  CHECK(done.out == "ABC");
  CHECK(done.err == "err\n");
  const finished flood = run({"bulkhead", "exec", "--max-output", "1K", "--json", "yes"});
  CHECK(flood.status == 125);
  CHECK(json::parse(flood.out)["stdout"].get<std::string>().size() == 1024);
  CHECK(json::parse(flood.out)["reason"] == "output_limit");
}

TEST_CASE("spawn passes signals on") {
  program trapping(
      {"bulkhead", "spawn", "sh", "-c", "trap 'echo told; exit 4' TERM; echo ready; while :; do sleep 0.05; done"});
  CHECK(trapping.wait_for("ready").find("ready") != std::string::npos);
  trapping.signal(SIGTERM);
  const finished done = trapping.wait();
  CHECK(done.status == 4);
  CHECK(done.out.find("told") != std::string::npos);
}

TEST_CASE("a child of spawn's dies with it when that is killed") {
  program killed({"bulkhead", "spawn", "sh", "-c", "echo $$ ready; exec sleep 300"});
  const pid_t sleeper = std::stoi(killed.wait_for("ready"));
  const bulkhead::unique_fd watched(static_cast<int>(::syscall(SYS_pidfd_open, sleeper, 0)));
  REQUIRE(watched);
  killed.signal(SIGKILL);
  pollfd end{watched.get(), POLLIN, 0};
  const bool ended = ::poll(&end, 1, 10'000) == 1;
  ::syscall(SYS_pidfd_send_signal, watched.get(), SIGKILL, nullptr, 0);  // or it would hold its output open
  CHECK(ended);
  CHECK(killed.wait().status == 128 + SIGKILL);
}

TEST_CASE("on a terminal a sandboxed program is in the foreground, where the terminal's signals reach it") {
  on_terminal sandboxed({"bulkhead", "spawn", "--grant", "read:/bin", "--grant", "read:/usr/bin", "sh", "-c",
                         "trap 'echo told; exit 4' INT; echo ready; while :; do sleep 0.05; done"});
  sandboxed.read_until("ready");
  sandboxed.type("\x03");
  sandboxed.read_until("told");
  CHECK(sandboxed.wait() == 4);
}
