// One worker to a thousand, once they have settled: what one takes of memory, what all and their host take of CPU time while
// there is nothing to do, and how many calls a second threads make among them, beside as many pairs of processes that wake
// each other by a futex. What has bars: that neither a call nor an idle worker costs more among many idle ones.
#include "bench.hpp"
#include "shared_memory_echo.hpp"
#include <bulkhead/host.hpp>

#include <atomic>
#include <memory>
#include <thread>

namespace {

using namespace bench;

// Microseconds of CPU time in a second.
struct spent {
  double host, workers;
};

double of_workers(const bulkhead::plugin& echo) {
  double sum = 0;
  for (const auto& each : echo.workers()) sum += cpu_us(each.pid);
  return sum;
}

spent idle(const bulkhead::plugin& echo, std::chrono::seconds time) {
  const double workers = of_workers(echo), host = own_cpu_us();  // in this order: looking takes the host's time
  std::this_thread::sleep_for(time);
  const double host_after = own_cpu_us(), seconds = static_cast<double>(time.count());
  return {(host_after - host) / seconds, (of_workers(echo) - workers) / seconds};
}

// Until a second takes them about as much as the one before.
void settle(const bulkhead::plugin& echo) {
  double before = 0;
  for (int second = 0; second < 6; ++second) {
    const spent now = idle(echo, 1s);
    if (second > 0 && now.host + now.workers > 0.75 * before) return;
    before = now.host + now.workers;
  }
}

// Calls a microsecond, of threads that each make one after the other.
template <class Call>
double rate(unsigned threads, Call&& call) {
  std::atomic<std::size_t> done{0};
  const auto end = std::chrono::steady_clock::now() + 200ms;
  const double took = timed([&] {
    std::vector<std::jthread> callers;
    for (unsigned t = 0; t < threads; ++t)
      callers.emplace_back([&, t] {
        std::size_t mine = 0;
        for (; std::chrono::steady_clock::now() < end; ++mine) call(t);
        done += mine;
      });
  });
  return static_cast<double>(done) / took;
}

bulkhead::plugin load(bulkhead::host& host, unsigned count) {
  bulkhead::load_options options;
  options.instances = count;
  options.supervision.spares = 0;
  auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", options);
  echo.call("add", 1, 2);
  return echo;
}

void call_once(const bulkhead::plugin& echo, const bulkhead::bytes& data) {
  if (echo.call<std::size_t>("size", data) != data.size()) std::abort();
}

void crowd(unsigned count, const std::vector<std::unique_ptr<shared_memory_echo>>& pairs) {
  bulkhead::host host;
  const auto echo = load(host, count);
  settle(echo);

  const std::string among = count == 1 ? "1 worker" : fmt::format("{} workers", count);
  std::vector<double> sizes, host_idle, workers_idle;
  for (const auto& each : echo.workers()) sizes.push_back(pss_kb(each.pid));
  constexpr double most_kb = 450;
  // What they share, few have to bear.
  row(among + ", idle: PSS of one", quantile(sizes, 0.5), "kB", fmt::format("allowed {:.0f} kB", most_kb),
      quantile(sizes, 0.5) / most_kb, count >= 100 ? 1 : 0);
  for (int round = 0; round < scaled(3, 1); ++round) {
    const spent now = idle(echo, 2s);
    host_idle.push_back(now.host);
    workers_idle.push_back(now.workers);
  }
  const auto told = [&](const std::string& whose, const std::vector<double>& times) {
    const double value = quantile(times, 0.5);
    row(among + ", idle: CPU time a second, " + whose, value, "us", "of a CPU", value / 1e6);
  };
  told("host", host_idle);
  told("all workers", workers_idle);

  const bulkhead::bytes data(16);
  for (const unsigned threads : {1u, 4u, 16u, 64u}) {
    std::vector<double> calls, floors;
    for (int round = 0; round < scaled(5, 1); ++round) {
      floors.push_back(rate(threads, [&](unsigned t) { pairs[t]->once(data); }));
      calls.push_back(rate(threads, [&](unsigned) { call_once(echo, data); }));
    }
    row(fmt::format("{}, {} thread{}", among, threads, threads == 1 ? "" : "s"), quantile(calls, 0.5), "M/s",
        fmt::format("as many pairs by futex {:.3f} M/s", quantile(floors, 0.5)), ratio(floors, calls));
  }
}

// As many as there are threads, beside many: the same workers serve the calls, and the others have nothing to do.
void few_and_many() {
  constexpr unsigned few = 4, many = 50;
  bulkhead::host host_of_few, host_of_many;
  const auto small = load(host_of_few, few), large = load(host_of_many, many);
  settle(large);
  const std::string among = fmt::format("{} workers to {}", many, few);

  std::vector<double> spent_small, spent_large;  // by one
  for (int round = 0; round < scaled(5, 1); ++round) {
    const double before_small = of_workers(small), before_large = of_workers(large);
    std::this_thread::sleep_for(3s);  // some heartbeats, at the same moments for all of a host
    spent_small.push_back((of_workers(small) - before_small) / few / 3);
    spent_large.push_back((of_workers(large) - before_large) / many / 3);
  }
  row(among + ", idle: CPU time a second, of one", quantile(spent_large, 0.5), "us",
      fmt::format("one of {} {:.0f} us", few, quantile(spent_small, 0.5)), ratio(spent_large, spent_small), 2);

  const bulkhead::bytes data(16);
  for (const unsigned threads : {1u, few}) {
    std::vector<double> rates_small, rates_large;
    for (int round = 0; round < scaled(7, 3); ++round) {
      rates_small.push_back(rate(threads, [&](unsigned) { call_once(small, data); }));
      rates_large.push_back(rate(threads, [&](unsigned) { call_once(large, data); }));
    }
    row(fmt::format("{}, {} thread{}", among, threads, threads == 1 ? "" : "s"), quantile(rates_large, 0.5), "M/s",
        fmt::format("one of {} {:.3f} M/s", few, quantile(rates_small, 0.5)), ratio(rates_small, rates_large), 2);
  }
}

void measure() {
  allow_descriptors();
  if (this_run().quick && this_run().check) return few_and_many();
  std::vector<std::unique_ptr<shared_memory_echo>> pairs;  // before any thread is there, and any descriptor
  for (int i = 0; i < 64; ++i) pairs.push_back(std::make_unique<shared_memory_echo>(true));
  for (const unsigned count : {1u, 10u, 100u, scaled(1000u, 200u)}) crowd(count, pairs);
  few_and_many();
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "scale", measure); }
