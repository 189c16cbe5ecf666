// What the benchmarks share: time, quantiles, a figure beside its floor, an idle process's share of memory; and the frame
// of a program that measures: options, a table for people, JSON for the performance page, bars against regressions.
#pragma once

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include <sched.h>
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

// A figure: `value` is what was measured; `ratio` what it costs relative to its floor of the same run, 0: none is known;
// `bar` the ratio above which --check fails, 0: none.
struct figure {
  std::string name;
  double value;
  std::string unit, floor;
  double ratio = 0, bar = 0;
};

// What this run was asked for, and what it has found.
struct session {
  bool quick = false, check = false;
  double slack = 1;  // a bar is so many times as high, but for sizes
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
                double ratio = 0, double bar = 0) {
  fmt::print("{:<48} {:>10.2f} {:<3} {:<34} {}\n", name, value, unit, floor,
             ratio > 0 ? fmt::format("{:.2f} x", ratio) : "");
  std::fflush(stdout);
  this_run().figures.push_back({name, value, unit, floor, ratio, bar});
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
// (above N times its bar with --slack N, unless it is a size), --json FILE writes the figures.
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
      const double bar = each.unit == "kB" ? each.bar : asked.slack * each.bar;  // load makes nothing larger
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
