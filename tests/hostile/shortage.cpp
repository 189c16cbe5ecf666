// The host when the system has nothing left for it, and workers when the host is gone.
#include "fixture.hpp"

#include <boost/asio/io_context.hpp>

#include <csignal>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

namespace bulkhead::testing {

#ifndef BULKHEAD_SANITIZED  // UBSan itself needs descriptors: without, it takes good objects for bad ones
namespace {

// While it lives, this process has no descriptor left but those that it gives back.
class no_descriptors {
 public:
  no_descriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit few{128, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
    for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) all_.emplace_back(fd);
  }
  ~no_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  no_descriptors(const no_descriptors&) = delete;
  void give_one() { all_.pop_back(); }

 private:
  rlimit before_{};
  std::vector<unique_fd> all_;
};

}  // namespace

TEST_CASE("without descriptors no worker starts, the error says so, and all is well when there are some again") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  const auto baseline = entries("/proc/self/fd");
  {
    no_descriptors taken;
    for (int spare = 0; spare < 12; ++spare) {  // with a few more each time it fails at another place
      const auto failed = failure_of([&] { host.load(plugin_path("echo")); });
      const bool clear = failed.outcome() == outcome::unavailable || failed.outcome() == outcome::rejected;
      CHECK(clear);
      CHECK(failed.message().find("Too many open files") != std::string::npos);
      CHECK(echo.call<int>("add", spare, 1) == spare + 1);
      if (spare >= 3) break;
      taken.give_one();
    }
  }
  eventually([&] { return entries("/proc/self/fd") <= baseline; });
  CHECK(entries("/proc/self/fd") <= baseline);
  auto again = host.load(plugin_path("echo"));
  CHECK(again.call<int>("add", 1, 2) == 3);
}

