// What a call costs over lanes, each figure beside its floor in the same run, interleaved: both sides awake, against two
// processes that spin on shared memory; the worker asleep, and both on one CPU, against a futex; 64 calls outstanding;
// several threads; an idle host's CPU time.
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <boost/asio/io_context.hpp>

#include <array>
#include <atomic>
#include <functional>
#include <thread>

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace {

using namespace bench;

// A process that answers through shared memory: by spinning, or asleep on a futex until it is woken.
class shared_memory_echo {
 public:
  explicit shared_memory_echo(bool sleeps) : sleeps_(sleeps) {
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) throw std::runtime_error("mmap");
    words_ = static_cast<words*>(page);
    child_ = ::fork();
    if (child_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (std::uint32_t seen = 0;;) {
      seen = wait(words_->request, seen);
      if (seen == last) ::_exit(0);
      say(words_->answer, seen);
    }
  }
  ~shared_memory_echo() {
    say(words_->request, last);
    ::waitpid(child_, nullptr, 0);
    ::munmap(words_, 4096);
  }
  void once() {
    const std::uint32_t before = words_->answer;
    say(words_->request, before + 1);
    wait(words_->answer, before);
  }

 private:
  static constexpr std::uint32_t last = 0xffffffff;
  struct words {
    alignas(64) std::atomic<std::uint32_t> request;
    alignas(64) std::atomic<std::uint32_t> answer;
  };
  std::uint32_t wait(std::atomic<std::uint32_t>& word, std::uint32_t old) const {
    while (word.load(std::memory_order_acquire) == old) {
      if (sleeps_) ::syscall(SYS_futex, &word, FUTEX_WAIT, old, nullptr, nullptr, 0);
      else __builtin_ia32_pause();
    }
    return word;
  }
  void say(std::atomic<std::uint32_t>& word, std::uint32_t value) const {
    word.store(value);
    if (sleeps_) ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }

  const bool sleeps_;
  words* words_ = nullptr;
  pid_t child_ = -1;
};

enum class place { two_cpus, one_cpu, anywhere };

// The call and its floor take turns; the ratio is that of the medians of rounds.
void call_against(const std::string& name, const std::string& floor_name, place where, bool floor_sleeps,
                  bulkhead::ipc::lane_options options, int calls, double bar) {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  if (where != place::anywhere) run_on_cpu(before, where == place::one_cpu ? 0 : 1);
  {
    shared_memory_echo raw(floor_sleeps);
    bulkhead::host host;
    auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", {.lanes = options});
    if (where == place::two_cpus) run_on_cpu(before, 0);
    const bulkhead::bytes data(16);
    std::vector<double> floors, values, floor_rounds, value_rounds;
    for (int round = 0; round < scaled(100, 20); ++round) {
      std::vector<double> floor, value;
      for (int i = 0; i < calls; ++i) floor.push_back(timed([&] { raw.once(); }));
      for (int i = 0; i < calls; ++i) value.push_back(timed([&] { echo.call("echo", data); }));
      floor_rounds.push_back(quantile(floor, 0.5));
      value_rounds.push_back(quantile(value, 0.5));
      floors.insert(floors.end(), floor.begin(), floor.end());
      values.insert(values.end(), value.begin(), value.end());
    }
    if (!floor_sleeps && quantile(floors, 0.5) > spin_at_most) {
      fmt::print("{}: no second CPU is free, so it is not checked\n", name);
      bar = 0;
    }
    for (const double q : {0.5, 0.99, 0.999})
      row(fmt::format("{}, p{:g}", name, 100 * q), quantile(values, q), "us",
          fmt::format("{} {:.2f} us", floor_name, quantile(floors, q)),
          q == 0.5 ? ratio(value_rounds, floor_rounds) : quantile(values, q) / quantile(floors, q), q == 0.5 ? bar : 0);
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

// What a call costs among so many workers, and so many threads.
void scale() {
  for (const unsigned instances : {1u, 10u, 100u, scaled(1000u, 200u)}) {
    bulkhead::host host;
    bulkhead::load_options options;
    options.instances = instances;
    options.supervision.spares = 0;
    auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", options);
    rate(echo, 1, 100);
    for (const unsigned count : {1u, 8u, 64u})
      row(fmt::format("{} workers, {} threads", instances, count), rate(echo, count, scaled(32'000, 6400) / int(count)),
          "M/s");
  }
}

void idle() {
  bulkhead::host host;
  auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so", {.instances = 8});
  for (int i = 0; i < 1000; ++i) echo.call("add", 1, 2);
  std::this_thread::sleep_for(500ms);
  const auto cpu = [] {
    timespec spent{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return static_cast<double>(spent.tv_sec) * 1e6 + static_cast<double>(spent.tv_nsec) / 1e3;
  };
  const double before = cpu();
  std::this_thread::sleep_for(2s);
  row("CPU time of an idle host with 8 workers, per second", (cpu() - before) / 2, "us");
}

void measure() {
  const bulkhead::ipc::lane_options asleep{.spin = 0ns};
  // 3 in most rounds on a quiet machine, 9 on one that is at work; parked, it would be 35 and more.
  if (std::thread::hardware_concurrency() > 1)
    call_against("16-byte call, two CPUs", "spinning", place::two_cpus, false, {}, scaled(2000, 500), 8);
  call_against("16-byte call, both sides asleep", "futex", place::two_cpus, true, asleep, 100, 3);
  call_against("16-byte call, one CPU", "futex", place::one_cpu, true, {}, 200, 3);
  threads(4, 1, 3);
  if (this_run().check) return;
  call_against("16-byte call, wherever they run", "futex", place::anywhere, true, {}, 200, 0);
  outstanding(64);
  threads(2, 1);
  threads(2, 2);
  threads(16, 2);
  scale();
  idle();
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, "lanes", measure); }
