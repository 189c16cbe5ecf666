// What a call costs over lanes, each figure beside its floor in the same run, interleaved: both sides awake, against two
// processes that spin on shared memory; both asleep, be it after a pause, and both on one CPU, against a futex; 64 calls
// outstanding; several threads.
#include "bench.hpp"
#include "shared_memory_echo.hpp"
#include <bulkhead/host.hpp>

#include <boost/asio/io_context.hpp>

#include <array>
#include <atomic>
#include <functional>
#include <thread>

namespace {

using namespace bench;

enum class place { two_cpus, one_cpu, anywhere };

// The call and its floor take turns, each after a pause if there is one; the ratio is that of the medians of rounds.
void call_against(const std::string& name, const std::string& floor_name, place where, bool floor_sleeps,
                  bulkhead::ipc::lane_options options, int calls, double bar, std::chrono::milliseconds pause = 0ms) {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  if (where != place::anywhere) run_on_cpu(before, where == place::one_cpu ? 0 : 1);
  {
    shared_memory_echo raw(floor_sleeps);
    bulkhead::host host;
    auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", {.lanes = options});
    if (where == place::two_cpus) run_on_cpu(before, 0);
    const bulkhead::bytes data(16);
    const auto take = [&](std::vector<double>& times, auto&& work) {
      for (int i = 0; i < calls; ++i) {
        if (pause > 0ms) std::this_thread::sleep_for(pause);
        times.push_back(timed(work));
      }
    };
    std::vector<double> floors, values, floor_rounds, value_rounds;
    for (int round = 0; round < scaled(100, 20); ++round) {
      std::vector<double> floor, value;
      raw.awake(true);
      take(floor, [&] { raw.once(); });
      raw.awake(false);
      take(value, [&] { echo.call("echo", data); });
      floor_rounds.push_back(quantile(floor, 0.5));
      value_rounds.push_back(quantile(value, 0.5));
      floors.insert(floors.end(), floor.begin(), floor.end());
      values.insert(values.end(), value.begin(), value.end());
    }
    if (!floor_sleeps && quantile(floors, 0.5) > spin_at_most) {
      fmt::print("{}: no second CPU is free, so it is not checked\n", name);
      bar = 0;
    }
    for (const double q : {0.5, 0.99, 0.999}) {
      if (static_cast<double>(values.size()) * (1 - q) < 2) continue;
      row(fmt::format("{}, p{:g}", name, 100 * q), quantile(values, q), "us",
          fmt::format("{} {:.2f} us", floor_name, quantile(floors, q)),
          q == 0.5 ? ratio(value_rounds, floor_rounds) : quantile(values, q) / quantile(floors, q), q == 0.5 ? bar : 0);
    }
  }
  ::sched_setaffinity(0, sizeof before, &before);
}

// One thread that starts calls and takes their ends, as an application with an event loop does.
void outstanding(unsigned calls) {
  boost::asio::io_context io(1);
  bulkhead::host host(io.get_executor());
  auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so");
  const bulkhead::bytes data(16);
  std::vector<double> rates;
  for (int round = 0; round < scaled(30, 3); ++round) {
    const int total = 10'000;
    int begun = 0, ended = 0;
    std::function<void()> next = [&] {
      if (begun++ >= total) return;
      echo.async_call<bulkhead::reply>("echo", std::tuple(data),
                                       [&](boost::system::error_code, const bulkhead::reply&) {
                                         ++ended;
                                         next();
                                       });
    };
    const double took = timed([&] {
      for (unsigned i = 0; i < calls; ++i) next();
      while (ended < total) io.run_one();
    });
    rates.push_back(total / took);
  }
  row(fmt::format("{} calls outstanding", calls), quantile(rates, 0.5), "M/s");
}

// Calls a microsecond, all threads together.
double rate(bulkhead::plugin& echo, unsigned threads, int each) {
  const bulkhead::bytes data(16);
  std::atomic<int> done{0};
  const double took = timed([&] {
    std::vector<std::jthread> callers;
    for (unsigned t = 0; t < threads; ++t)
      callers.emplace_back([&] {
        for (int i = 0; i < each; ++i) done += echo.call<std::size_t>("size", data) == 16;
      });
  });
  return done / took;
}

// Threads that call in turn, by lanes and by the socket.
void threads(unsigned count, unsigned instances, double bar = 0) {
  bulkhead::host host;
  auto by_lane = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", {.instances = instances});
  auto by_socket = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", {.instances = instances, .lanes = {.enabled = false}});
  std::vector<double> lane, socket, ratios;
  for (int round = 0; round < scaled(9, 5); ++round) {
    const int each = scaled(20'000, 4000) / static_cast<int>(count);
    socket.push_back(rate(by_socket, count, each));
    lane.push_back(rate(by_lane, count, each));
    ratios.push_back(socket.back() / lane.back());
  }
  row(fmt::format("{} threads, {} workers, each calls in turn", count, instances), quantile(lane, 0.5), "M/s",
      fmt::format("without lanes {:.3f} M/s", quantile(socket, 0.5)), quantile(ratios, 0.5), bar);
}

void measure() {
  const bulkhead::ipc::lane_options asleep{.spin = 0ns};
  // 3 in most rounds on a quiet machine, 9 on one that is at work; parked, it would be 35 and more.
  if (std::thread::hardware_concurrency() > 1)
    call_against("16-byte call, two CPUs", "spinning", place::two_cpus, false, {}, scaled(2000, 500), 8);
  call_against("16-byte call, both sides asleep", "futex", place::two_cpus, true, asleep, 100, 3);
  call_against("16-byte call, one CPU", "futex", place::one_cpu, true, {}, 200, 3);
  // Long enough for a worker to have left the ring for its socket.
  call_against("16-byte call after 30 ms of nothing", "futex, after as long", place::two_cpus, true, {}, 3, 4, 30ms);
  threads(4, 1, 3);
  if (this_run().check) return;
  call_against("16-byte call, wherever they run", "futex", place::anywhere, true, {}, 200, 0);
  outstanding(64);
  threads(2, 1);
  threads(2, 2);
  threads(16, 2);
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, "lanes", measure); }
