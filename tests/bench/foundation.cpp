// The foundation's figures, each beside its floor in the same run, interleaved: a small call over the socket against a raw
// socketpair ping-pong of as many bytes; spawn to first reply against posix_spawn of /bin/true, for a small host and one
// with 2 GB resident; memory of an idle worker; the p99 of one worker while another crashes, against processes that crash
// outside of the host.
#include "bare_worker.hpp"
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <array>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace {

using namespace bench;

const std::string echo_file = BULKHEAD_TEST_PLUGINS "/echo.so", chaos_file = BULKHEAD_TEST_PLUGINS "/chaos.so";

// A process that sends back what it gets, byte for byte, when it has done its work.
class ping_pong {
 public:
  explicit ping_pong(void (*work)() noexcept = []() noexcept {}) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) throw std::runtime_error("socketpair");
    child_ = ::fork();
    if (child_ == 0) {
      ::close(pair[0]);
      char buffer[256];
      for (ssize_t n = 0; (n = ::read(pair[1], buffer, sizeof buffer)) > 0;) {
        work();
        if (::write(pair[1], buffer, static_cast<std::size_t>(n)) != n) break;
      }
      ::_exit(0);
    }
    ::close(pair[1]);
    fd_ = pair[0];
  }
  ~ping_pong() {
    ::close(fd_);
    ::waitpid(child_, nullptr, 0);
  }
  void once(std::size_t bytes) {
    char buffer[256]{};
    ssize_t n = ::write(fd_, buffer, bytes);
    for (std::size_t got = 0; n > 0 && got < bytes; got += static_cast<std::size_t>(n))
      n = ::read(fd_, buffer, sizeof buffer);
    if (n <= 0) throw std::runtime_error("the other process has gone");
  }

 private:
  int fd_ = -1;
  pid_t child_ = -1;
};

// Where the scheduler puts two processes rules the figure, so both get the same place: on one CPU, where it is the work
// done, and on two, where waking the other CPU is most of it.
void small_calls(bool one_cpu, double bar) {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  run_on_cpu(before, one_cpu ? 0 : 1);
  {
    ping_pong raw;
    bulkhead::host host;
    auto by_socket = host.load(echo_file, {.lanes = {.enabled = false}}), by_lane = host.load(echo_file);
    run_on_cpu(before, 0);
    const bulkhead::bytes data(16);
    std::array<std::vector<double>, 3> all;
    std::array<std::vector<double>, 2> ratios;
    for (int round = 0; round < scaled(100, 10); ++round) {
      std::array<std::vector<double>, 3> times;
      for (int i = 0; i < 200; ++i) times[0].push_back(timed([&] { raw.once(32); }));
      for (int i = 0; i < 200; ++i) times[1].push_back(timed([&] { by_socket.call("echo", data); }));
      for (int i = 0; i < 200; ++i) times[2].push_back(timed([&] { by_lane.call("echo", data); }));
      for (std::size_t i = 0; i < 2; ++i) ratios[i].push_back(quantile(times[i + 1], 0.5) / quantile(times[0], 0.5));
      for (std::size_t i = 0; i < 3; ++i) all[i].insert(all[i].end(), times[i].begin(), times[i].end());
    }
    const std::string where = one_cpu ? "one CPU" : "two CPUs";
    const auto floor = [&](double q) { return fmt::format("socketpair ping-pong {:.2f} us", quantile(all[0], q)); };
    row("16-byte call over the socket, " + where + ", p50", quantile(all[1], 0.5), "us", floor(0.5),
        quantile(ratios[0], 0.5), bar);
    row("16-byte call over the socket, " + where + ", p99", quantile(all[1], 0.99), "us", floor(0.99),
        quantile(all[1], 0.99) / quantile(all[0], 0.99));
    row("16-byte call by lanes, " + where + ", p50", quantile(all[2], 0.5), "us", floor(0.5), quantile(ratios[1], 0.5));
  }
  ::sched_setaffinity(0, sizeof before, &before);
}

double spawn_true() {
  return timed([] {
    char name[] = "/bin/true";
    char* argv[] = {name, nullptr};
    pid_t pid = -1;
    if (::posix_spawn(&pid, name, nullptr, nullptr, argv, environ) == 0) ::waitpid(pid, nullptr, 0);
  });
}

