// An author's tests of the plugin, by the harness that is installed: in a worker and in the test itself, and with what is
// rare otherwise brought about.
#define CATCH_CONFIG_MAIN
#include <bulkhead/testing.hpp>

#include <catch2/catch.hpp>

using bulkhead::test::in_process;
using bulkhead::test::isolated;

TEST_CASE("shout answers in capitals") {
  for (const auto& how : {isolated(), in_process()}) {
    bulkhead::test::plugin shout("shout.so", how);
    CHECK(shout->call<std::string>("shout", "hello") == "HELLO");
    CHECK(shout.misuses().empty());
  }
}

TEST_CASE("greet makes do without an application that fails") {
  for (auto how : {isolated(), in_process()}) {
    bulkhead::test::plugin shout("shout.so", how.lend("who", [] { return std::string("Ada"); }).failing("who", 2));
    CHECK(shout->call<std::string>("greet") == "HELLO, ADA");
    CHECK(shout->call<std::string>("greet") == "HELLO, YOU");
  }
}

TEST_CASE("greet stops at each step at which it is cancelled") {
  for (const auto& how : {isolated(), in_process()}) {
    const unsigned steps = bulkhead::test::cancelled_at_each_step(
        "shout.so", how, [](auto& shout, unsigned) { return bool(shout->try_call("greet")); });
    CHECK(steps >= 1);
  }
}

TEST_CASE("die takes its worker down, and no more") {
  bulkhead::test::plugin shout("shout.so");
  CHECK(shout->try_call("die").outcome() == bulkhead::outcome::worker_lost);
  CHECK(shout->call<std::string>("shout", "still here") == "STILL HERE");
}
