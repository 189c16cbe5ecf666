// Lanes between a host and its workers: that they are there, what they cost at rest, and what a plugin can do with them.
// All other tests of calls run over them, too.
#include "fixture.hpp"
#include "seen_outside.hpp"

#include <boost/asio/io_context.hpp>

#include <csignal>
#include <random>

namespace bulkhead::testing {
namespace {

mapping lane_of(pid_t pid, const std::string& rights) {
  for (const mapping& each : shared_by(pid, "bulkhead-lane"))
    if (each.rights == rights) return each;
  FAIL("the worker has no lane mapped " << rights);
  return {};
}

std::size_t bulkhead_descriptors(pid_t pid) {
  std::size_t count = 0;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
    count += std::filesystem::read_symlink(fd).string().find("bulkhead-lane") != std::string::npos;
  return count;
}

}  // namespace

TEST_CASE("a worker has two lanes and may write to one of them, and no descriptor of them is left on either side") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  CHECK(echo.call<int>("add", 1, 2) == 3);
  const pid_t pid = echo.workers().at(0).pid;
  const auto lanes = shared_by(pid, "bulkhead-lane");
  REQUIRE(lanes.size() == 2);
  CHECK(lane_of(pid, "rw-s").size > 0);
  CHECK(lane_of(pid, "r--s").size > 0);
  CHECK(bulkhead_descriptors(pid) == 0);
  CHECK(bulkhead_descriptors(::getpid()) == 0);
}

