// exec and exec_file: what they collect, and each way for them to end.
#include "process_fixture.hpp"

#include <thread>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

// Runs commands by exec, or by exec_file of a script that has them.
class either_way {
 public:
  explicit either_way(bool by_file) : by_file_(by_file) {}
  template <class... Token>
  auto exec(const std::string& command, exec_options options = {}, Token&&... token) {
    if (!by_file_) return launch_.exec(command, std::move(options), std::forward<Token>(token)...);
    const auto script = write_file(folder_ / "script", "#!/bin/sh\n" + command + "\n", 0755);
    return launch_.exec_file(script, {}, std::move(options), std::forward<Token>(token)...);
  }

 private:
  const bool by_file_;
  const scratch_folder folder_;
  launcher launch_;
};

}  // namespace

TEST_CASE("exec runs a shell command and hands back both outputs") {
  launcher launch;
  const auto done = launch.exec("echo out | tr a-z A-Z; echo err >&2");
  CHECK(!done.error);
  CHECK(done.out == "OUT\n");
  CHECK(done.err == "err\n");
  CHECK(done.status.code == 0);
}

TEST_CASE("exec takes completion tokens") {
  launcher launch;
  const exec_result result = launch.exec("echo $0", {}, boost::asio::use_future).get();
  CHECK(result.out == "/bin/sh\n");
  mailbox<boost::system::error_code> errors;
  launch.exec_file("/no/such/file", {}, {},
                   [&](boost::system::error_code code, const exec_result&) { errors.put(code); });
  REQUIRE(errors.wait_for(1));
  CHECK(errors.values()[0].value() == ENOENT);
}

TEST_CASE("exec_file runs a script with a #! line, and passes arguments as they are") {
  launcher launch;
  const scratch_folder folder;
  const auto script = write_file(folder.path / "script", "#!/bin/sh -e\nprintf '%s|' \"$@\"\n", 0755);
  CHECK(launch.exec_file(script, {"a b", "$HOME", "*"}).out == "a b|$HOME|*|");
  const auto python = write_file(folder.path / "python", "#!/usr/bin/env python3\nprint(6 * 7)\n", 0755);
  CHECK(launch.exec_file(python).out == "42\n");
}

TEST_CASE("another status than 0 is an error that still has the output") {
  launcher launch;
  const auto failed = launch.exec("echo before; exit 3");
  CHECK(failed.error == process_error::failed);
  CHECK(failed.status.code == 3);
  CHECK(failed.out == "before\n");
  CHECK(launch.exec("kill -SEGV $$").status.signal == SIGSEGV);
  CHECK(error_of([&] { launch.exec_file("/no/such/file"); }).code().value() == ENOENT);
}

TEST_CASE("input is written while output is read, however much there is") {
  launcher launch;
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += std::to_string(i) + '\n';
  const auto done = launch.exec_file("cat", {}, {.input = text, .max_output = 8 << 20});
  CHECK(!done.error);
  CHECK(done.out == text);
  const auto unread = launch.exec("exit 0", {.input = text});  // no SIGPIPE, no error
  CHECK(!unread.error);
}

TEST_CASE("output past max_output is an error with what was read so far") {
  either_way launch(GENERATE(false, true));
  const auto flood = launch.exec("yes", {.max_output = 1000});
  CHECK(flood.error == process_error::output_limit);
  CHECK(flood.out.size() == 1000);
  CHECK(flood.status.signal == SIGTERM);
  const auto errors = launch.exec("echo kept; yes >&2", {.max_output = 1000});
  CHECK(errors.error == process_error::output_limit);
  CHECK(errors.out == "kept\n");
  const auto exact = launch.exec("printf 12345", {.max_output = 5});
  CHECK(!exact.error);
  CHECK(launch.exec("printf 123456", {.max_output = 5}).error == process_error::output_limit);
}

TEST_CASE("a timeout kills the whole command and hands back what there was") {
  either_way launch(GENERATE(false, true));
  const auto late = launch.exec("echo begun; sleep 300 | cat", {.process = {.timeout = 300ms}});
  CHECK(late.error == process_error::timed_out);
  CHECK(late.out == "begun\n");
  const auto stubborn = launch.exec("trap '' TERM; echo begun; while :; do sleep 1; done",
                                    {.process = {.timeout = 300ms, .kill_grace = 50ms}});
  CHECK(stubborn.error == process_error::timed_out);
  CHECK(stubborn.status.signal == SIGKILL);
}

TEST_CASE("a timeout ends also what only holds the pipe of a command that has ended") {
  either_way launch(GENERATE(false, true));
  const auto held = launch.exec("sleep 300 & exit 4", {.process = {.timeout = 200ms}});
  CHECK(held.error == process_error::timed_out);
  CHECK(held.status.code == 4);
  const auto escaped = launch.exec("setsid sleep 3 & exit 4", {.process = {.timeout = 200ms, .kill_grace = 50ms}});
  CHECK(escaped.error == process_error::timed_out);
}