TEST_CASE("without descriptors a call with a blob is overloaded, and goes through when there are some again") {
  host host;
  auto plugin = host.load(plugin_path("blobs"));
  shared_blob in = plugin.make_blob(100'000);
  std::fill(in.writable().begin(), in.writable().end(), 1);
  {
    const no_descriptors taken;
    CHECK(plugin.try_call("sum", in).outcome() == outcome::overloaded);
    mailbox<outcome> ends;
    plugin.async_call<reply>("sum", std::tie(in), outcome_to(ends));
    REQUIRE(ends.wait_for(1));
    CHECK(ends.values().front() == outcome::overloaded);
  }
  CHECK(plugin.call<std::uint64_t>("sum", in) == 100'000);
}

TEST_CASE("a worker lives on when there is no descriptor to publish a value with, and reads it when there are some") {
  host host;
  host.publish("table", bytes(1000, 1));
  auto plugin = host.load(plugin_path("blobs"));
  const pid_t pid = plugin.workers().at(0).pid;
  std::uint64_t latest = 0;
  {
    no_descriptors taken;
    taken.give_one();  // enough for the value, and not for the worker's descriptor of it
    latest = host.publish("table", bytes(1000, 2));
  }
  CHECK(eventually([&] { return plugin.call<std::uint64_t>("version", "table") == latest; }));
  CHECK(plugin.workers().at(0).pid == pid);
}

TEST_CASE("a worker that asks for an arena when no descriptor is free is refused, and the host lives on") {
  host host;
  load_options options;
  options.deadline = 20s;
  auto peer = host.launch({BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello_blobs", "ready", "call", "again:4096",
                           "heard:overloaded", "answer"},
                          options);
  reply got;
  {
    no_descriptors taken;
    taken.give_one();  // enough for the arena, and not for the worker's end of it
    got = peer.try_call("attack");
  }
  CHECK(got.outcome() == outcome::ok);
}

#endif

TEST_CASE("a worker that is too busy to read what is published lives on, and then reads the newest") {
  host host;
  load_options options;
  options.deadline = 20s;
  options.limits.queued_bytes = 16 << 10;
  auto plugin = host.load(plugin_path("blobs"), options);
  const pid_t pid = plugin.workers().at(0).pid;
  ::kill(pid, SIGSTOP);
  for (int i = 0; i < 1000; ++i) {
    const std::string name = std::to_string(i) + std::string(200, 'x');
    host.publish(name, bytes(10, 1));
    host.unpublish(name);
  }
  const auto latest = host.publish("table", bytes(10, 1));
  ::kill(pid, SIGCONT);
  CHECK(eventually([&] {
    const reply found = plugin.try_call("version", "table");
    return found && found.as<std::uint64_t>() == latest;
  }));
  CHECK(plugin.workers().at(0).pid == pid);
}

// The functions and what is sent of them take turns on one thread, so both results are there when the peer is told to read.
TEST_CASE("a function's result that there is no room for is an error for the worker, which hears of it") {
  boost::asio::io_context context;
  std::jthread runner;
  const auto work = boost::asio::make_work_guard(context);
  runner = std::jthread([&] { context.run(); });
  host host(context.get_executor());
  load_options options;
  options.deadline = 20s;
  options.limits.queued_bytes = 64 << 10;
  std::atomic<pid_t> pid{-1};
  options.functions.add("large", [] { return bytes(2'000'000); });
  options.functions.add("read", [&] { ::kill(pid, SIGUSR1); });
  auto peer = host.launch({BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello", "ready", "call", "x:940001a5'large'90",
                           "x:940002a5'large'90", "x:940003a4'read'90", "signalled", "heard:overloaded", "answer"},
                          options);
  pid = peer.workers().at(0).pid;
  CHECK(peer.call<bool>("attack"));
}

TEST_CASE("a worker that ignores the end of its channel dies with its host") {
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    host host;
    auto peer = host.launch({BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello", "ready", "deaf"});
    const pid_t pid = peer.workers().at(0).pid;
    if (::write(pipe[1], &pid, sizeof pid) != sizeof pid) ::_exit(1);
    for (;;) ::pause();
  }
  pid_t worker = -1;
  REQUIRE(::read(pipe[0], &worker, sizeof worker) == sizeof worker);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(eventually([&] {
    std::ifstream stat("/proc/" + std::to_string(worker) + "/stat");
    std::string number, name, state;
    return !(stat >> number >> name >> state) || state == "Z" || state == "X";
  }));
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST_CASE("200 births and deaths leave nothing behind") {
  const auto count = [](const std::string& file) {
    std::ifstream in(file);
    std::size_t lines = 0;
    for (std::string line; std::getline(in, line);) ++lines;
    return lines;
  };
  host host;
  auto cycle = [&](int i) {
    auto plugin = host.load(plugin_path(i % 2 ? "chaos" : "echo"));
    if (i % 2) CHECK(plugin.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    else CHECK(plugin.call<int>("add", i, 1) == i + 1);
  };
  for (int i = 0; i < 20; ++i) cycle(i);  // what is allocated once
  const auto fds = entries("/proc/self/fd"), threads = entries("/proc/self/task"), maps = count("/proc/self/maps");
  const auto server = "/proc/" + std::to_string(host.fork_server_pid()) + "/fd";
  const auto server_fds = entries(server);
  for (int i = 0; i < 200; ++i) cycle(i);
  // The last threads to look at a worker may let go of it a moment after its end was told.
  eventually([&] { return entries("/proc/self/fd") <= fds; });
  CHECK(entries("/proc/self/fd") <= fds);
  CHECK(entries("/proc/self/task") == threads);
#ifdef BULKHEAD_SANITIZED
  constexpr std::size_t heap =
      64;  // its allocator keeps what was freed, and maps as it likes; a leak would be 200 or more
#else
  constexpr std::size_t heap = 4;  // the allocator may have grown it
#endif
  CHECK(count("/proc/self/maps") <= maps + heap);
  CHECK(eventually([&] { return entries(server) <= server_fds; }));  // it hears of deaths in its own time
  int status = 0;
  CHECK(::waitpid(-1, &status, WNOHANG | __WALL) == 0);  // the fork server, alive, and no other child
}

}  // namespace bulkhead::testing
