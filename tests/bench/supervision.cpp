// What supervision is worth and what it costs, each figure beside its floor in the same run, interleaved: from a worker's
// death to the end of all its calls; from a crash to the next successful call, cold and with a spare; how late the end
// of a call that hangs is, and what a neighbour notices of it; and a call through all of it against the same call on a bare
// channel.
#include "bare_worker.hpp"
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <array>
#include <csignal>
#include <latch>
#include <limits>
#include <thread>

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

using namespace bench;
using bulkhead::reply;

const std::string plugins = BULKHEAD_TEST_PLUGINS;
constexpr bulkhead::spawn_limits any_number_of_spawns{4, {1'000'000, 10s}};

// For workers that are killed again and again: restarted at once, always, and no call is refused.
bulkhead::load_options untiring(bulkhead::load_options options = {}) {
  options.supervision.intensity.restarts = 1'000'000;
  options.supervision.backoff.first = 0s;
  options.poison_limit = 0;
  return options;
}

// From SIGKILL until the kernel reports the end of the process: to take it down is the kernel's work, namespaces and all.
double kill_floor(pid_t pid) {
  const bulkhead::unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  pollfd ended{pidfd.get(), POLLIN, 0};
  return timed([&] {
    ::kill(pid, SIGKILL);
    ::poll(&ended, 1, -1);
  });
}

// A serving worker that is not the one with this pid.
pid_t other_than(const bulkhead::plugin& plugin, pid_t before) {
  for (;; std::this_thread::yield())
    for (const auto& worker : plugin.workers())
      if (worker.pid != before && worker.phase == bulkhead::phase::ready) return worker.pid;
}

// The bar is the median's; the tail, which is mostly the machine's, has one only where it is said.
void two_rows(const std::string& name, const std::vector<double>& values, double tail, const std::string& floor_name,
              const std::vector<double>& floors, double bar, double tail_bar = 0) {
  for (const double q : {0.5, tail}) {
    const double floor = quantile(floors, q), value = quantile(values, q);
    row(fmt::format("{}, p{:.0f}", name, q * 100), value, "us", fmt::format("{} {:.0f} us", floor_name, floor),
        value / floor, q == 0.5 ? bar : tail_bar);
  }
}

// All sixteen were begun: the worker runs so many at once.
void deaths() {
  constexpr int calls = 16;
  bulkhead::host host({.spawns = any_number_of_spawns});
  auto parallel = host.load(plugins + "/parallel.so", untiring({.concurrency = calls}));
  std::vector<double> floors, times;
  auto idle = host.load(plugins + "/parallel.so", untiring({.concurrency = calls}));
  pid_t pid = -1, idle_pid = -1;
  for (int i = 0; i < scaled(500, 50); ++i) {
    floors.push_back(kill_floor(idle_pid = other_than(idle, idle_pid)));
    pid = other_than(parallel, pid);
    std::latch ended(calls), begun(calls);
    parallel.on_event([&](const std::string&, const msgpack::object&) { begun.count_down(); });
    for (int call = 0; call < calls; ++call)
      parallel.async_call<reply>("wait", std::tuple{}, [&](boost::system::error_code code, const reply&) {
        if (code != bulkhead::outcome::worker_lost) throw std::runtime_error(code.message());
        ended.count_down();
      });
    begun.wait();
    times.push_back(timed([&] {
      ::kill(pid, SIGKILL);
      ended.wait();
    }));
  }
  const double tail = scaled(0.99, 0.9);  // the last of a hundred is not among fifty
  two_rows("worker killed: its 16 calls answered", times, tail, "kill to exit of a worker", floors, 4, 4);
}

// Waits until so many workers are there and have nothing to do.
void settle(const bulkhead::plugin& plugin, std::size_t count) {
  const auto idle = [](const bulkhead::worker_info& each) { return each.phase == bulkhead::phase::ready; };
  for (;; std::this_thread::yield()) {
    const auto workers = plugin.workers();
    if (workers.size() == count && std::all_of(workers.begin(), workers.end(), idle)) return;
  }
}

// The one that is in a call.
pid_t busy(const bulkhead::plugin& plugin) {
  for (;; std::this_thread::yield())
    for (const auto& worker : plugin.workers())
      if (worker.phase == bulkhead::phase::call) return worker.pid;
}

