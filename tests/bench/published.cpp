// A table that all workers read: publishing it, beside copying it; what it takes of memory, however many map it; a worker that
// reads it, beside this process that reads its own.
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <cstring>
#include <numeric>

#include <sys/mman.h>

namespace {

using namespace bench;
using bulkhead::bytes;
using bulkhead::bytes_view;

constexpr unsigned workers = 8;
std::size_t size() { return scaled(std::size_t{1} << 30, std::size_t{64} << 20); }

// kB of published memory that a process has, in proportion.
double published_kb(const std::string& process) {
  std::ifstream smaps("/proc/" + process + "/smaps");
  double kb = 0;
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.find('-') < 17 && line.find(" r") != std::string::npos)  // a mapping begins
      inside = line.find("memfd:bulkhead-published") != std::string::npos;
    else if (inside && line.starts_with("Pss:")) kb += std::stod(line.substr(4));
  }
  return kb;
}

// As the plugin does it.
std::uint64_t sum_of(bytes_view data) { return std::accumulate(data.begin(), data.end(), std::uint64_t{0}); }

// Into memory of the process's own, the first and the second time.
std::pair<double, double> copies(const bytes& from) {
  void* const to = ::mmap(nullptr, from.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (to == MAP_FAILED) throw std::runtime_error("no memory for a copy");
  const auto copy = [&] { return timed([&] { std::memcpy(to, from.data(), from.size()); }); };
  const double fresh = copy(), warm = copy();
  ::munmap(to, from.size());
  return {fresh, warm};
}

void measure() {
  const bytes own(size(), 1);
  const std::string table = fmt::format("a table of {} MiB", size() >> 20);
  bulkhead::host host;
  const auto [fresh, warm] = copies(own);
  const double publishing = timed([&] { host.publish("table", own); });
  row(table + " published, once", publishing / 1e3, "ms", fmt::format("memcpy to fresh memory {:.0f} ms", fresh / 1e3),
      publishing / fresh);
  row("  the same", publishing / 1e3, "ms", fmt::format("memcpy to warm memory {:.0f} ms", warm / 1e3),
      publishing / warm);

  bulkhead::load_options options;
  options.instances = workers;
  options.dispatch.kind = bulkhead::dispatch::kind::round_robin;
  auto plugin = host.load(BULKHEAD_TEST_PLUGINS "/blobs.so", options);
  const auto read = [&] {
    return timed([&] {
      if (plugin.call<std::uint64_t>("sum_published", "table") != size())
        throw std::logic_error("not what was published");
    });
  };
  const auto read_own = [&] {
    return timed([&] {
      if (sum_of(own) != size()) throw std::logic_error("not what was written");
    });
  };
  std::vector<double> first, reads, reads_own;
  for (unsigned i = 0; i < workers; ++i) first.push_back(read());  // each of them
  const double one_copy = static_cast<double>(size()) / 1024;
  double all = published_kb("self");
  for (const auto& each : plugin.workers()) all += published_kb(std::to_string(each.pid));
  for (unsigned i = 0; i < workers; ++i) {
    reads_own.push_back(read_own());
    reads.push_back(read());
  }
  const std::string floor = fmt::format("its own by the host {:.1f} ms", quantile(reads_own, 0.5) / 1e3);
  row(table + fmt::format(", memory of host and {} workers", workers), all, "kB",
      fmt::format("one copy {:.0f} kB", one_copy), all / one_copy, 1.05);
  row(table + " read by a worker, the first time", quantile(first, 0.5) / 1e3, "ms", floor,
      quantile(first, 0.5) / quantile(reads_own, 0.5));
  row(table + " read by a worker", quantile(reads, 0.5) / 1e3, "ms", floor, ratio(reads, reads_own), 2);
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "published", measure); }
