// What can be seen of a process from outside: the shared memory that it maps, the CPU time that it spends, and how often
// it goes to sleep.
#pragma once

#include <catch2/catch.hpp>

#include <chrono>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <sys/types.h>

namespace bulkhead::testing {

struct mapping {
  std::uint64_t address = 0, size = 0;
  std::string rights{};
};

// What it has mapped of shared memory of a name that begins so.
inline std::vector<mapping> shared_by(pid_t pid, const std::string& name) {
  std::vector<mapping> found;
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:" + name) == std::string::npos) continue;
    std::istringstream in(line);
    mapping each;
    std::uint64_t end = 0;
    char dash = 0;
    in >> std::hex >> each.address >> dash >> end >> each.rights;
    each.size = end - each.address;
    found.push_back(each);
  }
  return found;
}

// Of one of the clocks that stand still while nobody works.
inline std::chrono::nanoseconds cpu_time_by(clockid_t clock) {
  timespec spent{};
  REQUIRE(::clock_gettime(clock, &spent) == 0);
  return std::chrono::seconds(spent.tv_sec) + std::chrono::nanoseconds(spent.tv_nsec);
}

inline std::chrono::nanoseconds cpu_time(pid_t pid) {
  clockid_t clock{};
  REQUIRE(::clock_getcpuclockid(pid, &clock) == 0);
  return cpu_time_by(clock);
}

// How often its threads have gone to sleep, which is once each time that they were woken.
inline long sleeps(pid_t pid) {
  constexpr const char* name = "voluntary_ctxt_switches:";
  long sum = 0;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream status(thread.path() / "status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with(name)) sum += std::stol(line.substr(std::string(name).size()));
  }
  return sum;
}

}  // namespace bulkhead::testing
