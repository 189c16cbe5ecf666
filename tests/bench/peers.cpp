// The same work done by bulkhead and by other ways to have another process do something, and by what no way can beat: see
// peers/. Each is a program of its own that this one tells what to do, in turns: A, B, C, A, B, C. The machine's own speed
// varies by more than what is measured, so ratios are taken round by round, and their median is told.
#include "bench.hpp"
#include "peers/contestant.hpp"

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include <spawn.h>
#include <sys/wait.h>

namespace {

using namespace bench;

const std::string programs = BULKHEAD_TEST_PROGRAMS, scripts = BULKHEAD_BENCH_PEERS;

// In the order of the tables. Those that are not there are told and left out.
std::vector<std::unique_ptr<contestant>> contestants() {
  const std::vector<std::vector<std::string>> all = {
      {programs + "/peer_bulkhead"},
      {programs + "/peer_in_process"},
      {programs + "/peer_bulkhead", "in-process"},
      {programs + "/peer_bulkhead", "blob"},
      {programs + "/peer_shared_memory", "spin"},
      {programs + "/peer_shared_memory", "futex"},
      {programs + "/peer_socketpair"},
      {programs + "/peer_message_queue"},
      {programs + "/peer_zeromq"},
      {programs + "/peer_capnp"},
      {programs + "/peer_grpc"},
      {BULKHEAD_BENCH_NODE, scripts + "/node_peer.js"},
      {BULKHEAD_BENCH_PYTHON, scripts + "/python_peer.py"},
  };
  std::vector<std::unique_ptr<contestant>> found;
  for (const auto& argv : all) {
    if (std::filesystem::exists(argv[0])) found.push_back(std::make_unique<contestant>(argv));
    else fmt::print("left out: {} is not there; ./dev bench installs all\n", argv.back());
  }
  return found;
}

enum class placement { free, two_cpus, one_cpu };

// One kind of work, and what to do for it.
struct work {
  std::string name, command;  // of the driver's protocol, without the number of calls
  std::string floor;          // whom to compare with
  double bar;                 // bulkhead's cost relative to the socketpair's, above which --check fails
  double awake_bar = 0;       // the same where a second CPU is free all the time; 0: no other
  placement where = placement::free;
  bool one_by_one = true;  // each call is timed
  std::string after = "";  // more of the command
  int rounds = 20, quick_rounds = 3;
  std::vector<std::string> without = {};
};

struct outcome {
  std::vector<double> all;     // microseconds a call
  std::vector<double> rounds;  // median of each round
};

using outcomes = std::map<std::string, outcome>;

// Who has failed is told, and takes no part from then on.
class arena {
 public:
  arena() : all_(contestants()) {
    for (const auto& each : all_) this_run().more["versions"][each->name()] = each->version();
  }

  outcomes measure(const work& what) {
    progress(what.name);
    place(what);
    outcomes found;
    std::map<std::string, std::size_t> counts;
    const double budget = scaled(50e3, 10e3);  // of a round, in microseconds
    for (int round = 0; round < scaled(what.rounds, what.quick_rounds) + 1; ++round)
      for (auto& each : all_) {
        if (!each || !takes_part(*each, what)) continue;
        std::size_t& count = counts.try_emplace(each->name(), what.one_by_one ? 1 : 256).first->second;
        std::optional<std::vector<double>> times;
        const double took = timed([&] { times = ask(each, fmt::format("{} {}{}", what.command, count, what.after)); });
        if (!times) continue;
        std::vector<double> calls = *times;
        if (!what.one_by_one) calls[0] /= static_cast<double>(count);
        // As many calls as fit into a round, by the time that the round before has taken on a machine which may have
        // other things to do. The first shows only that.
        count = static_cast<std::size_t>(
            std::clamp(budget * static_cast<double>(count) / took, what.one_by_one ? 1.0 : 256.0, 50e3));
        if (round == 0) continue;
        outcome& mine = found[each->name()];
        mine.rounds.push_back(quantile(calls, 0.5));
        mine.all.insert(mine.all.end(), calls.begin(), calls.end());
      }
    return found;
  }

