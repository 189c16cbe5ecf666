// What a call allocates on the thread that makes it. (On the worker's side: tests/protocol/worker.cpp.)
#include "fixture.hpp"

extern "C" std::uint64_t bulkhead_test_allocations();

namespace bulkhead::testing {
namespace {

template <class F>
std::uint64_t allocated_by(F&& calls) {
  for (int i = 0; i < 200; ++i) calls();  // warm
  const std::uint64_t before = bulkhead_test_allocations();
  for (int i = 0; i < 1000; ++i) calls();
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
  CHECK(wrong == 0);
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
