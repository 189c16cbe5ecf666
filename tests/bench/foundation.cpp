// The foundation's figures, each beside its floor in the same run, interleaved: a small call against a raw socketpair
// ping-pong of as many bytes; spawn to first reply against posix_spawn of /bin/true, for a small host and one with 2 GB
// resident; memory of an idle worker; the p99 of one worker while another crashes.
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <array>
#include <cstring>
#include <thread>

#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace {

using namespace bench;

// A process that sends back what it gets, byte for byte.
class ping_pong {
 public:
  ping_pong() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) throw std::runtime_error("socketpair");
    child_ = ::fork();
    if (child_ == 0) {
      ::close(pair[0]);
      char buffer[256];
      for (ssize_t n = 0; (n = ::read(pair[1], buffer, sizeof buffer)) > 0;)
        if (::write(pair[1], buffer, static_cast<std::size_t>(n)) != n) break;
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
    if (::write(fd_, buffer, bytes) < 0) return;
    for (std::size_t got = 0; got < bytes;)
      got += static_cast<std::size_t>(std::max<ssize_t>(1, ::read(fd_, buffer, sizeof buffer)));
  }

 private:
  int fd_ = -1;
  pid_t child_ = -1;
};

// Where the scheduler puts two processes rules the figure, so both get the same place: on one CPU, where it is the work
// done, and on two, where waking the other CPU is most of it.
void small_calls(bool one_cpu) {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  run_on_cpu(before, one_cpu ? 0 : 1);
  {
    ping_pong raw;
    bulkhead::host host;
    auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so");
    run_on_cpu(before, 0);
    const bulkhead::bytes data(16);
    std::array<std::vector<double>, 2> all;
    std::vector<double> ratios;
    for (int round = 0; round < scaled(100, 10); ++round) {
      std::array<std::vector<double>, 2> times;
      for (int i = 0; i < 200; ++i) times[0].push_back(timed([&] { raw.once(32); }));
      for (int i = 0; i < 200; ++i) times[1].push_back(timed([&] { echo.call("echo", data); }));
      ratios.push_back(quantile(times[1], 0.5) / quantile(times[0], 0.5));
      for (std::size_t i = 0; i < 2; ++i) all[i].insert(all[i].end(), times[i].begin(), times[i].end());
    }
    for (const double q : {0.5, 0.99})
      row(fmt::format("16-byte call, {}, p{:.0f}", one_cpu ? "one CPU" : "two CPUs", q * 100), quantile(all[1], q),
          "us", fmt::format("socketpair ping-pong {:.2f} us", quantile(all[0], q)),
          q == 0.5 ? quantile(ratios, 0.5) : quantile(all[1], q) / quantile(all[0], q));
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

void spawns(const std::string& host_size) {
  bulkhead::host host;
  std::vector<double> floors, births;
  for (int i = 0; i < scaled(100, 10); ++i) {
    floors.push_back(spawn_true());
    std::optional<bulkhead::plugin> echo;
    births.push_back(timed([&] {
      echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so");
      echo->call("add", 1, 2);
    }));
    echo->unload();
  }
  const double floor = quantile(floors, 0.5), birth = quantile(births, 0.5);
  row("spawn to first reply, " + host_size, birth, "us", fmt::format("posix_spawn of true {:.0f} us", floor),
      birth / floor);
}

void memory() {
  bulkhead::host host;
  std::vector<bulkhead::plugin> plugins;
  for (int i = 0; i < 50; ++i) plugins.push_back(host.load(BULKHEAD_TEST_PLUGINS "/echo.so"));
  std::vector<double> sizes;
  for (const auto& plugin : plugins) sizes.push_back(pss_kb(plugin.workers().at(0).pid));
  row("PSS of an idle worker (one of 50)", quantile(sizes, 0.5), "kB");
}

void neighbours() {
  bulkhead::host host({.spawns = {4, {1'000'000, 10s}}});
  auto echo = host.load(BULKHEAD_TEST_PLUGINS "/echo.so");
  bulkhead::load_options untiring;  // restarted at once, always, and no call is refused
  untiring.supervision.intensity.restarts = 1'000'000;
  untiring.supervision.backoff.first = 0s;
  untiring.poison_limit = 0;
  auto chaos = host.load(BULKHEAD_TEST_PLUGINS "/chaos.so", untiring);
  // The p99 of each round; quiet rounds and rounds with a crash every 20 ms take turns.
  std::array<std::vector<double>, 2> tails;
  for (std::size_t round = 0; round < scaled<std::size_t>(40, 4); ++round) {
    const bool crashing = round % 2;
    std::vector<double> calls;
    std::jthread crashes([&](const std::stop_token& stop) {
      while (crashing && !stop.stop_requested()) {
        if (chaos.try_call("misbehave", "segfault").outcome() != bulkhead::outcome::worker_lost)
          throw std::runtime_error("the neighbour did not crash");
        std::this_thread::sleep_for(20ms);
      }
    });
    const auto end = std::chrono::steady_clock::now() + 200ms;
    while (std::chrono::steady_clock::now() < end) calls.push_back(timed([&] { echo.call("add", 1, 2); }));
    tails[crashing].push_back(quantile(calls, 0.99));
  }
  const double quiet = quantile(tails[0], 0.5), crashing = quantile(tails[1], 0.5);
  row("p99 of a call while a neighbour crashes 50/s", crashing, "us",
      fmt::format("with a quiet neighbour {:.2f} us", quiet), crashing / quiet);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, "foundation", [] {
    small_calls(true);
    small_calls(false);
    spawns("small host");
    {
      constexpr std::size_t size = std::size_t{2} << 30;
      void* ballast = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
      std::memset(ballast, 1, size);
      spawns("host of 2 GB");
      ::munmap(ballast, size);
    }
    memory();
    neighbours();
  });
}