  outcomes spawns() {
    progress("spawn to first reply");
    for (auto& each : all_)
      if (each) each->place({}, {});
    outcomes found;
    auto keep = [&](const std::string& name, double time) {
      found[name].all.push_back(time);
      found[name].rounds.push_back(time);
    };
    for (int round = 0; round < scaled(40, 10); ++round) {
      keep("posix_spawn", spawn_true());
      for (auto& each : all_)
        if (const auto time = ask(each, "spawn"); time && round > 0) keep(each->name(), time->at(0));
    }
    return found;
  }

  // PSS of each of eight workers, in kB.
  outcomes memory() {
    progress("memory");
    outcomes found;
    for (auto& each : all_)
      if (const auto pids = ask(each, "crowd 8")) {
        for (const double pid : *pids) found[each->name()].all.push_back(pss_kb(static_cast<pid_t>(pid)));
        found[each->name()].rounds = {quantile(found[each->name()].all, 0.5)};
        ask(each, "worker 16");  // lets them go
      }
    return found;
  }

  const std::vector<std::string>& failures() const { return failures_; }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& each : all_)
      if (each) all.push_back(each->name());
    return all;
  }

 private:
  static void progress(const std::string& what) { fmt::print(stderr, "bench_peers: {}\n", what); }

  static bool takes_part(const contestant& each, const work& what) {
    return std::find(what.without.begin(), what.without.end(), each.name()) == what.without.end();
  }

  std::optional<std::vector<double>> ask(std::unique_ptr<contestant>& whom, const std::string& line) {
    if (!whom) return {};
    try {
      return whom->ask(line);
    } catch (const std::exception& error) {
      failures_.push_back(whom->name() + ": " + line + ": " + error.what());
      fmt::print(stderr, "bench_peers: {}\n", failures_.back());
      whom.reset();
      return {};
    }
  }

  // Where the scheduler puts two processes rules what a message between them costs: with two CPUs, waking the other is
  // most of it, with one there is only the work done. Free is what applications get; it may be either.
  void place(const work& what) {
    const auto cpus = allowed_cpus();
    const auto bytes = what.command.substr(what.command.find(' ') + 1);
    for (auto& each : all_) {
      const auto worker = ask(each, "worker " + bytes);
      if (!each) continue;
      const std::optional<pid_t> pid = worker ? std::optional(static_cast<pid_t>(worker->at(0))) : std::nullopt;
      if (what.where == placement::free) each->place({}, pid);
      else each->place(cpus.front(), pid, what.where == placement::one_cpu ? cpus.front() : cpus.back());
    }
  }

  static double spawn_true() {
    return timed([] {
      char name[] = "/bin/true";
      char* argv[] = {name, nullptr};
      pid_t pid = -1;
      if (::posix_spawn(&pid, name, nullptr, nullptr, argv, environ) == 0) ::waitpid(pid, nullptr, 0);
    });
  }

  std::vector<std::unique_ptr<contestant>> all_;
  std::vector<std::string> failures_;
};

std::string amount(double value) {
  if (value >= 1e4) return fmt::format("{:.0f}", value);
  return fmt::format("{:.{}f}", value, value >= 100 ? 1 : value >= 0.01 ? 2 : 4);
}

