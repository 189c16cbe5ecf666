// When a side that waits spins, and for how long: decisions without a clock. Then what comes of them on a lane.
#include "lane_pair.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <ctime>
#include <random>

#include <sched.h>

namespace bulkhead::testing {

using namespace std::chrono_literals;
using ipc::spin_policy;

namespace {

constexpr ipc::lane_options eager{.spin = 1s, .cpu_budget = 1};

// Where this thread may run; as before when it goes.
class affinity {
 public:
  affinity() {
    REQUIRE(::sched_getaffinity(0, sizeof before_, &before_) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &before_)) cpus.push_back(cpu);
  }
  ~affinity() { ::sched_setaffinity(0, sizeof before_, &before_); }

  void pin(int cpu) const {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  }

  std::vector<int> cpus;

 private:
  cpu_set_t before_{};
};

std::chrono::nanoseconds own_cpu_time() {
  timespec spent{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
  return std::chrono::seconds(spent.tv_sec) + std::chrono::nanoseconds(spent.tv_nsec);
}

// Whether one that is on this CPU and would like to spin does so for a peer on that one.
bool spins(const affinity& on, int mine, int theirs) {
  lane_pair pair;
  on.pin(theirs);
  const auto worker = pair.worker(eager);
  on.pin(mine);
  const auto host = pair.host(eager);
  const auto before = own_cpu_time();
  CHECK_FALSE(host->wait(true, false, ipc::clock::now() + 8ms));
  return own_cpu_time() - before > 4ms;
}

}  // namespace

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

TEST_CASE("whatever the rhythm in which messages come, spinning stays within its budget and what was saved up") {
  const double budget = GENERATE(0.0, 0.1, 0.5, 1.0);
  const int rhythm = GENERATE(range(0, 6));
  constexpr auto price_of_sleep = 10us;
  constexpr auto saved_up = 10ms;
  std::mt19937 random(1);
  spin_policy policy(50us, budget);
  if (rhythm % 2) policy.woke_peer(100us);
  std::chrono::nanoseconds now{0}, spent{0}, most_beyond{0};
  for (int i = 0; i < 100'000; ++i) {
    const auto window = policy.window(now, true);
    std::chrono::nanoseconds waited{};
    switch (rhythm) {
      case 0: waited = 1us; break;
      case 1: waited = window; break;                       // seen with the last look
      case 2: waited = window + 1us; break;                 // a moment too late
      case 3: waited = i % 3 ? window : 4 * window; break;  // well often enough to go on
      case 4: waited = 20ms; break;
      default: waited = std::chrono::nanoseconds(random() % 400'000);
    }
    const bool slept = waited > window;
    const auto spun = std::min(waited, window);
    policy.ended(waited, spun, slept);
    spent += std::max<std::chrono::nanoseconds>(spun - (slept ? 0us : price_of_sleep), 0ns);
    const auto allowed = std::chrono::nanoseconds(std::llround(budget * static_cast<double>(now.count())));
    most_beyond = std::max(most_beyond, spent - allowed);
    now += waited + 1us;
  }
  CHECK(most_beyond <= saved_up + 1us);
}

TEST_CASE("two sides that have the same only CPU do not spin, and two that have one each may") {
  const affinity on;
  const int one = on.cpus.front(), other = on.cpus.back();
  CHECK_FALSE(spins(on, one, one));
  if (one == other) return;
  bool any = false;  // others may have the CPU while it would
  for (int i = 0; i < 100 && !any; ++i) any = spins(on, one, other);
  CHECK(any);
}

TEST_CASE(
    "an event loop that looks again spends the time that its looks take, not what it does for others in between") {
  lane_pair pair;
  const auto host = pair.host({.spin = 1s, .cpu_budget = 0});  // 10 ms, once
  const auto busy = [](std::chrono::nanoseconds time) {
    for (const auto end = ipc::clock::now() + time; ipc::clock::now() < end;) continue;
  };
  if (!host->linger(true)) return;  // there is one CPU
  for (int i = 0; i < 100; ++i) {
    busy(100us);
    host->linger(false);
    REQUIRE(host->linger(true));
  }
  int rounds = 0;
  while (rounds < 100 && host->linger(true)) {
    for (int i = 0; i < 40; ++i) {
      busy(5us);
      host->linger(false);
    }
    ++rounds;
  }
  CHECK(rounds < 100);
}

TEST_CASE("a side that is moved to its only CPU says so before long") {
  const affinity on;
  if (on.cpus.size() < 2) return;
  lane_pair pair;
  const ipc::lane_memory said(pair.down.get(), false);
  const auto host = pair.host();
  CHECK(said.control().one_cpu == 0);
  on.pin(on.cpus.back());
  for (int i = 0; i < 100; ++i) CHECK_FALSE(host->wait(true, false, ipc::clock::now()));
  CHECK(said.control().one_cpu == static_cast<std::uint32_t>(on.cpus.back()) + 1);
}

TEST_CASE("a side that is awake is not rung, and one that sleeps is rung once, whatever comes") {
  lane_pair pair;
  const auto worker = pair.worker();
  const ipc::lane_memory reader(pair.down.get(), true);
  const auto& bell = pair.scribbled.control().bell;
  const bytes_t message(16, 7);
  const auto write = [&] {
    for (int i = 0; i < 3; ++i) CHECK(worker->write(message, {}, {}).bytes == message.size());
  };
  write();
  CHECK(bell == 0);
  for (std::uint32_t sleeps = 1; sleeps <= 2; ++sleeps) {
    reader.control().reader_waits = sleeps * (ipc::lane_wait_mask + 1) | ipc::by_futex;
    write();
    CHECK(bell == sleeps);
  }
  reader.control().reader_waits = 0;
  write();
  CHECK(bell == 2);
}

}  // namespace bulkhead::testing
