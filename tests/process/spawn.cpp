// spawn: how a child is started, what it gets, how it is signalled, how it ends, and in which order that is told.
#include "process_fixture.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/version.hpp>
#if BOOST_VERSION >= 107700
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#endif

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

std::string said(launcher& launch, const std::vector<std::string>& what, process_options options = {}) {
  const child made = launch.spawn(program("probe"), what, std::move(options));
  const std::string out = rest_of(made.out());
  CHECK(made.wait());
  return out;
}

}  // namespace

TEST_CASE("a spawned program reads what it is sent and answers on its pipes until half-closed") {
  launcher launch;
  const child sort = launch.spawn("sort", {"-r"});
  boost::asio::write(sort.in(), boost::asio::buffer(std::string("a\nc\nb\n")));
  sort.in().close();
  CHECK(rest_of(sort.out()) == "c\nb\na\n");
  const exit_status status = sort.wait();
  CHECK(status.code == 0);
  CHECK(status.signal == 0);
  CHECK(status.max_resident > 0);
  CHECK(to_string(status) == "exited with status 0");
}

TEST_CASE("the application's own wait() and SIGCHLD do not see a child") {
  sigset_t child_ended, before;
  ::sigemptyset(&child_ended);
  ::sigaddset(&child_ended, SIGCHLD);
  ::pthread_sigmask(SIG_BLOCK, &child_ended, &before);
  launcher launch;
  const std::string parent = said(launch, {"parent"});
  CHECK(parent == std::to_string(launch.server_pid()) + "\n");
  const child quick = launch.spawn("true");
  CHECK(ends(quick.pid()));
  siginfo_t info{};
  CHECK(::waitid(P_PID, static_cast<id_t>(quick.pid()), &info, WEXITED | WNOHANG | __WALL) < 0);
  CHECK(errno == ECHILD);
  CHECK(quick.wait());
  sigset_t pending;
  ::sigpending(&pending);
  CHECK(::sigismember(&pending, SIGCHLD) == 0);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("directory, environment, argv[0] and limits are as asked for") {
  launcher launch;
  const child here = launch.spawn("pwd", {}, {.directory = "/usr"});
  CHECK(rest_of(here.out()) == "/usr\n");
  const child env =
      launch.spawn("/usr/bin/env", {}, {.env = std::vector<std::string>{"A=1", "B=2"}, .add_env = {"B=3"}});
  CHECK(rest_of(env.out()) == "A=1\nB=3\n");
  ::setenv("BULKHEAD_TEST_INHERITED", "yes", 1);
  const child inherited = launch.spawn("sh", {"-c", "echo $BULKHEAD_TEST_INHERITED"});
  CHECK(rest_of(inherited.out()) == "yes\n");
  CHECK(said(launch, {"argv0"}, {.argv0 = "another"}) == "another\n");
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  CHECK(said(launch, {"files"}) == std::to_string(files.rlim_cur) + "\n");
}

TEST_CASE("a program is looked up in the child's PATH, relative ones in its directory") {
  launcher launch;
  const scratch_folder folder;
  write_file(folder.path / "tool", "#!/bin/sh\necho mine\n", 0755);
  const std::string path = "PATH=/nowhere:" + folder.path.string() + ":/usr/bin";
  const child found = launch.spawn("tool", {}, {.add_env = {path}});
  CHECK(rest_of(found.out()) == "mine\n");
  const child relative = launch.spawn("./tool", {}, {.directory = folder.path});
  CHECK(rest_of(relative.out()) == "mine\n");
}

TEST_CASE("a child has its own process group, or the application's, or a session when detached") {
  launcher launch;
  const auto ids = [&](process_options options) {
    int pid = 0, group = 0, session = 0;
    std::sscanf(said(launch, {"group"}, std::move(options)).c_str(), "%d %d %d", &pid, &group, &session);
    return std::array{pid, group, session};
  };
  const auto own = ids({});
  CHECK(own[1] == own[0]);
  CHECK(own[2] == ::getsid(0));
  const auto shared = ids({.scope = kill_scope::child});
  CHECK(shared[1] == ::getpgrp());
  const auto detached = ids({.detached = true});
  CHECK(detached[2] == detached[0]);
}

TEST_CASE("a child gets the descriptors given to it, and no other") {
  launcher launch;
  const unique_fd not_closed_on_exec(::open("/dev/null", O_RDONLY));
  CHECK(said(launch, {"descriptors"}) == "0 1 2 \n");
  process_options options;
  options.streams = {stdio::null(), stdio::pipe(), stdio::inherit(), stdio::pipe(),
                     stdio::fd(not_closed_on_exec.get())};
  CHECK(said(launch, {"descriptors"}, options) == "0 1 2 3 4 \n");
  const child fourth = launch.spawn("sh", {"-c", "echo out >&3; cat <&4"}, options);
  CHECK(rest_of(fourth.stream(3)) == "out\n");
  CHECK(rest_of(fourth.out()).empty());
  CHECK_THROWS_AS(fourth.in(), std::logic_error);
}

TEST_CASE("descriptors may be given in any order, also as each other's numbers") {
  launcher launch;
  int both[2];
  REQUIRE(::pipe2(both, O_CLOEXEC) == 0);
  const unique_fd reading(both[0]), writing(both[1]);
  process_options options;
  options.streams = {stdio::fd(reading.get()), stdio::fd(writing.get()), stdio::fd(writing.get())};
  const child made = launch.spawn("sh", {"-c", "echo 1; echo 2 >&2; read a; read b; test $a$b = 12"}, options);
  CHECK(made.wait());
}

TEST_CASE("what can't be executed fails with the error of that very step, and leaves nothing behind") {
  launcher launch;
  const scratch_folder folder;
  const auto code_of = [&](const std::string& file, std::vector<std::string> arguments = {},
                           process_options options = {}) {
    const auto error = error_of([&] { launch.spawn(file, arguments, options); });
    INFO(error.what());
    CHECK(std::string(error.what()).find("spawn " + file) == 0);
    return error.code().value();
  };
  launch.exec("true");
  const std::size_t before = entries("/proc/self/fd");
  CHECK(code_of("/no/such/file") == ENOENT);
  CHECK(code_of("no-such-program") == ENOENT);
  CHECK(code_of(write_file(folder.path / "plain", "text", 0644)) == EACCES);
  CHECK(code_of(folder.path.string()) == EACCES);
  CHECK(code_of(write_file(folder.path / "text", "echo no interpreter", 0755)) == ENOEXEC);
  CHECK(code_of((folder.path / "text" / "below").string()) == ENOTDIR);
  CHECK(code_of("true", std::vector<std::string>(1, std::string(200'000, 'x'))) == E2BIG);
  CHECK(code_of("true", std::vector<std::string>(60, std::string(100'000, 'x'))) == E2BIG);
  const auto interpreter = error_of([&] { launch.spawn(write_file(folder.path / "s", "#!/no/interpreter\n", 0755)); });
  CHECK(interpreter.code().value() == ENOENT);
  CHECK(std::string(interpreter.what()).find("interpreter") != std::string::npos);
  const auto directory = error_of([&] { launch.spawn("true", {}, {.directory = "/no/such/place"}); });
  CHECK(directory.code().value() == ENOENT);
  CHECK(std::string(directory.what()).find("chdir to /no/such/place") != std::string::npos);
  CHECK(entries("/proc/self/fd") == before);
  CHECK(no_children());
}

TEST_CASE("options that make no sense are refused with what to do") {
  launcher launch;
  CHECK_THROWS_AS(launch.spawn(""), std::invalid_argument);
  CHECK_THROWS_AS(launch.spawn("true", {std::string("a\0b", 3)}), std::invalid_argument);
  CHECK_THROWS_AS(launch.spawn("true", {}, {.env = std::vector<std::string>{"novalue"}}), std::invalid_argument);
  CHECK_THROWS_AS(launch.spawn("true", {}, {.streams = {stdio::null()}}), std::invalid_argument);
  CHECK_THROWS_AS(launch.spawn("true", {}, {.streams = {stdio::null(), stdio::null(), stdio::fd(1000)}}),
                  std::invalid_argument);
  CHECK_THROWS_AS(launch.spawn("true", {}, {.uid = 1, .policy = policy()}), std::invalid_argument);
}

TEST_CASE("arguments and environment may be as large as the kernel takes them") {
  launcher launch;
  const std::vector<std::string> many(15, std::string(100'000, 'x'));  // 1.5 of 2 MB
  CHECK(rest_of(launch
                    .spawn("sh",
                           [&] {
                             std::vector<std::string> all = {"-c", "echo $#", "sh"};
                             all.insert(all.end(), many.begin(), many.end());
                             return all;
                           }())
                    .out()) == "15\n");
  CHECK(rest_of(launch.spawn("sh", {"-c", "echo ${#BIG}"}, {.add_env = {"BIG=" + std::string(120'000, 'y')}}).out()) ==
        "120000\n");
}

TEST_CASE("events come in order: spawn, exit, close after the output has been read") {
  launcher launch;
  mailbox<std::string> events;
  process_options options;
  options.events = {.on_spawn = [&] { events.put("spawn"); },
                    .on_exit = [&](const exit_status& status) { events.put("exit " + std::to_string(status.code)); },
                    .on_close = [&](const exit_status& status) { events.put("close " + std::to_string(status.code)); }};
  const child made = launch.spawn("sh", {"-c", "echo out; exit 7"}, options);
  REQUIRE(events.wait_for(2));
  CHECK(events.values() == std::vector<std::string>{"spawn", "exit 7"});  // there is something to be read yet
  CHECK(rest_of(made.out()) == "out\n");
  REQUIRE(events.wait_for(3));
  CHECK(events.values().back() == "close 7");
}

TEST_CASE("close comes without reading once nothing is left to be read, and waits for whoever holds the pipe") {
  launcher launch;
  mailbox<std::string> events;
  process_options options;
  options.events = {.on_exit = [&](const exit_status&) { events.put("exit"); },
                    .on_close = [&](const exit_status&) { events.put("close"); }};
  const child silent = launch.spawn("true", {}, options);
  REQUIRE(events.wait_for(2));
  const child parent = launch.spawn("sh", {"-c", "sleep 300 & echo $!"}, options);
  const std::string heir = line_of(parent.out());
  REQUIRE(events.wait_for(3));
  CHECK(events.values().back() == "exit");
  ::kill(std::stoi(heir), SIGKILL);
  REQUIRE(events.wait_for(4));
  CHECK(events.values().back() == "close");
}

TEST_CASE("error and close, as in Node, are the only events of a child that could not be started") {
  launcher launch;
  mailbox<std::string> events;
  process_options options;
  options.events = {
      .on_spawn = [&] { events.put("spawn"); },
      .on_exit = [&](const exit_status&) { events.put("exit"); },
      .on_close = [&](const exit_status& status) { events.put("close " + std::to_string(status.code)); },
      .on_error = [&](boost::system::error_code code,
                      const std::string& text) { events.put(std::to_string(code.value()) + " " + text); }};
  auto failed = launch.async_spawn("/no/such/file", {}, options, boost::asio::use_future);
  CHECK_THROWS_AS(failed.get(), boost::system::system_error);
  REQUIRE(events.wait_for(2));
  launch.shutdown();
  REQUIRE(events.values().size() == 2);
  CHECK(events.values()[0].find("2 spawn /no/such/file") == 0);
  CHECK(events.values()[1] == "close -2");
}

TEST_CASE("spawn, reading, writing and waiting take completion tokens") {
  boost::asio::io_context io;
  launcher launch(io.get_executor());
  std::string read;
  exit_status ended;
  std::vector<child> kept;
  launch.async_spawn("cat", {}, {}, [&](boost::system::error_code code, const child& made) {
    REQUIRE(!code);
    kept.push_back(made);
    made.async_wait([&](boost::system::error_code, const exit_status& status) { ended = status; });
    boost::asio::async_write(made.in(), boost::asio::buffer("hello\n", 6),
                             [made](boost::system::error_code, std::size_t) { made.in().close(); });
    boost::asio::async_read(made.out(), boost::asio::dynamic_buffer(read),
                            [](boost::system::error_code, std::size_t) {});
  });
  io.run();
  CHECK(read == "hello\n");
  CHECK(ended.code == 0);
}

TEST_CASE("a coroutine awaits children, their streams and their ends, also what it has begun before it waits") {
  boost::asio::io_context io;
  launcher launch(io.get_executor());
  const auto all = [&]() -> boost::asio::awaitable<void> {
    const std::vector<std::string> none;
    auto begun = launch.async_spawn("cat", none, process_options(), boost::asio::use_awaitable);
    const child cat = co_await std::move(begun);
    co_await boost::asio::async_write(cat.in(), boost::asio::buffer("hello\n", 6), boost::asio::use_awaitable);
    cat.in().close();
    std::string read;
    co_await boost::asio::async_read_until(cat.out(), boost::asio::dynamic_buffer(read), '\n',
                                           boost::asio::use_awaitable);
    CHECK(read == "hello\n");
    const exit_status status = co_await cat.async_wait(boost::asio::use_awaitable);
    CHECK(status.code == 0);
    auto command = launch.exec("echo a command that is longer than what a string holds in place", exec_options(),
                               boost::asio::use_awaitable);
    const exec_result result = co_await std::move(command);
    CHECK(result.out == "a command that is longer than what a string holds in place\n");
    std::string failure;
    try {
      co_await launch.async_spawn("/no/such/file", none, process_options(), boost::asio::use_awaitable);
    } catch (const boost::system::system_error& error) {
      failure = error.code().message();
    }
    CHECK(failure == std::generic_category().message(ENOENT));
  };
  auto ended = boost::asio::co_spawn(io, all, boost::asio::use_future);
  io.run();
  ended.get();
}

TEST_CASE("a future is a child that has been spawned, and how it ended") {
  launcher launch;
  const child made = launch.async_spawn("sh", {"-c", "exit 7"}, {}, boost::asio::use_future).get();
  CHECK(made.async_wait(boost::asio::use_future).get().code == 7);
  auto missing = launch.async_spawn("/no/such/file", {}, {}, boost::asio::use_future);
  CHECK(error_of([&] { missing.get(); }).code().value() == ENOENT);
}

#if BOOST_VERSION >= 107700  // Asio has cancellation slots
TEST_CASE("a cancellation slot ends the reading of a stream, and what `stop` cancels does not look at one") {
  boost::asio::io_context io;
  launcher launch(io.get_executor());
  std::array<boost::asio::cancellation_signal, 4> signals;
  std::map<std::string, boost::system::error_code> ended;
  const auto to = [&](std::size_t which, const std::string& name) {
    return boost::asio::bind_cancellation_slot(
        signals[which].slot(), [&ended, name](boost::system::error_code code, const auto&...) { ended[name] = code; });
  };
  const child made = launch.spawn("cat", {}, {.channel = channel_kind::node});
  char byte;
  made.out().async_read_some(boost::asio::buffer(&byte, 1), to(0, "read"));
  made.async_wait(to(1, "wait"));
  made.async_send("message", {}, to(2, "send"));
  launch.exec("true", {}, to(3, "exec"));
  for (auto& each : signals) each.emit(boost::asio::cancellation_type::terminal);
  io.poll();
  made.in().close();  // which ends it
  io.run();
  CHECK(ended == std::map<std::string, boost::system::error_code>{
                     {"read", boost::asio::error::operation_aborted}, {"wait", {}}, {"send", {}}, {"exec", {}}});
}
#endif

TEST_CASE("signals reach the child, and only while it lives") {
  launcher launch;
  const child sleeper = launch.spawn("sleep", {"300"});
  CHECK(!sleeper.wait_for(0s));
  CHECK(sleeper.kill(SIGTERM));
  const exit_status status = sleeper.wait();
  CHECK(status.signal == SIGTERM);
  CHECK(status.code == -1);
  CHECK(to_string(status) == "was killed by SIGTERM");
  CHECK(!sleeper.kill(SIGTERM));
  CHECK(sleeper.async_wait(boost::asio::use_future).get().signal == SIGTERM);
  CHECK(error_of([&] { launch.spawn("sleep", {"300"}).kill(1000); }).code().value() == EINVAL);
}

TEST_CASE("kill_tree reaches what the child has started, also when the child itself is gone") {
  launcher launch;
  const child parent = launch.spawn("sh", {"-c", "sleep 300 & echo $!; wait"});
  const pid_t grandchild = std::stoi(line_of(parent.out()));
  CHECK(parent.kill_tree());
  CHECK(parent.wait().signal == SIGKILL);
  CHECK(ends(grandchild));
  const child leaver = launch.spawn("sh", {"-c", "sleep 300 & echo $!"});
  const pid_t left = std::stoi(line_of(leaver.out()));
  CHECK(leaver.wait());
  CHECK(leaver.kill_tree());
  CHECK(ends(left));
}

TEST_CASE("a timeout kills: politely, then for good, with all that was started") {
  launcher launch;
  const child polite = launch.spawn("sleep", {"300"}, {.timeout = 50ms});
  CHECK(polite.wait().signal == SIGTERM);
  CHECK(polite.timed_out());
  const child stubborn = launch.spawn("sh", {"-c", "trap '' TERM; echo ready; while :; do sleep 1; done"},
                                      {.timeout = 200ms, .kill_grace = 50ms});
  CHECK(stubborn.wait().signal == SIGKILL);
  std::stop_source stop;
  const child stopped = launch.spawn("sleep", {"300"}, {.stop = stop.get_token(), .kill_signal = SIGINT});
  stop.request_stop();
  CHECK(stopped.wait().signal == SIGINT);
  CHECK(stopped.stopped());
  CHECK(!stopped.timed_out());
}

TEST_CASE("children end with their launcher, detached ones do not") {
  pid_t plain = 0, detached = 0;
  {
    launcher launch;
    plain = launch.spawn("sleep", {"300"}).pid();
    detached = launch.spawn("sleep", {"300"}, {.detached = true}).pid();
  }
  CHECK(ends(plain, 0));
  CHECK(::kill(detached, 0) == 0);
  ::kill(detached, SIGKILL);
  CHECK(ends(detached));
  CHECK(no_children());
}

TEST_CASE(
    "what children have left behind ends with their launcher, wherever it has gone, but not what detached ones have") {
  std::vector<pid_t> left;
  pid_t spared = 0;
  {
    launcher launch;
    const auto leave = [&](const std::string& command, process_options options) {
      const child leaver = launch.spawn("sh", {"-c", command + " & echo $!"}, std::move(options));
      const pid_t pid = std::stoi(line_of(leaver.out()));
      CHECK(leaver.wait());
      return pid;
    };
    left.push_back(leave("sleep 300", {}));
    left.push_back(leave("sleep 300", {.scope = kill_scope::child}));
    left.push_back(leave("setsid sleep 300", {}));
    spared = leave("setsid sleep 300", {.detached = true});
    const child parent = launch.spawn("sh", {"-c", "setsid sh -c 'echo $$; sleep 300; :'; :"});
    left.push_back(std::stoi(line_of(parent.out())));
  }
  for (const pid_t each : left) CHECK(ends(each, 0));
  CHECK(::kill(spared, 0) == 0);
  ::kill(spared, SIGKILL);
}

TEST_CASE("what a child has left behind is reaped when it ends, and the child's own status is not lost") {
  launcher launch;
  int both[2];
  REQUIRE(::pipe2(both, O_CLOEXEC) == 0);
  unique_fd reading(both[0]), writing(both[1]);
  const child leaver =
      launch.spawn("sh", {"-c", "cat <&3 >/dev/null & echo $!; exit 5"},
                   {.streams = {stdio::null(), stdio::pipe(), stdio::null(), stdio::fd(reading.get())}});
  const pid_t heir = std::stoi(line_of(leaver.out()));
  CHECK(leaver.wait().code == 5);
  CHECK(::kill(heir, 0) == 0);
  writing.reset();
  for (int i = 0; i < 1000 && ::kill(heir, 0) == 0; ++i) CHECK(launch.spawn("true").wait().code == 0);
  CHECK(::kill(heir, 0) < 0);
}

TEST_CASE("a handle outlives its launcher") {
  child kept;
  {
    launcher launch;
    kept = launch.spawn("sleep", {"300"});
  }
  CHECK(kept.wait().signal == SIGKILL);
  CHECK(!kept.kill());
}