// All of them in a table and in the JSON; bulkhead beside the floor among the figures.
void tell(const work& what, const std::string& unit, const outcomes& found, const std::vector<std::string>& order) {
  fmt::print("\n{}\n", what.name);
  const bool tails = what.one_by_one && unit == "us";
  fmt::print("  {:<28} {:>10} {:>10} {:>10}  {:>10} {:>12}\n", "", tails ? "p50, us" : unit, tails ? "p99" : "",
             tails ? "p99.9" : "", "x floor", "x bulkhead");
  const auto bulkhead = found.find("bulkhead"), floor = found.find(what.floor), socketpair = found.find("socketpair");
  for (const auto& name : order) {
    const auto at = found.find(name);
    if (at == found.end() || at->second.all.empty()) continue;
    const outcome& each = at->second;
    const double p50 = quantile(each.all, 0.5);
    // What is shown as a rate is compared as a time.
    const double value = what.one_by_one ? p50 : 1e6 / p50;
    nlohmann::json result = {
        {"work", what.name}, {"who", name}, {"unit", unit}, {"value", value}, {"samples", each.all.size()}};
    // A tail is made of some calls at least.
    if (tails && each.all.size() >= 200) result["p99"] = quantile(each.all, 0.99);
    if (tails && each.all.size() >= 2000) result["p999"] = quantile(each.all, 0.999);
    if (floor != found.end()) result["to_floor"] = ratio(each.rounds, floor->second.rounds);
    if (bulkhead != found.end()) result["to_bulkhead"] = ratio(each.rounds, bulkhead->second.rounds);
    auto text = [&](const char* key) { return result.contains(key) ? amount(result[key]) : ""; };
    fmt::print("  {:<28} {:>10} {:>10} {:>10}  {:>10} {:>12}\n", name, amount(value), text("p99"), text("p999"),
               text("to_floor"), text("to_bulkhead"));
    result["floor"] = what.floor;
    this_run().more["results"].push_back(result);
  }
  if (bulkhead == found.end()) throw std::runtime_error("bulkhead itself could not be measured");
  const double median = quantile(bulkhead->second.all, 0.5);
  const auto bar = what.name.starts_with("spawn") ? floor : socketpair;
  if (bar == found.end()) throw std::runtime_error("there is nothing to compare " + what.name + " with");
  const auto spin = found.find("spin");
  const bool awake = what.awake_bar > 0 && spin != found.end() && quantile(spin->second.rounds, 1) < spin_at_most;
  if (what.awake_bar > 0 && !awake) fmt::print("  no second CPU was free: it may take {} x\n", what.bar);
  this_run().figures.push_back({what.name, what.one_by_one ? median : 1e6 / median, unit, bar->first,
                                ratio(bulkhead->second.rounds, bar->second.rounds), awake ? what.awake_bar : what.bar,
                                unit == "kB" ? exact : any_slack});
}

void measure() {
  this_run().more["node"] = BULKHEAD_BENCH_NODE;
  arena all;
  std::vector<std::string> order = all.names();
  order.insert(order.begin() + 1, "posix_spawn");
  const std::vector<work> works = {
      // Parked, a lane takes as long as a socketpair.
      {.name = "16-byte call, CPUs free", .command = "calls 16", .floor = "spin", .bar = 8, .awake_bar = 1},
      {.name = "16-byte call, two CPUs",
       .command = "calls 16",
       .floor = "spin",
       .bar = 8,
       .awake_bar = 1,
       .where = placement::two_cpus},
      {.name = "16-byte call, one CPU",
       .command = "calls 16",
       .floor = "futex",
       .bar = 2,
       .where = placement::one_cpu,
       .without = {"spin"}},  // each would wait for the end of the other's time slice
      {.name = "64 KiB call", .command = "calls 65536", .floor = "spin", .bar = 10, .awake_bar = 2},
      {.name = "64 MiB call",
       .command = "calls 67108864",
       .floor = "spin",
       .bar = 20,
       .rounds = 7,
       .quick_rounds = 1,
       // A check has no need of those that take seconds for it.
       .without = this_run().check
                      ? std::vector<std::string>{"gRPC", "Cap'n Proto", "Node child_process.fork", "ZeroMQ"}
                      : std::vector<std::string>{}},
      {.name = "16-byte calls, 64 outstanding",
       .command = "many 16",
       .floor = "spin",
       .bar = 16,
       .awake_bar = 8,
       .one_by_one = false,
       .after = " 64",
       .without = {"futex"}},
  };
  for (const work& each : works) tell(each, each.one_by_one ? "us" : "/s", all.measure(each), order);
  tell({.name = "spawn to first reply", .command = "spawn", .floor = "posix_spawn", .bar = 8}, "us", all.spawns(),
       order);
  tell({.name = "memory of a worker (PSS)", .command = "crowd", .floor = "socketpair", .bar = 5}, "kB", all.memory(),
       order);
  if (!all.failures().empty()) throw std::runtime_error("failed: " + all.failures().front());
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "peers", measure); }
