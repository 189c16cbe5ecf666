// What starting child processes costs: a program spawned and waited for beside posix_spawn() from this small process, also
// once this one holds 2 GB; a child with a channel until its first message, and a message's round trip, beside Node's own
// fork(); a sandboxed program beside bubblewrap. All interleaved, so that the machine's moods meet both.
#include "bench.hpp"
#include <bulkhead/process.hpp>

#include <boost/asio/use_future.hpp>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using namespace bench;
using bulkhead::child;
using bulkhead::launcher;
using bulkhead::process_options;
using bulkhead::stdio;

const std::string node_scripts = BULKHEAD_BENCH_SCRIPTS;

double posix_spawned(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& each : words) argv.push_back(each.data());
  argv.push_back(nullptr);
  return timed([&] {
    pid_t pid = -1;
    if (::posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) std::abort();
    ::waitpid(pid, nullptr, 0);
  });
}

double spawned_once() { return posix_spawned({"/bin/true"}); }

double spawned(launcher& launch, const std::string& file, const process_options& options) {
  return timed([&] { launch.spawn(file, {}, options).wait(); });
}

void compare(const std::string& name, const std::vector<double>& values, const std::string& floor_name,
             const std::vector<double>& floors, double bar = 0) {
  const double value = quantile(values, 0.5), floor = quantile(floors, 0.5);
  row(name, value, "us", fmt::format("{} {:.0f} us", floor_name, floor), value / floor, bar);
}

// The floor is that of a process of its own, forked while this one is small: it spawns once whenever it is asked to.
class small_process {
 public:
  small_process() {
    static const int socket = start();
    socket_ = socket;
  }
  double posix_spawned() const {
    double time = 0;
    if (::write(socket_, "", 1) != 1 || ::read(socket_, &time, sizeof time) != sizeof time) std::abort();
    return time;
  }

 private:
  static int start() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    if (::fork() != 0) return ::close(ends[1]), ends[0];
    ::close(ends[0]);
    for (char asked; ::read(ends[1], &asked, 1) == 1;) {
      const double time = spawned_once();
      if (::write(ends[1], &time, sizeof time) != sizeof time) break;
    }
    ::_exit(0);
  }
  int socket_ = -1;
};

void spawning(launcher& launch, const std::string& size, bool large) {
  process_options options;
  options.streams = {stdio::inherit(), stdio::inherit(), stdio::inherit()};
  std::vector<double> ours, theirs, here;
  small_process floor;
  for (int i = 0; i < scaled(600, 60); ++i) {
    theirs.push_back(floor.posix_spawned());
    ours.push_back(spawned(launch, "/bin/true", options));
    if (large) here.push_back(posix_spawned({"/bin/true"}));
  }
  compare("spawn /bin/true and wait, " + size, ours, "posix_spawn, small process", theirs, 2);
  if (large) compare("  the same", ours, "posix_spawn in this process", here);
}

void sandboxed(launcher& launch) {
  if (std::system("bwrap --version >/dev/null 2>&1") != 0)
    return void(fmt::print("bubblewrap is not installed: no row\n"));
  process_options options;
  options.streams = {stdio::inherit(), stdio::inherit(), stdio::inherit()};
  options.policy = bulkhead::policy();
  std::vector<double> ours, theirs;
  for (int i = 0; i < scaled(300, 30); ++i) {
    theirs.push_back(posix_spawned({"/usr/bin/bwrap", "--unshare-all", "--ro-bind", "/", "/", "/bin/true"}));
    ours.push_back(spawned(launch, "/bin/true", options));
  }
  compare("spawn /bin/true under policy::strict and wait", ours, "bwrap --unshare-all", theirs, 1.0);
}

// A child that answers, and its first word.
class peer {
 public:
  peer(launcher& launch, const std::string& module) {
    process_options options;
    options.streams = {stdio::null(), stdio::inherit(), stdio::inherit()};
    options.events.on_message = [this](const nlohmann::json&, bulkhead::passed_handle) {
      std::lock_guard held(mutex_);
      ++messages_;
      changed_.notify_all();
    };
    first_ = timed([&] {
      child_ = launch.fork(module, {}, options);
      wait_for(1);
    });
  }
  ~peer() {
    child_.kill(SIGKILL);
    child_.async_wait(boost::asio::use_future).get();
  }
  double first() const { return first_; }
  double memory() const { return pss_kb(child_.pid()); }
  double round_trip() {
    return timed([&] {
      std::unique_lock held(mutex_);
      const unsigned before = messages_;
      held.unlock();
      child_.send("0123456789abcdef");
      wait_for(before + 1);
    });
  }

 private:
  void wait_for(unsigned count) {
    std::unique_lock held(mutex_);
    changed_.wait(held, [&] { return messages_ >= count; });
  }
  child child_;
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned messages_ = 0;
  double first_ = 0;
};

// Node as parent of Node: it prints microseconds until the first message, then the median of the round trips.
std::pair<double, double> node_to_node(launcher& launch) {
  const auto done = launch.exec_file("node", {node_scripts + "/parent.js", node_scripts + "/child.js"});
  double first = 0, trip = 0;
  std::sscanf(done.out.c_str(), "%lf %lf", &first, &trip);
  return {first, trip};
}

void forking(launcher& launch) {
  if (std::system("node --version >/dev/null 2>&1") != 0) return void(fmt::print("node is not installed: no rows\n"));
  std::vector<double> ours, by_static, theirs, trips, node_trips, mixed, memory, node_memory;
  for (int i = 0; i < scaled(15, 3); ++i) {
    const auto [first, trip] = node_to_node(launch);
    theirs.push_back(first);
    node_trips.push_back(trip);
    peer small(launch, BULKHEAD_TEST_PROGRAMS "/echo_child"), node(launch, node_scripts + "/child.js");
    ours.push_back(small.first());
    by_static.push_back(peer(launch, BULKHEAD_TEST_PROGRAMS "/echo_child_static").first());
    memory.push_back(small.memory());
    node_memory.push_back(node.memory());
    std::vector<double> some, some_mixed;
    for (int n = 0; n < 500; ++n) {
      some.push_back(small.round_trip());
      some_mixed.push_back(node.round_trip());
    }
    trips.push_back(quantile(some, 0.5));
    mixed.push_back(quantile(some_mixed, 0.5));
  }
  compare("fork to first message", ours, "Node's fork of Node", theirs, 1.0 / 15);
  compare("fork to first message, linked statically", by_static, "Node's fork of Node", theirs, 1.0 / 30);
  row("memory of a forked child (PSS)", quantile(memory, 0.5), "kB",
      fmt::format("a Node child {:.0f} kB", quantile(node_memory, 0.5)),
      quantile(memory, 0.5) / quantile(node_memory, 0.5), 0.05);
  compare("message round trip, both ends ours", trips, "Node and Node", node_trips);
  compare("message round trip, Node child of ours", mixed, "Node and Node", node_trips);
}

void measure() {
  const small_process floor;  // before this one has threads or grows
  launcher launch;
  spawning(launch, "small application", false);
  forking(launch);
  sandboxed(launch);
  if (this_run().check) return;
  const std::size_t size = std::size_t{2} << 30;
  void* const ballast = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ballast == MAP_FAILED) throw std::runtime_error("no 2 GB of memory");
  std::memset(ballast, 1, size);
  spawning(launch, "2 GB application", true);
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "process", measure); }
