// Who spins and who does not, of a thread that calls and the worker that answers it: seen by the CPU time that they spend
// while they wait for each other.
#include "fixture.hpp"
#include "sandbox/own_cgroup.hpp"
#include "seen_outside.hpp"
#include "usable_cpus.hpp"
#include <bulkhead/ipc/lane.hpp>

namespace bulkhead::testing {
namespace {

// As far as it is up to them, both sides spin for all of the 10 ms that can be saved up of their budget.
load_options eager() {
  load_options options;
  options.lanes.spin = 1s;
  options.lanes.cpu_budget = 1;
  return options;
}

// Of the 100 ms that an eager side spends at first, 60 ms later.
#ifdef BULKHEAD_SANITIZED
constexpr auto little = 45ms;  // a call alone takes a millisecond or two
#else
constexpr auto little = 25ms;
#endif

struct spent {
  std::chrono::nanoseconds caller, worker;
};

// Each of the two waits for the other for a little longer than it could spin, in turn.
spent spent_on_waiting(const plugin& chaos) {
  const pid_t pid = chaos.workers().at(0).pid;
  const spent before{cpu_time_by(CLOCK_THREAD_CPUTIME_ID), cpu_time(pid)};
  for (int i = 0; i < 12; ++i) {
    CHECK(chaos.call<int>("sleep_ms", 12) == 12);
    std::this_thread::sleep_for(12ms);
  }
  return {cpu_time_by(CLOCK_THREAD_CPUTIME_ID) - before.caller, cpu_time(pid) - before.worker};
}

void check_that_nobody_spins(const plugin& chaos) {
  const spent here = spent_on_waiting(chaos);
  CHECK(here.caller < little);
  CHECK(here.worker < little);
}

}  // namespace

TEST_CASE("a caller and its worker spin for as long as they are told, where there are CPUs for both") {
  host host;
  const auto chaos = host.load(plugin_path("chaos"), eager());
  if (usable_cpus() < 2 || !may_spin(sandbox::cpu_quota(), 0)) return check_that_nobody_spins(chaos);
  CHECK(eventually([&] {  // others may have the CPUs meanwhile
    const spent here = spent_on_waiting(chaos);
    return here.caller > little && here.worker > little;
  }));
}

TEST_CASE("neither a caller nor its worker spins when it is told not to, or has no budget for it") {
  auto options = eager();
  SECTION("not at all") { options.lanes.spin = 0ns; }
  SECTION("no budget but what is saved up at first") { options.lanes.cpu_budget = 0; }
  host host;
  check_that_nobody_spins(host.load(plugin_path("chaos"), options));
}

TEST_CASE("nobody spins on a worker that has less than a CPU's time") {
  host host({.cgroup = "/nowhere"});  // what it would be held to says enough
  auto options = eager();
  options.policy = policy::strict().cpus(0.5).at_least(sandbox_level::limited);
  check_that_nobody_spins(host.load(plugin_path("chaos"), options));
}

TEST_CASE("a host that may run on one CPU only and its workers know that, and nobody spins") {
  cpu_set_t all, one;
  REQUIRE(::sched_getaffinity(0, sizeof all, &all) == 0);
  std::size_t cpu = 0;
  while (!CPU_ISSET(cpu, &all)) ++cpu;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  {
    host host;
    const auto chaos = host.load(plugin_path("chaos"), eager());
    const auto lanes = shared_by(::getpid(), "bulkhead-lane");
    REQUIRE(lanes.size() == 2);
    for (const mapping& each : lanes)
      CHECK(reinterpret_cast<const ipc::lane_control*>(each.address)->one_cpu == cpu + 1);
    check_that_nobody_spins(chaos);
  }
  ::sched_setaffinity(0, sizeof all, &all);
}

}  // namespace bulkhead::testing
