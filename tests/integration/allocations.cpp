// What a call allocates: on the thread that makes it, and in its worker. (In one by the socket: tests/protocol/worker.cpp.)
#include "fixture.hpp"

#include <boost/asio/io_context.hpp>

#include <cstdlib>
#include <thread>

extern "C" std::uint64_t bulkhead_test_allocations();

namespace bulkhead::testing {
namespace {

constexpr const char* long_name = "add_by_a_name_of_some_length";
constexpr int counted_calls = 1000;

template <class F>
std::uint64_t allocated_by(F&& calls) {
  for (int i = 0; i < 200; ++i) calls();  // warm
  const std::uint64_t before = bulkhead_test_allocations();
  for (int i = 0; i < counted_calls; ++i) calls();
  return bulkhead_test_allocations() - before;
}

}  // namespace

TEST_CASE("the counter of allocations counts") {
  const std::uint64_t before = bulkhead_test_allocations();
  const auto one = std::make_unique<int>(1);
  CHECK(bulkhead_test_allocations() == before + (*one ? 1 : 0));
}

TEST_CASE("a synchronous call allocates nothing on its thread once it is warm") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  int wrong = 0;
  CHECK(allocated_by([&] { wrong += echo.call<int>("add", 20, 22) != 42; }) == 0);
  const bytes some(16);
  CHECK(allocated_by([&] { wrong += echo.call<std::size_t>("size", some) != 16; }) == 0);
  CHECK(allocated_by([&] { wrong += echo.try_call("echo", some).size() != 18; }) == 0);
  const auto patient = echo.with({.deadline = std::chrono::seconds(30)});
  CHECK(allocated_by([&] { wrong += patient.call<int>("add", 20, 22) != 42; }) == 0);
  auto counting = host.load(plugin_path("counting"));
  CHECK(allocated_by([&] { wrong += counting.call<int>(long_name, 20, 22) != 42; }) == 0);
  CHECK(wrong == 0);
}

TEST_CASE(
    "a worker allocates nothing for a call by its lanes once it is warm, nor for each of several that come at once") {
  REQUIRE(::setenv("BULKHEAD_WORKER_PRELOAD", BULKHEAD_COUNTED_MALLOC, 1) == 0);
  host host;
  ::unsetenv("BULKHEAD_WORKER_PRELOAD");
  load_options options;
  options.supervision.heartbeat.interval = std::chrono::seconds(0);  // what is answered there takes memory
  const auto counting = host.load(plugin_path("counting"), options);
  const auto so_far = [&] { return counting.call<std::uint64_t>("allocations"); };
  CHECK(so_far() > 0);
  std::atomic<int> wrong{0};
  const auto patient = counting.with({.deadline = std::chrono::seconds(30)});
  const auto in_turn = [&] {
    for (int i = 0; i < counted_calls; ++i) {
      wrong += counting.call<int>("add", i, 1) != i + 1;
      wrong += counting.call<int>(long_name, i, 1) != i + 1;
      wrong += counting.call<std::size_t>("text", "sixteen bytes...", 0.5) != 16;
      wrong += patient.call<int>("add", i, 1) != i + 1;
    }
  };
  constexpr int threads = 4;
  const auto at_once = [&] {
    std::vector<std::jthread> callers;
    for (int t = 0; t < threads; ++t)
      callers.emplace_back([&] {
        for (int i = 0; i < counted_calls; ++i) wrong += patient.call<int>("add", i, 1) != i + 1;
      });
  };
  const auto allocated_for = [&](const auto& calls) {
    calls();  // warm
    const std::uint64_t before = so_far();
    calls();
    return so_far() - before;
  };
  CHECK(allocated_for(in_turn) == 0);
  CHECK(allocated_for(at_once) < threads * counted_calls / 10);  // memory for as many as ever wait there
  CHECK(wrong == 0);
}

