// What goes wrong around children costs nothing but an error: no descriptor, no zombie, no process is left.
#include "process_fixture.hpp"

#include <algorithm>

#include <sys/resource.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

#ifdef BULKHEAD_SANITIZED
constexpr int many = 300, some = 20, least_free = 3;
#else
constexpr int many = 10'000, some = 100, least_free = 0;
#endif

std::vector<pid_t> lines_of(child_stream& from, std::size_t count) {
  std::string text;
  std::vector<pid_t> pids;
  while (pids.size() < count) {
    const std::size_t n = boost::asio::read_until(from, boost::asio::dynamic_buffer(text), '\n');
    pids.push_back(std::stoi(text.substr(0, n)));
    text.erase(0, n);
  }
  return pids;
}

// Whether it is a process server, no longer a copy of the application, and has a pidfd of that one.
bool watches(pid_t server, pid_t pid) {
  std::string name;
  std::ifstream("/proc/" + std::to_string(server) + "/comm") >> name;
  if (name != "bulkhead-procs") return false;
  std::error_code gone;
  const std::string sought = "Pid:\t" + std::to_string(pid);
  for (std::filesystem::directory_iterator each("/proc/" + std::to_string(server) + "/fdinfo", gone), end;
       !gone && each != end; each.increment(gone)) {
    std::ifstream info(each->path());
    for (std::string line; std::getline(info, line);)
      if (line == sought) return true;
  }
  return false;
}

// Whether the application comes to have one process server instead of the one that was killed, which watches over its child.
bool replaced(const child& application, pid_t killed, pid_t its_child) {
  return eventually([&] {
    const auto now = children_of(application.pid());
    return now.size() == 1 && now[0] != killed && watches(now[0], its_child);
  });
}

child application_with(launcher& launch, const std::vector<std::string>& children) {
  return launch.spawn(program("spawner"), children, {.streams = {stdio::null(), stdio::pipe(), stdio::inherit()}});
}

}  // namespace

TEST_CASE("thousands of children leave no descriptor and no zombie behind") {
  launcher launch;
  const auto one = [&](int i) {
    process_options options;
    if (i % 2) options.streams = {stdio::null(), stdio::null(), stdio::null()};
    launch.spawn("/bin/true", {}, options).wait();
  };
  for (int i = 0; i < 10; ++i) one(i);
  launch.exec("true", {}, boost::asio::use_future).get();
  settle(launch, entries("/proc/self/fd"));
  const std::size_t before = entries("/proc/self/fd");
  for (int i = 0; i < many; ++i) one(i);
  check_nothing_left(launch, before);
}

TEST_CASE("commands, well or not, leave no descriptor and no process behind") {
  launcher launch;
  check_leaves_nothing(launch, some / 2, [&] {
    CHECK(launch.exec("cat", {.input = "text"}).out == "text");
    CHECK_THROWS_AS(launch.exec_file("/no/such/file"), boost::system::system_error);
  });
  check_leaves_nothing(launch, some / 2, [&] {
    CHECK(launch.exec("yes", {.max_output = 10}).error == process_error::output_limit);
    launch.exec("setsid true & exit 1", {}, [](boost::system::error_code, const exec_result&) {});
  });
}

TEST_CASE("sandboxed children leave no descriptor and no process behind") {
  launcher launch;
  check_leaves_nothing(launch, some, [&] {
    const child made = launch.spawn("/bin/sh", {"-c", "true & exit 3"}, {.policy = policy().allow_read("/bin")});
    CHECK(made.wait().code == 3);
  });
}

TEST_CASE("killing the application kills its children, and theirs, but not the detached") {
  launcher launch;
  const child application = application_with(launch, {"plain", "tree", "sandboxed", "detached"});
  const auto pids = lines_of(application.out(), 5);
  application.kill(SIGKILL);
  CHECK(application.wait().signal == SIGKILL);
  for (std::size_t i = 0; i < 4; ++i) CHECK(ends(pids[i]));
  CHECK(::kill(pids[4], 0) == 0);
  ::kill(pids[4], SIGKILL);
}

