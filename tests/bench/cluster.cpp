// Requests per second of a cluster beside Node's own, each with as many workers as processors, the same answer, and wrk as
// the client on the same processors; interleaved. Also what a request costs in CPU time, and what recycling all workers again
// and again costs.
#include "bench.hpp"
#include <bulkhead/cluster.hpp>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace {

using namespace bench;

constexpr std::uint16_t node_port = 18973;

// What wrk says: requests per second, and how many failed; and the CPU time that it took for one, in microseconds.
struct measured {
  double rate = 0, requests = 0, cpu = 0;
  unsigned failed = 0;
};

double cpu_of_children() {
  rusage spent{};
  ::getrusage(RUSAGE_CHILDREN, &spent);
  const auto us = [](const timeval& time) { return static_cast<double>(time.tv_sec) * 1e6 + double(time.tv_usec); };
  return us(spent.ru_utime) + us(spent.ru_stime);
}

// CPU time that processes and their children have taken, in microseconds.
double cpu_of(const std::vector<pid_t>& processes) {
  double nanoseconds = 0;
  for (const pid_t pid : processes) {
    const std::string folder = fmt::format("/proc/{}/task", pid);
    for (const auto& task : std::filesystem::directory_iterator(folder)) {
      double its = 0;
      std::ifstream(task.path() / "schedstat") >> its;
      nanoseconds += its;
    }
  }
  return nanoseconds / 1e3;
}

std::vector<pid_t> with_children(pid_t pid) {
  std::vector<pid_t> all{pid};
  std::ifstream children(fmt::format("/proc/{}/task/{}/children", pid, pid));
  for (pid_t child = 0; children >> child;) all.push_back(child);
  return all;
}

// `client` is where wrk runs: which processors, as taskset(1) has it.
measured wrk(std::uint16_t port, unsigned connections, bool pipelined = false, const std::string& client = {}) {
  const std::string line = fmt::format("{} wrk -t1 -c{} -d{}s {} http://127.0.0.1:{}/status 2>&1",
                                       client.empty() ? "" : "taskset -c " + client, connections, scaled(4, 1),
                                       pipelined ? "-s " BULKHEAD_BENCH_SOURCES "/pipelined.lua" : "", port);
  std::FILE* const pipe = ::popen(line.c_str(), "r");
  measured out;
  const double before = cpu_of_children();
  char text[512];
  while (pipe && std::fgets(text, sizeof text, pipe)) {
    std::array<unsigned, 4> errors{};
    std::sscanf(text, "Requests/sec: %lf", &out.rate);
    std::sscanf(text, " %lf requests in", &out.requests);
    if (std::sscanf(text, " Socket errors: connect %u, read %u, write %u, timeout %u", &errors[0], &errors[1],
                    &errors[2], &errors[3]) == 4)
      for (const unsigned each : errors) out.failed += each;
  }
  if (!pipe || ::pclose(pipe) != 0 || out.rate == 0)
    throw std::runtime_error("wrk failed: is it installed? ./dev deps bench");
  out.cpu = (cpu_of_children() - before) / out.requests;
  return out;
}

class node_cluster {
 public:
  node_cluster(std::uint16_t port, unsigned workers) {
    int ends[2];
    if (::pipe(ends) != 0) return;
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    ::posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::string script = BULKHEAD_BENCH_SOURCES "/node_cluster.js", where = std::to_string(port),
                count = std::to_string(workers);
    char node[] = "node";
    char* argv[] = {node, script.data(), where.data(), count.data(), nullptr};
    if (::posix_spawnp(&pid_, node, &actions, nullptr, argv, environ) != 0) pid_ = -1;
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    char line[32];
    runs_ = pid_ > 0 && ::read(ends[0], line, sizeof line) > 0;
    ::close(ends[0]);
  }
  ~node_cluster() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);  // its workers see their channels close
    ::waitpid(pid_, nullptr, 0);
  }
  explicit operator bool() const { return runs_; }
  std::vector<pid_t> processes() const { return with_children(pid_); }

 private:
  pid_t pid_ = -1;
  bool runs_ = false;
};

