// The parts of supervision that count and delay: the restart window, the backoff, the host's spawn budget.
#include "supervision/backoff.hpp"
#include "supervision/spawner.hpp"

#include <catch2/catch.hpp>

#include <future>

using namespace bulkhead;
using namespace bulkhead::supervision;
using namespace std::chrono_literals;

namespace {
const time_point zero{1000s};
}

TEST_CASE("five restarts in a sliding minute are admitted, a sixth is not, and then one for each that slides out") {
  restart_window window{restart_intensity{}};
  for (int i = 0; i < 5; ++i) CHECK(window.admit(zero + i * 10s));
  CHECK_FALSE(window.admit(zero + 59s));
  CHECK(window.open_at(zero + 59s) == zero + 60s);
  CHECK_FALSE(window.admit(zero + 60s - 1ns));
  CHECK(window.admit(zero + 60s));
  CHECK_FALSE(window.admit(zero + 60s));
  CHECK(window.admit(zero + 70s));
  window.clear();
  for (int i = 0; i < 5; ++i) CHECK(window.admit(zero + 70s));
  CHECK_FALSE(window.admit(zero + 70s));
}

TEST_CASE("a window of no restarts admits none") {
  restart_window window{{0, 60s}};
  CHECK_FALSE(window.admit(zero));
  CHECK_FALSE(window.admit(zero + 1h));
}

TEST_CASE("the fork server's third death within a minute is its last") {
  restart_window window{fork_server_intensity};
  CHECK(window.admit(zero));
  CHECK(window.admit(zero + 1s));
  SECTION("third within the minute") { CHECK_FALSE(window.admit(zero + 59s)); }
  SECTION("third after the minute") { CHECK(window.admit(zero + 60s)); }
}

TEST_CASE("backoff doubles from none to the longest, within its jitter") {
  const restart_backoff rules;
  const std::chrono::milliseconds plain[] = {0ms, 100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 6400ms, 10s, 10s};
  std::chrono::nanoseconds first_five{0};
  for (unsigned n = 0; n < std::size(plain); ++n) {
    CHECK(backoff_delay(rules, n, 0) == plain[n]);
    CHECK(backoff_delay(rules, n, 1) == plain[n] * 12 / 10);
    CHECK(backoff_delay(rules, n, -1) == plain[n] * 8 / 10);
    if (n < 5) first_five += backoff_delay(rules, n, 0);
  }
  CHECK(first_five == 1500ms);  // so backoff can't starve the window
  CHECK(backoff_delay(rules, 4'000'000'000u, 0) == 10s);
  const restart_backoff endless{.first = 1s, .longest = std::chrono::nanoseconds::max(), .jitter = 0};
  CHECK(backoff_delay(endless, 200, 0) > 24h * 365 * 200);  // no overflow
  CHECK(backoff_delay({.first = 1min, .longest = 10s}, 1, 0) == 10s);
}

TEST_CASE("four spawns go at once, the fifth when one of them is done") {
  spawn_budget budget;
  std::vector<spawn_budget::ticket> asked;
  for (int i = 0; i < 6; ++i) asked.push_back(budget.ask(spawn_kind::first));
  CHECK(budget.granted(zero) == std::vector(asked.begin(), asked.begin() + 4));
  CHECK(budget.granted(zero).empty());
  CHECK(budget.wake_at(zero) == never);
  budget.done(asked[2]);
  budget.done(asked[2]);
  CHECK(budget.granted(zero) == std::vector{asked[4]});
  budget.done(asked[5]);  // withdrawn before its turn
  budget.done(asked[0]);
  CHECK(budget.granted(zero).empty());
  CHECK(budget.starting() == 3);
  CHECK(budget.waiting() == 0);
}

TEST_CASE("while too many events wait to be told no restart or recycling begins, first starts do") {
  const bool crowded = GENERATE(true, false);
  const auto kind = GENERATE(spawn_kind::restart, spawn_kind::replacement);
  std::promise<void> restarted, started;
  spawner subject(spawn_limits{});
  for (int i = 0; i < (crowded ? 1025 : 1024); ++i) subject.event_queued();
  subject.ask(kind, [&] { restarted.set_value(); });
  subject.ask(spawn_kind::first, [&] { started.set_value(); });
  REQUIRE(started.get_future().wait_for(20s) == std::future_status::ready);
  auto then = restarted.get_future();
  CHECK((then.wait_for(0s) == std::future_status::ready) == !crowded);
  if (crowded) subject.event_told();
  CHECK(then.wait_for(20s) == std::future_status::ready);
}

TEST_CASE("fifty restarts go in ten seconds, more wait, and first starts and recycling pass them") {
  spawn_budget budget;
  for (int i = 0; i < 50; ++i) {
    const auto each = budget.ask(spawn_kind::restart);
    REQUIRE(budget.granted(zero + i * 10ms) == std::vector{each});
    budget.done(each);
  }
  const auto restart = budget.ask(spawn_kind::restart);
  const auto first = budget.ask(spawn_kind::first);
  const auto recycling = budget.ask(spawn_kind::replacement);
  CHECK(budget.granted(zero + 1s) == std::vector{first, recycling});
  CHECK(budget.wake_at(zero + 1s) == zero + 10s);
  CHECK(budget.granted(zero + 10s - 1ns).empty());
  CHECK(budget.granted(zero + 10s) == std::vector{restart});
}