TEST_CASE("what ignores SIGTERM and holds no pipe of a command that has ended gets SIGKILL all the same") {
  launcher launch;
  const std::string stubborn = "sh -c 'trap \"\" TERM; echo $$; exec sleep 300 >/dev/null 2>&1' & wait";
  const auto late = launch.exec(stubborn, {.process = {.timeout = 500ms}});
  CHECK(late.error == process_error::timed_out);
  CHECK(ends(std::stoi(late.out)));
  const child spawned = launch.spawn("sh", {"-c", stubborn}, {.timeout = 500ms, .kill_grace = 50ms});
  const pid_t heir = std::stoi(line_of(spawned.out()));
  CHECK(spawned.wait().signal == SIGTERM);
  CHECK(ends(heir));
}

TEST_CASE("a command in progress ends with an error when its launcher shuts down, whoever runs the executor") {
  for (const bool detached : {false, true}) {
    boost::asio::io_context io;
    launcher launch(io.get_executor());
    bool started = false;
    std::optional<boost::system::error_code> ended;
    exec_options options;
    options.process.detached = detached;
    options.process.events.on_spawn = [&] { started = true; };
    launch.exec("exec sleep 1", options, [&](boost::system::error_code code, const exec_result&) { ended = code; });
    while (!started) io.run_one();
    launch.shutdown();
    io.run_for(10s);
    CHECK(io.stopped());  // nothing is left that it waits for
    REQUIRE(ended);
    CHECK(*ended);
  }
}

TEST_CASE("a blocking exec of a detached command ends with an error when its launcher shuts down") {
  launcher launch;
  mailbox<int> started;
  exec_options options;
  options.process.detached = true;
  options.process.events.on_spawn = [&] { started.put(1); };
  launcher::outcome out;
  std::thread waiting([&] { out = launch.exec("exec sleep 1", options); });
  CHECK(started.wait_for(1));
  launch.shutdown();
  waiting.join();
  CHECK(out.error == process_error::aborted);
}

TEST_CASE("what a handler throws comes out of a blocking exec once the command has been killed, and nothing is left") {
  launcher launch;
  launch.exec("true");
  const std::size_t before = entries("/proc/self/fd");
  exec_options options;
  options.process.events.on_spawn = [] { throw std::runtime_error("from the handler"); };
  CHECK_THROWS_WITH(launch.exec("exec sleep 300", options), "from the handler");
  CHECK(entries("/proc/self/fd") == before);
  CHECK(grandchildren() == 0);
  options.process.events = {};
  options.process.events.on_exit = [](const exit_status&) { throw std::runtime_error("at its end"); };
  CHECK_THROWS_WITH(launch.exec("true", options), "at its end");
  options.process.events.on_error = [](auto, auto&) { throw std::runtime_error("of an error"); };
  CHECK_THROWS_AS(launch.exec_file("/no/such/file", {}, options), boost::system::system_error);
  CHECK(entries("/proc/self/fd") == before);
}

TEST_CASE("the first three streams of a command can't be other than pipes") {
  launcher launch;
  exec_options options;
  options.process.streams = {stdio::null(), stdio::pipe(), stdio::inherit()};
  CHECK_THROWS_AS(launch.exec("true", options), std::invalid_argument);
  auto failed = launch.exec("true", options, boost::asio::use_future);
  CHECK_THROWS_AS(failed.get(), boost::system::system_error);
  options.process.streams = {stdio::pipe(), stdio::pipe(), stdio::pipe(), stdio::null()};
  CHECK(!launch.exec(": <&3", options).error);
}

TEST_CASE("a command can be cancelled") {
  either_way launch(GENERATE(false, true));
  std::stop_source stop;
  mailbox<std::string> events;
  exec_options options;
  options.process.stop = stop.get_token();
  options.process.events.on_spawn = [&] { stop.request_stop(); };
  const auto cancelled = launch.exec("sleep 300", options);
  CHECK(cancelled.error == process_error::aborted);
  CHECK(cancelled.status.signal == SIGTERM);
}

TEST_CASE("a command with a completion token can be cancelled, and timed out, with the signal that is asked for") {
  const bool cancels = GENERATE(true, false);
  either_way launch(GENERATE(false, true));
  std::stop_source stop;
  mailbox<std::pair<boost::system::error_code, exec_result>> ended;
  exec_options options;
  options.process.kill_signal = SIGINT;
  if (cancels) {
    options.process.stop = stop.get_token();
    options.process.events.on_spawn = [&] { stop.request_stop(); };
  } else {
    options.process.timeout = 100ms;
  }
  launch.exec("exec sleep 300", options, [&](boost::system::error_code code, exec_result result) {
    ended.put({code, std::move(result)});
  });
  REQUIRE(ended.wait_for(1));
  const auto [code, result] = ended.values()[0];
  CHECK(code == (cancels ? process_error::aborted : process_error::timed_out));
  CHECK(result.status.signal == SIGINT);
  CHECK_THROWS_AS(launch.exec("exec sleep 300", options, boost::asio::use_future).get(), boost::system::system_error);
}

TEST_CASE("many commands run at once, from many threads") {
  launcher launch;
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i)
        if (launch.exec("echo " + std::to_string(t * 100 + i)).out == std::to_string(t * 100 + i) + "\n") ++right;
    });
  for (auto& each : threads) each.join();
  CHECK(right == 80);
  CHECK(no_children());
}
