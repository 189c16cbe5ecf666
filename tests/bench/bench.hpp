// What the benchmarks share: time, quantiles, a row of the table, an idle process's share of memory.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

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