TEST_CASE("calls work without lanes, without spinning, and through the smallest and larger rings") {
  load_options options;
  SECTION("none") { options.lanes.enabled = false; }
  SECTION("asleep") { options.lanes.spin = 0ns; }
  SECTION("small") { options.lanes.ring = 4096; }
  SECTION("large") { options.lanes.ring = 1 << 20; }
  host host;
  auto echo = host.load(plugin_path("echo"), options);
  CHECK(shared_by(echo.workers().at(0).pid, "bulkhead-lane").empty() == !options.lanes.enabled);
  for (const std::size_t size : {0, 16, 100'000, 2'000'000}) {
    const bytes data(size, 7);
    CHECK(echo.call<bytes>("echo", data) == data);
  }
  mailbox<bool> done;
  for (int i = 0; i < 50; ++i)
    echo.async_call<bytes>(
        "echo", std::tuple(bytes(10'000, 1)),
        [&](boost::system::error_code failed, const bytes& got) { done.put(!failed && got.size() == 10'000); });
  REQUIRE(done.wait_for(50));
  CHECK(std::ranges::count(done.values(), true) == 50);
}

TEST_CASE("threads that wait and calls that do not fill a ring together, and each call ends well") {
  host host;
  load_options options;
  options.deadline = 60s;
  auto echo = host.load(plugin_path("echo"), options);
  constexpr int calls = 100;
  std::atomic<int> right{0};
  mailbox<bool> done;
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < 2; ++t)
      callers.emplace_back([&, t] {
        for (int i = 0; i < calls; ++i) {  // longer than the ring, and not long enough for a blob
          const bytes data(40'000 + static_cast<std::size_t>(i), static_cast<std::uint8_t>(t));
          const reply got = echo.try_call("echo", data);
          right += got && got.as<bytes>() == data;
        }
      });
    for (int i = 0; i < calls; ++i)
      echo.async_call<bytes>(
          "echo", std::tuple(bytes(40'000, 2)),
          [&](boost::system::error_code failed, const bytes& got) { done.put(!failed && got.size() == 40'000); });
  }
  REQUIRE(done.wait_for(calls));
  CHECK(right == 2 * calls);
  CHECK(std::ranges::count(done.values(), true) == calls);
}

TEST_CASE("messages longer than a large ring cross it, with and without a thread that waits") {
  host host;
  load_options options;
  options.deadline = 30s;
  options.lanes.ring = 1 << 20;
  options.blobs.threshold = SIZE_MAX;
  auto echo = host.load(plugin_path("echo"), options);
  const bytes data(3'000'000, 7);
  CHECK(echo.call<bytes>("echo", data) == data);
  mailbox<bool> done;
  for (int i = 0; i < 3; ++i)
    echo.async_call<bytes>("echo", std::tuple(data), [&](boost::system::error_code failed, const bytes& got) {
      done.put(!failed && got == data);
    });
  REQUIRE(done.wait([](const auto& values) { return values.size() == 3; }, 40s));
  CHECK(std::ranges::count(done.values(), true) == 3);
}

TEST_CASE("a ring of an odd size is refused") {
  host host;
  load_options options;
  options.lanes.ring = 5000;
  CHECK_THROWS_WITH(host.load(plugin_path("echo"), options), Catch::Contains("power of two"));
}

TEST_CASE("an idle host and its idle workers spend no CPU time, and the workers sleep from one heartbeat to the next") {
  host host;
  load_options options;
  options.instances = 2;
  auto echo = host.load(plugin_path("echo"), options);
  const int calls = GENERATE(0, 200);
  for (int i = 0; i < calls; ++i) echo.call<int>("add", 1, 2);
  std::vector<pid_t> all = {::getpid()};
  for (const auto& each : echo.workers()) all.push_back(each.pid);
  std::this_thread::sleep_for(200ms);  // what follows a call has an end
  std::vector<std::chrono::nanoseconds> before;
  for (const pid_t pid : all) before.push_back(cpu_time(pid));
  std::vector<long> slept;
  for (const pid_t pid : all) slept.push_back(sleeps(pid));
  const auto begun = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(1s);
#ifdef BULKHEAD_SANITIZED
  constexpr auto none = 20ms;  // of a heartbeat that is several times as much work
  constexpr long some = 20;    // ThreadSanitizer has a thread that wakes up ten times a second
#else
  constexpr auto none = 5ms;
  constexpr long some = 12;  // after each it looks a few times more for what else may come
#endif
  for (std::size_t i = 0; i < all.size(); ++i) CHECK(cpu_time(all[i]) - before[i] < none);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const long now = sleeps(all[i]);
    const long heartbeats = 1 + (std::chrono::steady_clock::now() - begun) / options.supervision.heartbeat.interval;
    CHECK(now - slept[i] < some * heartbeats);
  }
}

TEST_CASE("a plugin that writes into what comes from the host dies of it") {
  host host;
  auto attacker = host.load(plugin_path("lane_attacker"), untiring());
  const auto lane = lane_of(attacker.workers().at(0).pid, "r--s");
  const auto error = failure_of([&] { attacker.call("write", lane.address + 4096); });
  CHECK(error.outcome() == outcome::worker_lost);
  REQUIRE(error.report());
  CHECK(error.report()->signal == SIGSEGV);
}

// It is mapped from a descriptor that could be written to: its seal alone keeps it from being made writable.
TEST_CASE("a plugin finds no way to make what comes from the host writable") {
  host host;
  auto attacker = host.load(plugin_path("lane_attacker"));
  const auto lane = lane_of(attacker.workers().at(0).pid, "r--s");
  CHECK(attacker.call<std::vector<int>>("ways_to_write", lane.address, lane.size) == std::vector<int>(3, 0));
  CHECK(attacker.call<bytes>("echo", bytes{1}) == bytes{1});
}

#ifdef BULKHEAD_UNSEALING
TEST_CASE("a worker that wants lanes and has not sealed its own is not taken into use") {
  REQUIRE(::setenv("BULKHEAD_WORKER_PRELOAD", BULKHEAD_UNSEALING, 1) == 0);
  host host;
  ::unsetenv("BULKHEAD_WORKER_PRELOAD");
  const auto error = failure_of([&] { host.load(plugin_path("echo")); });
  CHECK(error.outcome() == outcome::unavailable);
  CHECK_THAT(error.what(), Catch::Contains("without having sealed"));
  load_options options;
  options.lanes.enabled = false;
  CHECK(host.load(plugin_path("echo"), options).call<int>("add", 20, 22) == 42);
}
#endif

TEST_CASE("a plugin granted handles that sends them with no message is ended, whoever reads of it") {
  host host;
  auto neighbour = host.load(plugin_path("echo"));
  const bool waited_for = GENERATE(true, false);
  const int times = GENERATE(2, 20);
  constexpr int channel = 3;
  auto options = untiring();
  options.policy = policy{}.allow_handles();
  options.deadline = 30s;
  host.load(plugin_path("lane_attacker"), options)
      .unload();  // what is kept of its file and policy is kept from here on
  const auto fds = entries("/proc/self/fd");
  auto attacker = host.load(plugin_path("lane_attacker"), options);
  mailbox<outcome> ended;
  if (waited_for) ended.put(attacker.try_call("send_descriptors", channel, times).outcome());
  else
    attacker.async_call<reply>("send_descriptors", std::tuple(channel, times),
                               [&](boost::system::error_code, const reply& got) { ended.put(got.outcome()); });
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values().at(0) == outcome::protocol);
  attacker.unload();
  CHECK(neighbour.call<int>("add", 20, 22) == 42);
  CHECK(eventually([&] { return entries("/proc/self/fd") <= fds; }));  // some of the first were still to be closed
}

// BULKHEAD_SCRIBBLE_SECONDS=N goes on for so long (default 2).
std::chrono::steady_clock::time_point scribble_end() {
  const char* given = std::getenv("BULKHEAD_SCRIBBLE_SECONDS");
  return std::chrono::steady_clock::now() + std::chrono::seconds(given ? std::atoi(given) : 2);
}

TEST_CASE("a plugin that scribbles over its lane harms its own calls only, and each of them ends", "[scribble]") {
  const auto end = scribble_end();
  host host;
  auto neighbour = host.load(plugin_path("echo"));
  std::mt19937 random(std::random_device{}());
  int broken = 0;
  do {
    auto options = untiring();
    options.deadline = 2s;
    auto attacker = host.load(plugin_path("lane_attacker"), options);
    const auto lane = lane_of(attacker.workers().at(0).pid, "rw-s");
    std::atomic<int> ended{0};
    std::jthread others([&] {
      for (int i = 0; i < 20; ++i) {
        attacker.try_call("echo", bytes(1000));
        ++ended;
      }
    });
    const auto reply = attacker.try_call("scribble", lane.address, lane.size, static_cast<unsigned>(random()), 20);
    broken += !reply;
    others.join();
    CHECK(ended == 20);
    CHECK(neighbour.call<int>("add", 20, 22) == 42);
  } while (std::chrono::steady_clock::now() < end);
  CHECK(broken > 0);
}

// The host's event loop reads: its own, or the application's, which looks at the ring in between. Lanes, arenas for
// results and the black box change all the time.
TEST_CASE("a plugin that scribbles over all memory it shares harms its own asynchronous calls, streams and events only",
          "[scribble]") {
  const auto end = scribble_end();
  boost::asio::io_context context;
  const auto working = boost::asio::make_work_guard(context);
  std::jthread runs([&](const std::stop_token& over) {
    std::stop_callback stop(over, [&] { context.stop(); });
    context.run();
  });
  host own, embedded(context.get_executor());
  const plugin neighbours[] = {own.load(plugin_path("echo")), embedded.load(plugin_path("echo"))};
  std::mt19937 random(std::random_device{}());
  std::size_t broken = 0;
  unsigned rounds = 0;
  do {
    auto options = untiring();
    options.deadline = 500ms;
    const unsigned which = rounds++ % 2;
    const plugin attacker = (which ? embedded : own).load(plugin_path("lane_attacker"), options);
    attacker.on_event([](const std::string&, const msgpack::object&) {});
    const auto arena = attacker.with({.deadline = 20s}).call<bytes>("echo", bytes(1'000'000));
    REQUIRE(arena.size() == 1'000'000);  // so there is one now
    std::vector<std::pair<std::uint64_t, std::uint64_t>> memories;
    for (const mapping& each : shared_by(attacker.workers().at(0).pid, "bulkhead-"))
      if (each.rights == "rw-s") memories.emplace_back(each.address, each.size);
    REQUIRE(memories.size() >= 3);
    attacker.try_call("scribble_along", memories, static_cast<unsigned>(random()), 50);

    constexpr std::size_t calls = 40;
    mailbox<bool> ended;
    for (std::size_t i = 0; i < calls; ++i)
      attacker.async_call<bytes>("echo", std::tuple(bytes(i % 8 ? 1000 : 200'000)),
                                 [&](boost::system::error_code failed, const bytes&) { ended.put(!failed); });
    auto stream = attacker.open("flow");
    std::jthread sender([&] {
      for (int i = 0; i < 200 && stream.send(bytes(1000)); ++i) continue;
      stream.close();
    });
    try {
      while (stream.next_packed()) continue;
    } catch (const call_error&) {
      ++broken;
    }
    sender.join();
    broken += !stream.finish();
    REQUIRE(ended.wait_for(calls));
    const auto outcomes = ended.values();
    broken += static_cast<std::size_t>(std::ranges::count(outcomes, false));
    for (const plugin& each : neighbours) CHECK(each.call<int>("add", 20, 22) == 42);
  } while (std::chrono::steady_clock::now() < end || rounds < 2);
  CHECK(broken > 0);
}

}  // namespace bulkhead::testing