TEST_CASE("bytes that go by blob cost a few allocations, however many they are") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  const bytes some(GENERATE(std::size_t{70'000}, std::size_t{1'000'000}));
  int wrong = 0;
  CHECK(allocated_by([&] { wrong += echo.call<std::size_t>("size", some) != some.size(); }) <= 8 * counted_calls);
  CHECK(allocated_by([&] { wrong += echo.call<bytes>("echo", some).size() != some.size(); }) <= 18 * counted_calls);
  CHECK(wrong == 0);
}

// All of it on one thread, which runs the host's event loop and the handler, too.
TEST_CASE("an asynchronous call allocates twice, and twice more for a long name") {
  boost::asio::io_context context;
  host host(context.get_executor());
  auto counting = host.load(plugin_path("counting"));
  int wrong = 0;
  const auto call = [&](const char* method) {
    bool done = false;
    counting.async_call<int>(method, std::tuple{20, 22}, [&](boost::system::error_code failed, int sum) {
      wrong += failed || sum != 42;
      done = true;
    });
    while (!done) context.run_one();
  };
  CHECK(allocated_by([&] { call("add"); }) <= 2 * counted_calls);
  CHECK(allocated_by([&] { call(long_name); }) <= 4 * counted_calls);
  CHECK(wrong == 0);
}

// What the one lets go of serves the other.
TEST_CASE("asynchronous calls whose ends another thread takes allocate nothing but for their arguments") {
  host host;
  auto counting = host.load(plugin_path("counting"));
  std::atomic<int> wrong{0}, ended{0};
  const auto calls = [&] {
    constexpr int at_once = 64;
    ended = 0;
    for (int i = 0; i < at_once; ++i)
      counting.async_call<int>("add", std::tuple{20, 22}, [&](boost::system::error_code failed, int sum) {
        wrong += failed || sum != 42;
        if (++ended == at_once) ended.notify_one();
      });
    for (int now = ended; now < at_once; now = ended) ended.wait(now);
    return at_once;
  };
  for (int i = 0; i < 100; ++i) calls();
  const std::uint64_t before = bulkhead_test_allocations();
  int made = 0;
  for (int i = 0; i < 100; ++i) made += calls();
  CHECK(bulkhead_test_allocations() - before <= static_cast<std::uint64_t>(made + made / 2));  // threads may be new
  CHECK(wrong == 0);
}

TEST_CASE("memory that is recycled serves whatever is made next, and is no more than a few bundles") {
  struct small : ipc::recycled {
    std::array<char, 100> bytes{};
  };
  struct other : ipc::recycled {
    std::array<char, 128> bytes{};
  };
  struct alignas(128) strict : ipc::recycled {
    std::array<char, 128> bytes{};
  };
  struct large : ipc::recycled {
    std::array<char, 513> bytes{};
  };
  const void* const first = std::make_unique<small>().get();
  CHECK(std::make_unique<other>().get() == first);
  CHECK(reinterpret_cast<std::uintptr_t>(std::make_unique<strict>().get()) % 128 == 0);
  CHECK(allocated_by([] { std::make_unique<small>(); }) == 0);
  CHECK(allocated_by([] { std::make_unique<large>(); }) == counted_calls);
  const auto many = [] {
    std::vector<std::unique_ptr<other>> all(5000);
    for (auto& each : all) each = std::make_unique<other>();
  };
  many();
  const std::uint64_t before = bulkhead_test_allocations();
  many();
  CHECK(bulkhead_test_allocations() - before > 4000);
}

TEST_CASE("a synchronous call allocates nothing once it is warm, without lanes and with several workers") {
  host host;
  load_options options;
  options.lanes.enabled = GENERATE(true, false);
  options.instances = 3;
  auto echo = host.load(plugin_path("echo"), options);
  int wrong = 0;
  CHECK(allocated_by([&] { wrong += echo.call<int>("add", 20, 22) != 42; }) == 0);
  CHECK(wrong == 0);
}

}  // namespace bulkhead::testing