// Two ways to see it. `at_once`: a call is made in the moment of the kill, which nobody has noticed yet; it is sent to the
// worker that is dying, and moves on when that is dead. `told`: a call is made when the one that died with its worker has
// ended; from that end on.
struct recovery {
  double at_once, told;
};
double recover(const bulkhead::plugin& plugin, std::size_t workers, bool told) {
  settle(plugin, workers);
  std::latch ended(1);
  plugin.async_call<void>("sleep_ms", std::tuple{60'000}, [&](boost::system::error_code) { ended.count_down(); });
  const pid_t pid = busy(plugin);
  if (told) {
    ::kill(pid, SIGKILL);
    ended.wait();
    return timed([&] { plugin.call<int>("echo", 1); });
  }
  const double took = timed([&] {
    ::kill(pid, SIGKILL);
    plugin.call<int>("echo", 1);
  });
  ended.wait();
  return took;
}
recovery recover(const bulkhead::plugin& plugin, std::size_t workers) {
  return {recover(plugin, workers, false), recover(plugin, workers, true)};
}

void recoveries() {
  bulkhead::host host({.spawns = any_number_of_spawns});
  auto cold = host.load(plugins + "/chaos.so", untiring());
  bulkhead::load_options with_spare = untiring();
  with_spare.supervision.spares = 1;
  auto warm = host.load(plugins + "/chaos.so", with_spare);
  std::vector<double> births, kills, firsts, colds, warms, told_colds, told_warms;
  for (int i = 0; i < scaled(300, 20); ++i) {
    std::optional<bulkhead::plugin> fresh;
    births.push_back(timed([&] {
      fresh = host.load(plugins + "/chaos.so");
      fresh->call<int>("echo", 1);
    }));
    const recovery without = recover(cold, 1);
    colds.push_back(without.at_once);
    told_colds.push_back(without.told);
    // As a spare, it has had nothing to do for a moment, and no call yet.
    auto waiting = host.load(plugins + "/chaos.so");
    kills.push_back(kill_floor(fresh->workers().at(0).pid));
    fresh->unload();
    firsts.push_back(timed([&] { waiting.call<int>("echo", 1); }));
    waiting.unload();
    const recovery with = recover(warm, 2);
    warms.push_back(with.at_once);
    told_warms.push_back(with.told);
  }
  two_rows("crash to next successful call, cold", colds, 0.9, "load to first reply", births, 2);
  two_rows("crash to next successful call, with a spare", warms, 0.9, "kill to exit of a worker", kills, 5);
  two_rows("lost call's end to next successful call, cold", told_colds, 0.9, "load to first reply", births, 2);
  two_rows("lost call's end to next successful call, with a spare", told_warms, 0.9, "first call of a worker", firsts,
           10);
}

// How much later than its deadline a call ends whose worker does not react: it sleeps, spins or is stopped. Each round
// sees each of these, by a synchronous call and by an asynchronous one, which wait in different ways. The latest of all
// is as the machine pleases, so the latest in a round must be in time in the best of rounds.
void hangs() {
  constexpr auto deadline = 50ms;
  bulkhead::host host({.spawns = any_number_of_spawns});
  auto chaos = host.load(plugins + "/chaos.so", untiring());
  const auto lateness = [&](auto&& work) { return timed(work) - microseconds(deadline).count(); };
  std::vector<double> floors, times;
  constexpr double most = 50'000;
  double best = std::numeric_limits<double>::max();
  std::mutex mutex;
  std::condition_variable never;
  pid_t pid = -1;
  for (int round = 0; round < scaled(20, 4); ++round) {
    double latest = 0;
    for (const std::string kind : {"ignore_cancel", "endless_loop", "stopped"})
      for (const bool async : {false, true}) {
        floors.push_back(lateness([&] {
          std::unique_lock held(mutex);
          never.wait_for(held, deadline);
        }));
        pid = other_than(chaos, pid);
        if (kind == "stopped") ::kill(pid, SIGSTOP);  // it is the first process of its namespace: it can't stop itself
        bulkhead::outcome ended{};
        times.push_back(lateness([&] {
          if (!async) {
            ended = chaos.with({.deadline = deadline}).try_call("misbehave", kind).outcome();
            return;
          }
          std::latch done(1);
          chaos.async_call<reply>("misbehave", std::tuple{kind},
                                  [&](boost::system::error_code, const reply& result) {
                                    ended = result.outcome();
                                    done.count_down();
                                  },
                                  {.deadline = deadline});
          done.wait();
        }));
        ::kill(pid, SIGKILL);  // sooner than the grace would
        if (ended != bulkhead::outcome::timeout) throw std::runtime_error("the call did not hang: " + kind);
        latest = std::max(latest, times.back());
      }
    best = std::min(best, latest);
  }
  const std::string name = "call of a worker that hangs: later than deadline, ";
  for (const double q : {0.5, 1.0}) {
    const double value = quantile(times, q), floor = quantile(floors, q);
    row(name + (q == 0.5 ? "p50" : "max"), value, "us", fmt::format("a timed wait {:.0f} us", floor), value / floor,
        q == 0.5 ? 10 : 0);
  }
  row(name + "max of the best round", best, "us", fmt::format("allowed {:.0f} us", most), best / most, 1, exact);
}

// What calls to one plugin notice of another whose worker sleeps beyond its call's deadline, until it has been killed and
// another has started. (One that spins has a CPU, whoever watches it.) A round is longer than the grace of 1 s.
void neighbours() {
  bulkhead::host host({.spawns = any_number_of_spawns});
  auto echo = host.load(plugins + "/echo.so"), chaos = host.load(plugins + "/chaos.so", untiring());
  const bulkhead::bytes data(16);
  std::array<std::vector<double>, 2> tails;  // the p99 of each round; rounds of both kinds take turns
  for (int round = 0; round < scaled(15, 4); ++round)
    for (const bool hangs : {false, true}) {
      std::latch ended(1);
      bulkhead::outcome how{};
      if (hangs)
        chaos.async_call<reply>("misbehave", std::tuple{"ignore_cancel"},
                                [&](boost::system::error_code, const reply& result) {
                                  how = result.outcome();
                                  ended.count_down();
                                },
                                {.deadline = 50ms});
      std::vector<double> times;
      const auto end = std::chrono::steady_clock::now() + 1300ms;
      while (std::chrono::steady_clock::now() < end) times.push_back(timed([&] { echo.call("echo", data); }));
      tails[hangs].push_back(quantile(times, 0.99));
      if (!hangs) continue;
      ended.wait();
      if (how != bulkhead::outcome::timeout) throw std::runtime_error("the neighbour did not hang");
      chaos.call<int>("echo", 1);  // the next worker is there
    }
  // Four rounds do not tell: a tail of 2 us or of 10 is a matter of what else ran, and when.
  row("p99 of a call while a neighbour hangs", quantile(tails[1], 0.5), "us",
      fmt::format("nothing hangs {:.2f} us", quantile(tails[0], 0.5)), ratio(tails[1], tails[0]),
      this_run().quick ? 0 : 1.1);
}

// What all of supervision adds to a call, in the narrow and the wide sense: against the same pool with its timers off,
// and against the same worker program on a bare channel, where nobody watches, queues, counts or chooses. One CPU: where
// the scheduler puts the workers would rule the figure.
void calls() {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  run_on_cpu(before, 0);
  {
    bulkhead::host host;
    bulkhead::load_options nothing;
    nothing.supervision.restart = bulkhead::restart_kind::temporary;
    nothing.supervision.heartbeat.interval = 0s;
    nothing.supervision.recycle.memory = 0;
    nothing.poison_limit = 0;
    auto supervised = host.load(plugins + "/echo.so"), unwatched = host.load(plugins + "/echo.so", nothing);
    bare_worker bare(BULKHEAD_TEST_PROGRAMS "/bulkhead-worker", plugins + "/echo.so");
    const bulkhead::bytes data(16);
    std::array<std::vector<double>, 3> medians;
    for (int round = 0; round < scaled(200, 10); ++round) {
      std::array<std::vector<double>, 3> times;
      for (std::size_t i = 0; i < 1200; ++i) {  // each follows each of the others as often
        const std::size_t kind = (i / 30 % 2 ? 3 - i % 3 : i % 3) % 3;
        times[kind].push_back(timed([&] {
          if (kind == 0) bare.call("echo", data);
          else (kind == 1 ? unwatched : supervised).call("echo", data);
        }));
      }
      for (std::size_t kind = 0; kind < 3; ++kind) medians[kind].push_back(quantile(times[kind], 0.5));
    }
    const std::array names{"a bare channel", "supervision off"};
    for (const std::size_t kind : {1, 0}) {
      std::vector<double> ratios;
      for (std::size_t i = 0; i < medians[kind].size(); ++i) ratios.push_back(medians[2][i] / medians[kind][i]);
      row(fmt::format("16-byte call, supervised, against {}", names[kind]), quantile(medians[2], 0.5), "us",
          fmt::format("{} {:.2f} us", names[kind], quantile(medians[kind], 0.5)), quantile(ratios, 0.5),
          kind == 1 ? 1.25 : 0, steady);
    }
  }
  ::sched_setaffinity(0, sizeof before, &before);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, "supervision", [] {
    deaths();
    recoveries();
    hangs();
    neighbours();
    calls();
  });
}
