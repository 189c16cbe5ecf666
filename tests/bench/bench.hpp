// What the benchmarks share: time, quantiles, a figure beside its floor, an idle process's share of memory; and the frame
// of a program that measures: options, a table for people, JSON for the performance page, bars against regressions.
#pragma once

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <sched.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace bench {

using namespace std::chrono_literals;
using microseconds = std::chrono::duration<double, std::micro>;

template <class F>
double timed(F&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return microseconds(std::chrono::steady_clock::now() - begin).count();
}

// Of at least one value.
inline double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

// For figure::most_slack: what else the machine does makes a figure worse; it does little to a ratio of two kinds of work that
// take turns on the same CPU; and nothing to a size.
constexpr double any_slack = 1e9, steady = 1.25, exact = 1;

// A figure: `value` is what was measured; `ratio` what it costs relative to its floor of the same run, 0: none is known;
// `bar` the ratio above which --check fails, 0: none; `most_slack` how many times as high it may be at most.
struct figure {
  std::string name;
  double value;
  std::string unit, floor;
  double ratio = 0, bar = 0, most_slack = any_slack;
};

// What this run was asked for, and what it has found.
struct session {
  bool quick = false, check = false;
  double slack = 1;  // a bar is so many times as high, or as much as its figure allows
  std::string json{};
  std::vector<figure> figures{};
  nlohmann::json more = nlohmann::json::object();  // what a program has to tell besides
};
inline session& this_run() {
  static session only;
  return only;
}

// How many rounds and the like: fewer when --quick was given.
template <class N>
N scaled(N full, N quick) {
  return this_run().quick ? quick : full;
}

// What one costs relative to the other, by the figures of rounds that took turns, so that a slow moment of the machine
// counts for both. A check takes a good round rather than the median one: what else the machine does spoils some.
inline double ratio(const std::vector<double>& of, const std::vector<double>& to) {
  std::vector<double> each;
  for (std::size_t i = 0; i < std::min(of.size(), to.size()); ++i) each.push_back(of[i] / to[i]);
  return each.empty() ? 0 : quantile(each, this_run().check ? 0.25 : 0.5);
}

// Two processes that spin need microseconds at most for a round trip, unless they have to share a CPU.
constexpr double spin_at_most = 5;

// Prints and keeps a figure.
inline void row(const std::string& name, double value, const std::string& unit, const std::string& floor = "",
                double ratio = 0, double bar = 0, double most_slack = any_slack) {
  fmt::print("{:<48} {:>10.2f} {:<3} {:<34} {}\n", name, value, unit, floor,
             ratio > 0 ? fmt::format("{:.2f} x", ratio) : "");
  std::fflush(stdout);
  this_run().figures.push_back({name, value, unit, floor, ratio, bar, unit == "kB" ? exact : most_slack});
}

// Puts the calling thread on the `index`-th CPU it may use (the last, if there are fewer); what it starts inherits that.
inline void run_on_cpu(const cpu_set_t& allowed, int index) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t i = 0, seen = 0; i < CPU_SETSIZE && seen <= static_cast<std::size_t>(index); ++i) {
    if (!CPU_ISSET(i, &allowed)) continue;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    ++seen;
  }
  ::sched_setaffinity(0, sizeof one, &one);
}

// The proportional set size of a process, in kB; 0 when it can't be read.
inline double pss_kb(pid_t pid) {
  std::ifstream rollup("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; rollup >> word;)
    if (word == "Pss:") {
      double kb = 0;
      rollup >> kb;
      return kb;
    }
  return 0;
}

// CPU time of another process, of all its threads, in microseconds; of those that have ended none.
inline double cpu_us(pid_t pid) {
  double nanoseconds = 0;
  std::error_code gone;
  for (const auto& thread : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), gone)) {
    double running = 0;
    std::ifstream(thread.path() / "schedstat") >> running;
    nanoseconds += running;
  }
  return nanoseconds / 1e3;
}

// The same of this process, with the threads that have ended.
inline double own_cpu_us() {
  timespec spent{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return static_cast<double>(spent.tv_sec) * 1e6 + static_cast<double>(spent.tv_nsec) / 1e3;
}

// As many descriptors as this process may have: a worker costs its host six.
inline void allow_descriptors() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

inline std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

inline void write_json(const std::string& file, const std::string& program) {
  utsname system{};
  ::uname(&system);
  nlohmann::json all = this_run().more;
  all["program"] = program;
  all["quick"] = this_run().quick;
  const char* const commit = std::getenv("BULKHEAD_BENCH_COMMIT");  // by ./dev bench
  all["commit"] = commit ? commit : "unknown";
  all["measured"] = std::time(nullptr);
  all["machine"] = {{"processor", processor()},
                    {"cpus", ::sysconf(_SC_NPROCESSORS_ONLN)},
                    {"kernel", system.release},
                    {"compiler", "g++ " __VERSION__},
#ifdef NDEBUG
                    {"assertions", false}};
#else
                    {"assertions", true}};
#endif
  for (const figure& each : this_run().figures)
    all["figures"].push_back({{"name", each.name},
                              {"value", each.value},
                              {"unit", each.unit},
                              {"floor", each.floor},
                              {"ratio", each.ratio},
                              {"bar", each.bar}});
  std::ofstream out(file);
  out << all.dump(1) << '\n';
  out.close();
  if (!out) throw std::runtime_error(file + " can't be written");
}

// The main function of a benchmark. --quick measures for a shorter time, --check fails when a ratio is above its bar
// (above N times its bar with --slack N, or as much as figure::most_slack allows), --json FILE writes the figures.
template <class F>
int run(int argc, char** argv, const std::string& program, F&& measure) {
  session& asked = this_run();
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--quick") {
      asked.quick = true;
    } else if (option == "--check") {
      asked.check = true;
    } else if (option == "--slack" && i + 1 < argc && std::atof(argv[i + 1]) >= 1) {
      asked.slack = std::atof(argv[++i]);
    } else if (option == "--json" && i + 1 < argc) {
      asked.json = argv[++i];
    } else {
      fmt::print(stderr, "usage: bench_{} [--quick] [--check [--slack N]] [--json FILE]\n", program);
      return 2;
    }
  }
  int status = 0;
  try {
    measure();
    if (!asked.json.empty()) write_json(asked.json, program);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_{}: {}\n", program, error.what());
    status = 1;
  }
  std::fflush(stdout);
  if (asked.check) {
    if (std::none_of(asked.figures.begin(), asked.figures.end(), [](const figure& each) { return each.bar > 0; })) {
      fmt::print(stderr, "bench_{}: nothing was checked\n", program);
      status = 1;
    }
    for (const figure& each : asked.figures) {
      const double bar = std::min(asked.slack, each.most_slack) * each.bar;
      if (bar > 0 && !(each.ratio <= bar)) {
        fmt::print(stderr, "regression: {} is {:.2f} x its floor ({}); the bar is {:.2f} x\n", each.name, each.ratio,
                   each.floor, bar);
        status = 1;
      }
    }
  }
  return status;
}

}  // namespace bench