// Requests per second of both servers, with what this process and its children may run on as it is.
void beside(std::uint16_t ours_at, std::uint16_t shared_at, bool node, unsigned connections, bool pipelined,
            const std::string& client, const std::string& where, double bar) {
  std::vector<double> ours, theirs, on_shared;
  for (int i = 0; i < scaled(5, 1); ++i) {
    ours.push_back(wrk(ours_at, connections, pipelined, client).rate);
    if (node) theirs.push_back(wrk(node_port, connections, pipelined, client).rate);
    on_shared.push_back(wrk(shared_at, connections, pipelined, client).rate);
  }
  const double floor = node ? quantile(theirs, 0.5) : 0;
  const std::string of = node ? fmt::format("Node's cluster {:.0f} /s", floor) : "";
  const auto one = [&](const char* name, const std::vector<double>& rates) {
    row(fmt::format("requests/s, {}, {} connections{}{}", name, connections, pipelined ? ", pipelined" : "", where),
        quantile(rates, 0.5), "/s", of, floor / quantile(rates, 0.5), bar);
  };
  one("round robin", ours);
  one("shared", on_shared);
}

// The servers on one processor, the client on another: what a server can do is seen without the client's share.
void apart() {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  if (CPU_COUNT(&before) < 2) return;
  std::vector<int> processors;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &before)) processors.push_back(i);
  run_on_cpu(before, 0);
  {
    bulkhead::host host;
    bulkhead::cluster_options options;
    bulkhead::cluster site(host, std::string(BULKHEAD_TEST_PLUGINS) + "/http.so", options);
    options.schedule = bulkhead::schedule::shared;
    bulkhead::cluster shared(host, std::string(BULKHEAD_TEST_PLUGINS) + "/http.so", options);
    const node_cluster node(node_port, 1);
    for (const unsigned connections : {16u, 128u})
      beside(site.port(), shared.port(), bool(node), connections, false, std::to_string(processors[1]), ", CPUs apart",
             0.9);
  }
  ::sched_setaffinity(0, sizeof before, &before);
}

std::vector<pid_t> processes_of(const bulkhead::cluster& site) {
  std::vector<pid_t> all{::getpid()};
  for (const auto& each : site.stats().workers) all.push_back(each.pid);
  return all;
}

// What a request costs, which does not depend on who has how many processors. One at a time, most of it is the kernel's, for
// whoever serves and for the client; pipelined, it is the server's own work.
void cost(const bulkhead::cluster& site, const node_cluster& node, bool pipelined) {
  std::vector<double> ours, theirs, clients;
  const auto one = [&](std::uint16_t port, const std::vector<pid_t>& servers, std::vector<double>& into) {
    const double before = cpu_of(servers);
    const measured done = wrk(port, 16, pipelined);
    into.push_back((cpu_of(servers) - before) / done.requests);
    return done.cpu;
  };
  for (int i = 0; i < scaled(5, 1); ++i) {
    clients.push_back(one(site.port(), processes_of(site), ours));
    if (node) one(node_port, node.processes(), theirs);
  }
  const std::string how = pipelined ? ", pipelined" : "";
  const double floor = node ? quantile(theirs, 0.5) : 0;
  row("CPU time of a request" + how, quantile(ours, 0.5), "us",
      node ? fmt::format("Node's cluster {:.1f} us", floor) : "", node ? quantile(ours, 0.5) / floor : 0,
      pipelined ? 1.0 / 3 : 0.8);
  row("CPU time of a request" + how + ", wrk's", quantile(clients, 0.5), "us");
}

void measure() {
  apart();
  bulkhead::host host;
  bulkhead::cluster_options options;
  bulkhead::cluster site(host, std::string(BULKHEAD_TEST_PLUGINS) + "/http.so", options);
  options.schedule = bulkhead::schedule::shared;
  bulkhead::cluster shared(host, std::string(BULKHEAD_TEST_PLUGINS) + "/http.so", options);
  const auto workers = static_cast<unsigned>(site.stats().workers.size());
  const node_cluster node(node_port, workers);
  if (!node) fmt::print("node is not there, or its port {} is taken: no floor\n", node_port);
  // One at a time, the client and the kernel cost as much as the fastest server: with two processors for both, no ratio
  // can be large. Sixteen at a time show the servers themselves.
  for (const auto& [connections, pipelined] : {std::pair{16u, false}, {128u, false}, {16u, true}})
    beside(site.port(), shared.port(), bool(node), connections, pipelined, {}, {}, pipelined ? 1.0 / 3 : 0.9);
  for (const bool pipelined : {false, true}) cost(site, node, pipelined);
  std::atomic<bool> over{false};
  unsigned recycled = 0;
  std::thread recycling([&] {
    while (!over) {
      recycled += site.loaded().recycle();
      std::this_thread::sleep_for(100ms);
    }
  });
  const measured meanwhile = wrk(site.port(), 16);
  over = true;
  recycling.join();
  row(fmt::format("  the same while all are recycled, {} times", recycled), meanwhile.rate, "/s",
      fmt::format("failed requests: {}", meanwhile.failed));
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "cluster", measure); }
