// See census.hpp.
#include "census.hpp"

#include <fmt/format.h>
#include <malloc.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace chaos {
namespace {

std::size_t zombies() {
  std::size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream children(task.path() / "children");
    for (pid_t child = 0; children >> child;) {
      std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
      std::string line;
      std::getline(stat, line);
      const auto name_end = line.rfind(')');
      if (name_end != std::string::npos && line.compare(name_end + 2, 1, "Z") == 0) ++count;
    }
  }
  return count;
}

// Memory of a process that is not of a file.
double own_memory_kib(const std::string& process) {
  std::ifstream statm("/proc/" + process + "/statm");
  double size = 0, resident = 0, of_files = 0;
  statm >> size >> resident >> of_files;
  return (resident - of_files) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

}  // namespace

census census::take(pid_t server) {
  census out;
  std::error_code gone;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++out.descriptors;
    const auto target = std::filesystem::read_symlink(fd.path(), gone).string();
    if (target.starts_with("/memfd:")) ++out.memfds;
  }
  --out.descriptors;  // the directory itself
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) ++out.threads;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    ++out.mappings;
    if (line.find("/memfd:") != std::string::npos) ++out.memfds;
  }
  out.zombies = chaos::zombies();
  out.resident_kib = own_memory_kib("self");
  const std::string other = std::to_string(server);
  out.server_resident_kib = own_memory_kib(other);
  for ([[maybe_unused]] const auto& fd : std::filesystem::directory_iterator("/proc/" + other + "/fd", gone))
    ++out.server_descriptors;
  const auto heap = ::mallinfo2();
  out.allocated_kib = static_cast<double>(heap.uordblks + heap.hblkhd) / 1024;
  return out;
}

bool census::exceeds(const census& before) const {
#ifdef BULKHEAD_SANITIZED  // whose allocator maps as it likes
  constexpr bool counts_mappings = false;
#else
  constexpr bool counts_mappings = true;
#endif
  return descriptors > before.descriptors || threads > before.threads ||
         (counts_mappings && mappings > before.mappings) || memfds > before.memfds || zombies > before.zombies ||
         server_descriptors > before.server_descriptors;
}

std::string census::text() const {
  return fmt::format(
      "{} descriptors, {} threads, {} mappings, {} memfds, {} zombies, in the fork server {} descriptors", descriptors,
      threads, mappings, memfds, zombies, server_descriptors);
}

trend trend::through(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, sxx = 0, sxy = 0, rest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) mean_x += x[i] / n, mean_y += y[i] / n;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sxx += (x[i] - mean_x) * (x[i] - mean_x);
    sxy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  trend out;
  if (sxx <= 0 || x.size() < 3) return out;
  out.slope = sxy / sxx;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double off = y[i] - mean_y - out.slope * (x[i] - mean_x);
    rest += off * off;
  }
  out.error = std::sqrt(rest / (n - 2) / sxx);
  return out;
}

}  // namespace chaos
