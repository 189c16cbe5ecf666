// The harness as an author uses it with GoogleTest.
#include <bulkhead/testing.hpp>

#include <gtest/gtest.h>

using namespace std::chrono_literals;
using bulkhead::test::in_process;

namespace {

const char* const file = BULKHEAD_HARNESS_PLUGIN;

TEST(Harness, LoadsAPluginInOneLine) {
  bulkhead::test::plugin stats(file);
  EXPECT_EQ(stats->call<double>("mean", std::vector<double>{1, 2, 6}), 3);
  EXPECT_TRUE(stats.misuses().empty());
}

TEST(Harness, CancelsAtAStep) {
  bulkhead::test::plugin stats(file, in_process().cancel_at(3));
  const bulkhead::reply done = stats->try_call("steps");
  EXPECT_EQ(done.outcome(), bulkhead::outcome::plugin_error);
  EXPECT_EQ(done.message(), "cancelled");
}

TEST(Harness, HasFunctionsOfTheApplicationFail) {
  bulkhead::test::plugin shop(file,
                              in_process().lend("lookup", [](const std::string&) { return 7; }).failing("lookup"));
  EXPECT_EQ(shop->call<int>("price", "tea"), -1);
}

TEST(Harness, SeesACrash) {
  bulkhead::test::plugin stats(file);
  EXPECT_EQ(stats->try_call("crash").outcome(), bulkhead::outcome::worker_lost);
}

}  // namespace
