// The harness as an author uses it with Catch2. The same with GoogleTest is in harness_gtest.cpp.
#include <bulkhead/testing.hpp>

#include <catch2/catch.hpp>

#include <fcntl.h>

using namespace std::chrono_literals;
using bulkhead::outcome;
using bulkhead::test::in_process;
using bulkhead::test::isolated;
using Catch::Matchers::Contains;

namespace {

const std::string file = BULKHEAD_HARNESS_PLUGIN;

auto lookup = [](const std::string& what) { return static_cast<int>(what.size()); };

}  // namespace

TEST_CASE("a plugin is loaded in one line, into a worker or into the test") {
  bulkhead::test::plugin stats(file);
  CHECK(stats->call<double>("mean", std::vector<double>{1, 2, 6}) == 3);
  CHECK(stats->workers().at(0).pid != ::getpid());
  CHECK(stats.misuses().empty());

  bulkhead::test::plugin here(file, in_process());
  CHECK(here->call<double>("mean", std::vector<double>{1, 2, 6}) == 3);
  CHECK(here->call<std::string>("steps") == "done");
  CHECK(here.misuses().empty());
}

TEST_CASE("a plugin that is not there is told with the places that were searched") {
  CHECK_THROWS_WITH(bulkhead::test::plugin("no-such-plugin.so"), Contains("no-such-plugin.so") && Contains("searched"));
}

TEST_CASE("a call is cancelled at any step, in a worker and in the test") {
  for (const auto& how : {isolated(), in_process()}) {
    std::vector<unsigned> steps;
    const unsigned count = bulkhead::test::cancelled_at_each_step(file, how, [&](auto& plugin, unsigned step) {
      const bulkhead::reply done = plugin->try_call("steps");
      steps.push_back(step);
      if (done) return true;
      CHECK(done.outcome() == outcome::plugin_error);
      CHECK(done.message() == "cancelled");
      return false;
    });
    CHECK(count == 5);
    CHECK(steps.size() == 6);  // at the last one it answers
  }
}

TEST_CASE("functions of the application fail when the test wants it") {
  for (auto how : {isolated(), in_process()}) {
    bulkhead::test::plugin shop(file, how.lend("lookup", lookup).failing("lookup", 2, 1));
    CHECK(shop->call<int>("price", "tea") == 3);
    CHECK(shop->call<int>("price", "tea") == -1);
    CHECK(shop->call<int>("price", "coffee") == 6);
    CHECK(shop.misuses().empty());
    const auto lines = shop.log();
    REQUIRE(lines.size() == 1);
    CHECK_THAT(lines[0], Contains("no price") && Contains("the test wants it"));
  }
}

TEST_CASE("functions of the host itself fail when the test wants it") {
  for (auto how : {isolated(), in_process()}) {
    bulkhead::test::plugin shop(
        file,
        how.lend("lookup", lookup).failing_host("create_blob", 2).failing_host("emit").failing_host("call_host", 2));
    CHECK(shop->call<bulkhead::bytes>("blob", 10).size() == 10);
    const bulkhead::reply second = shop->try_call("blob", 10);
    CHECK(second.outcome() == outcome::plugin_error);
    CHECK_THAT(second.message(), Contains("no memory for a blob"));
    CHECK(!shop->call<bool>("emits"));
    CHECK(shop->call<int>("price", "tea") == 3);
    CHECK(shop->call<int>("price", "tea") == -1);
    CHECK(shop.misuses().empty());
    CHECK_THAT(shop.log().at(0), Contains("no price: overloaded because the test wants it"));
  }
  const bulkhead::unique_fd opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  bulkhead::test::plugin taking(file);
  CHECK(taking->call<bool>("given", bulkhead::pass_fd{opened.get()}));
  bulkhead::test::plugin failing(file, isolated().failing_host("take_handle"));
  CHECK(failing->try_call("given", bulkhead::pass_fd{opened.get()}).outcome() == outcome::plugin_error);
  CHECK_THROWS_WITH(bulkhead::test::plugin(file, isolated().failing_host("reply")), Contains("fail=reply@1"));
}

TEST_CASE("a slow host makes each use of it take longer, so that a deadline passes") {
  for (auto how : {isolated(), in_process()}) {
    bulkhead::test::plugin slow(file, how.slow_host(100ms).with([](auto& load) { load.deadline = 150ms; }));
    CHECK(slow->try_call("steps").outcome() == outcome::timeout);
  }
}

TEST_CASE("rules that the plugin broke are told") {
  for (const auto& how : {isolated(), in_process()}) {
    bulkhead::test::plugin twice(file, how);
    twice->call("twice");
    const auto found = twice.misuses();
    REQUIRE(found.size() == 1);
    CHECK_THAT(found[0], Contains("'twice'") && Contains("answered already"));
  }
}

TEST_CASE("a crash in a worker is an outcome like others") {
  bulkhead::test::plugin stats(file);
  CHECK(stats->try_call("crash").outcome() == outcome::worker_lost);
  CHECK(stats->call<double>("mean", std::vector<double>{4}) == 4);
}