TEST_CASE("without a free descriptor a spawn fails with EMFILE, and works again after") {
  launcher launch;
  launch.spawn("true").wait();
  launch.exec("true", {}, boost::asio::use_future).get();
  settle(launch, entries("/proc/self/fd"));
  const std::size_t before = entries("/proc/self/fd");
  std::vector<unique_fd> hoard;
  for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) hoard.emplace_back(fd);
  const int exhausted = errno;
  std::vector<int> failures;
  // With so many free, it fails at a different place each time. UBSan needs two of them, to look at memory, wherever an
  // object with virtual functions is used: so nothing is asserted meanwhile, and where it runs there are always some.
  for (int each = 0; each < least_free; ++each) hoard.pop_back();
  for (int free = least_free; free < 12; ++free) {
    try {
      launch.spawn("true").wait();
    } catch (const boost::system::system_error& error) {
      failures.push_back(error.code().value());
    }
    hoard.pop_back();
  }
  hoard.clear();
  CHECK(exhausted == EMFILE);
  CHECK(failures.size() > 3);
  CHECK(std::count(failures.begin(), failures.end(), EMFILE) == static_cast<std::ptrdiff_t>(failures.size()));
  CHECK(launch.spawn("true").wait());
  check_nothing_left(launch, before);
}

TEST_CASE("whatever a child can't be started for is told as an error event, with its text") {
  launcher launch;
  launch.spawn("true").wait();
  launch.exec("true", {}, boost::asio::use_future).get();
  mailbox<std::string> errors;
  process_options options;
  options.events.on_error = [&](boost::system::error_code code, const std::string& text) {
    errors.put(std::to_string(code.value()) + " " + text);
  };
  std::vector<unique_fd> hoard;
  for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) hoard.emplace_back(fd);
  for (int each = 0; each < least_free; ++each) hoard.pop_back();
  bool failed = false;
  try {
    launch.spawn("true", {}, options);
  } catch (const boost::system::system_error&) {
    failed = true;
  }
  hoard.clear();
  CHECK(failed);
  REQUIRE(errors.wait_for(1));
  CHECK(errors.values()[0].find(std::to_string(EMFILE) + " spawn true") == 0);

  options.policy = policy().without("seccomp").at_least(sandbox_level::full);
  CHECK_THROWS_AS(launch.spawn("/bin/true", {}, options), std::runtime_error);
  auto later = launch.async_spawn("/bin/true", {}, options, boost::asio::use_future);
  CHECK_THROWS_AS(later.get(), boost::system::system_error);
  REQUIRE(errors.wait_for(3));
  for (const std::size_t i : {1u, 2u}) CHECK(errors.values()[i].find("seccomp") != std::string::npos);
  launch.shutdown();
}

TEST_CASE("writing to a child that has closed its end is an error, not a signal") {
  std::signal(SIGPIPE, SIG_DFL);
  launcher launch;
  const child deaf = launch.spawn("sh", {"-c", "exec <&-; echo closed; sleep 300"});
  CHECK(line_of(deaf.out()) == "closed");
  boost::system::error_code code;
  boost::asio::write(deaf.in(), boost::asio::buffer("x", 1), code);
  CHECK(code == boost::asio::error::broken_pipe);
  sigset_t pending;
  ::sigpending(&pending);
  CHECK(::sigismember(&pending, SIGPIPE) == 0);
  auto later = boost::asio::async_write(deaf.in(), boost::asio::buffer("x", 1), boost::asio::use_future);
  CHECK_THROWS_AS(later.get(), boost::system::system_error);
}

TEST_CASE("a slow reader holds the child back and loses nothing") {
  launcher launch;
  const child writer = launch.spawn("head", {"-c", "1000000", "/dev/zero"});
  CHECK(!writer.wait_for(100ms));  // it waits for room in the pipe
  std::size_t total = 0;
  std::array<char, 4096> some;
  boost::system::error_code code;
  while (!code) total += writer.out().read_some(boost::asio::buffer(some), code);
  CHECK(code == boost::asio::error::eof);
  CHECK(total == 1'000'000);
  CHECK(writer.wait());
}