struct births {
  double median, ratio;
};
births spawns(const std::string& host_size) {
  bulkhead::host host;
  std::vector<double> floors, times;
  for (int i = 0; i < scaled(100, 20); ++i) {
    floors.push_back(spawn_true());
    std::optional<bulkhead::plugin> echo;
    times.push_back(timed([&] {
      echo = host.load(echo_file);
      echo->call("add", 1, 2);
    }));
    echo->unload();
  }
  const double floor = quantile(floors, 0.5), birth = quantile(times, 0.5);
  row("spawn to first reply, " + host_size, birth, "us", fmt::format("posix_spawn of true {:.0f} us", floor),
      birth / floor, 4);
  return {birth, birth / floor};
}

// The host's size is no matter. The machine's speed changes meanwhile, so each is taken relative to its own floor.
void sizes() {
  const births small = spawns("small host");
  constexpr std::size_t size = std::size_t{2} << 30;
  void* const ballast = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ballast == MAP_FAILED) throw std::runtime_error("no 2 GB of memory");
  std::memset(ballast, 1, size);
  const births large = spawns("host of 2 GB");
  ::munmap(ballast, size);
  row("spawn to first reply, 2 GB against small", large.median, "us", fmt::format("small host {:.0f} us", small.median),
      large.ratio / small.ratio, 2);
}

void memory() {
  bulkhead::host host;
  std::vector<bulkhead::plugin> plugins;
  for (int i = 0; i < 50; ++i) plugins.push_back(host.load(echo_file));
  std::vector<double> sizes;
  for (const auto& plugin : plugins) sizes.push_back(pss_kb(plugin.workers().at(0).pid));
  constexpr double most_kb = 400;
  const double median = quantile(sizes, 0.5);
  row("PSS of an idle worker (one of 50)", median, "kB", fmt::format("allowed {:.0f} kB", most_kb), median / most_kb,
      1);
}

// The same worker program is started and crashes, and no host has to do with it.
void crash_outside() noexcept {
  const rlimit no_cores{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_cores);
  bare_worker other(BULKHEAD_TEST_PROGRAMS "/bulkhead-worker", chaos_file);
  try {
    other.call("misbehave", "segfault");
  } catch (const std::exception&) {
    return;
  }
  std::abort();  // it did not crash
}

// Processes that are born and crash take CPU time from a call and its worker, whoever they are. What is the host's doing is
// seen against as many crashes outside of it.
void neighbours() {
  ping_pong other_process(crash_outside);
  bulkhead::host host({.spawns = {4, {1'000'000, 10s}}});
  auto echo = host.load(echo_file);
  bulkhead::load_options untiring;  // restarted at once, always, and no call is refused
  untiring.supervision.intensity.restarts = 1'000'000;
  untiring.supervision.backoff.first = 0s;
  untiring.poison_limit = 0;
  auto chaos = host.load(chaos_file, untiring);
  enum kind : std::size_t { quiet, outside, beside };
  // The p99 of each round; rounds of each kind take turns, with a crash every 20 ms.
  std::array<std::vector<double>, 3> tails;
  std::array<std::vector<double>, 2> ratios;
  for (int round = 0; round < scaled(30, 7); ++round) {
    for (const kind now : {quiet, outside, beside}) {
      std::jthread crashes([&](const std::stop_token& stop) {
        for (auto next = std::chrono::steady_clock::now(); now != quiet && !stop.stop_requested();
             std::this_thread::sleep_until(next += 20ms)) {
          if (now == outside) other_process.once(1);
          else if (chaos.try_call("misbehave", "segfault").outcome() != bulkhead::outcome::worker_lost)
            throw std::runtime_error("the neighbour did not crash");
        }
      });
      std::vector<double> calls;
      const auto end = std::chrono::steady_clock::now() + 200ms;
      while (std::chrono::steady_clock::now() < end) calls.push_back(timed([&] { echo.call("add", 1, 2); }));
      tails[now].push_back(quantile(calls, 0.99));
    }
    for (const kind now : {outside, beside}) ratios[now - 1].push_back(tails[now].back() / tails[now - 1].back());
  }
  const auto p99 = [&](kind which) { return quantile(tails[which], 0.5); };
  row("p99 of a call while a neighbour crashes 50/s", p99(beside), "us",
      fmt::format("as many crash outside {:.2f} us", p99(outside)), quantile(ratios[1], 0.5), 3);
  row("p99 of a call while processes outside crash 50/s", p99(outside), "us",
      fmt::format("nothing crashes {:.2f} us", p99(quiet)), quantile(ratios[0], 0.5));
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, "foundation", [] {
    small_calls(true, 2.5);
    if (std::thread::hardware_concurrency() > 1) small_calls(false, 2);
    sizes();
    memory();
    neighbours();
  });
}
