// When a side that waits spins, and for how long: decisions without a clock.
#include <bulkhead/ipc/spin_policy.hpp>

#include <catch2/catch.hpp>

namespace bulkhead::testing {

using namespace std::chrono_literals;
using ipc::spin_policy;

TEST_CASE("one spins at first, and for as long as the last waits were short") {
  spin_policy policy(50us, 0.5);
  auto now = 1s + 0ns;
  CHECK(policy.window(now, true) == 50us);
  for (int i = 0; i < 100; ++i) {
    policy.ended(2us, 2us, false);
    CHECK(policy.window(now += 10us, true) == 50us);
  }
}

TEST_CASE("a peer that seems to have answered before it was woken says nothing about what a wake-up takes") {
  spin_policy policy(50us, 0.5);
  policy.woke_peer(10us);
  for (int i = 0; i < 1000; ++i) policy.woke_peer(-1us);
  policy.ended(55us, 0us, true);  // of 50 us at most, and 10 us to wake up
  CHECK(policy.window(1s, true) == 50us);
}

TEST_CASE("long waits end the spinning, one that would have been short begins it again, though it was slept through") {
  spin_policy policy(50us, 0.5);
  auto now = 1s + 0ns;
  for (int i = 0; i < 10; ++i) {
    policy.window(now += 10ms, true);
    policy.ended(10ms, 50us, true);
  }
  CHECK(policy.window(now, true) == 0us);
  policy.ended(40us, 0us, true);
  CHECK(policy.window(now += 50us, true) == 50us);
}

TEST_CASE("one spins for twice the time that waking the other takes, within four times what was asked for") {
  spin_policy policy(50us, 0.5);
  policy.woke_peer(80us);
  CHECK(policy.window(1s, true) == 160us);
  spin_policy slow(50us, 0.5);
  slow.woke_peer(10ms);
  CHECK(slow.window(1s, true) == 200us);
}

TEST_CASE("nobody spins where the other side could not run meanwhile, nor when told not to") {
  spin_policy policy(50us, 0.5);
  CHECK(policy.window(1s, false) == 0us);
  spin_policy never(0us, 0.5);
  never.woke_peer(80us);
  CHECK(never.window(1s, true) == 0us);
  spin_policy broke(50us, 0);
  for (int i = 0; i < 1000; ++i) {
    broke.window(1s, true);
    broke.ended(50us, 50us, false);
  }
  CHECK(broke.window(2s, true) == 0us);
}

TEST_CASE("when one spin after the other has ended in a sleep, nobody spins for a while, and longer each time") {
  spin_policy policy(50us, 1);
  auto now = 1s + 0ns;
  const auto fail = [&] {
    CHECK(policy.window(now, true) > 0us);
    policy.ended(50us, 50us, true);  // so short that it would be worth another try
    now += 50us;
  };
  const auto silent_for = [&] {
    auto left = 0us;
    for (; policy.window(now, true) == 0us; now += 100us, left += 100us) policy.ended(20us, 0us, true);
    return left;
  };
  for (int i = 0; i < 4; ++i) fail();
  const auto first = silent_for();
  CHECK(first >= 900us);
  fail();
  const auto second = silent_for();
  CHECK(second >= first + 900us);
  for (int i = 0; i < 10; ++i) {
    fail();
    CHECK(silent_for() < 40ms);
  }
  policy.ended(10us, 10us, false);  // one that went well: all is forgotten
  for (int i = 0; i < 4; ++i) fail();
  CHECK(silent_for() <= first + 100us);
}

TEST_CASE(
    "what is spent on spinning stays within the budget in the long run, but for waits shorter than a sleep costs") {
  spin_policy policy(50us, 0.25);
  auto now = 0ns;
  std::chrono::nanoseconds spun{0};
  while (now < 10s) {
    const auto window = policy.window(now, true);
    const auto spin = std::min<std::chrono::nanoseconds>(window, 40us);
    policy.ended(40us, spin, spin < 40us);
    spun += spin;
    now += 45us;
  }
  CHECK(spun < 4s);  // a quarter, and 10 us for each wait that went well
  CHECK(spun > 2s);
}

}  // namespace bulkhead::testing