TEST_CASE("what a handler throws goes to the application, and the child goes on") {
  mailbox<std::string> thrown, events;
  launcher launch({.on_exception = [&](std::exception_ptr what) {
    try {
      std::rethrow_exception(what);
    } catch (const std::exception& e) {
      thrown.put(e.what());
    }
  }});
  process_options options;
  options.events = {.on_spawn = [] { throw std::runtime_error("spawn"); },
                    .on_exit = [](const exit_status&) { throw std::runtime_error("exit"); },
                    .on_close =
                        [&](const exit_status&) {
                          events.put("close");
                          throw std::runtime_error("close");
                        }};
  launch.exec("true", {}, boost::asio::use_future).get();
  settle(launch, entries("/proc/self/fd"));
  const std::size_t before = entries("/proc/self/fd");
  {
    const child made = launch.spawn("true", {}, options);
    REQUIRE(events.wait_for(1));
    REQUIRE(thrown.wait_for(3));
  }
  CHECK(thrown.values() == std::vector<std::string>{"spawn", "exit", "close"});
  CHECK(!launch.exec("true", {}, boost::asio::use_future).get().status.code);
  check_nothing_left(launch, before);
}

TEST_CASE("a timeout kills for good after a signal that can't be sent, though the handler that is told of it throws") {
  mailbox<int> thrown;
  launcher launch({.on_exception = [&](std::exception_ptr) { thrown.put(1); }});
  process_options options = {.timeout = 1ms, .kill_signal = 1000, .kill_grace = 1ms};
  options.events.on_error = [](auto, auto&) { throw std::runtime_error("error"); };
  const child made = launch.spawn("sleep", {"300"}, options);
  const auto status = made.wait_for(20s);
  REQUIRE(status);
  CHECK(status->signal == SIGKILL);
  CHECK(thrown.wait_for(1));
}

TEST_CASE("a process server that dies is replaced, and still kills the children of the one before") {
  pid_t old_child = 0;
  {
    launcher launch;
    const child before = launch.spawn("sleep", {"300"});
    old_child = before.pid();
    const pid_t server = launch.server_pid();
    ::kill(server, SIGKILL);
    const child after = launch.spawn("sleep", {"300"});
    CHECK(launch.server_pid() != server);
    CHECK(!before.wait_for(0s));
  }
  CHECK(ends(old_child, 0));
  CHECK(no_children());
}

TEST_CASE(
    "a process server that dies is replaced at once, also before it has started a child, and the last ends the children") {
  launcher launch;
  const child application = application_with(launch, {"plain"});
  const pid_t sleeper = lines_of(application.out(), 1)[0];
  for (int successor = 0; successor < 3; ++successor) {
    const auto before = children_of(application.pid());
    REQUIRE(before.size() == 1);
    ::kill(before[0], SIGKILL);
    REQUIRE(replaced(application, before[0], sleeper));
  }
  CHECK(::kill(sleeper, 0) == 0);
  CHECK(application.kill(SIGKILL));
  CHECK(ends(sleeper));
}

TEST_CASE(
    "process servers that die without having started a child are replaced ten times, and then by the next spawn") {
  pid_t old_child = 0;
  {
    launcher launch;
    const child before = launch.spawn("sleep", {"300"});
    old_child = before.pid();
    const auto after_a_kill = [&] {
      const pid_t killed = launch.server_pid();
      REQUIRE(::kill(killed, SIGKILL) == 0);
      REQUIRE(eventually([&] { return launch.server_pid() != killed; }));
      return launch.server_pid();
    };
    for (int successor = 0; successor < 10; ++successor) REQUIRE(after_a_kill() > 0);
    CHECK(after_a_kill() == -1);
    CHECK(!before.wait_for(0s));
    const child after = launch.spawn("sleep", {"300"});
    CHECK(watches(launch.server_pid(), old_child));
    CHECK(after_a_kill() > 0);  // that has started one
    CHECK(!after.wait_for(0s));
  }
  CHECK(ends(old_child, 0));
  CHECK(no_children());
}

TEST_CASE("sandboxed children end with an application that is killed together with its process servers") {
  launcher launch;
  const child application = application_with(launch, {"sandboxed", "sandboxed"});
  const auto pids = lines_of(application.out(), 2);
  for (const pid_t server : children_of(application.pid())) ::kill(server, SIGKILL);
  CHECK(application.kill(SIGKILL));
  for (const pid_t each : pids) CHECK(ends(each));
}
