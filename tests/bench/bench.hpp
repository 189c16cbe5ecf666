// What the benchmarks share: time, quantiles, a row of the table, an idle process's share of memory.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include <sched.h>
#include <sys/types.h>

namespace bench {

using namespace std::chrono_literals;
using microseconds = std::chrono::duration<double, std::micro>;

template <class F>
double timed(F&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return microseconds(std::chrono::steady_clock::now() - begin).count();
}

inline double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

inline void row(const std::string& name, double value, const std::string& unit, const std::string& floor = "",
                double ratio = 0) {
  fmt::print("{:<48} {:>10.2f} {:<3} {:<34} {}\n", name, value, unit, floor,
             ratio > 0 ? fmt::format("{:.2f} x", ratio) : "");
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

}  // namespace bench
