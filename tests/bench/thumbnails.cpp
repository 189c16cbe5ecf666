// Real work end to end: photos are read from files, and each becomes a thumbnail by the plugin `image`. The same loop with
// the plugin in this process and in workers: on one core each, and with two workers beside a single thread.
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <array>
#include <atomic>
#include <filesystem>
#include <optional>
#include <set>
#include <thread>

namespace {

using namespace bench;

const std::string plugin_file = BULKHEAD_TEST_PLUGINS "/image.so";
constexpr unsigned side = 256;

std::vector<std::filesystem::path> photos() {
  static const std::set<std::string> kinds = {".jpg", ".png", ".webp"};
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(BULKHEAD_BENCH_PHOTOS))
    if (kinds.contains(entry.path().extension())) found.push_back(entry.path());
  if (found.empty()) throw std::runtime_error("no photos in " BULKHEAD_BENCH_PHOTOS);
  std::sort(found.begin(), found.end());
  return found;
}

bulkhead::bytes read(const std::filesystem::path& file) {
  bulkhead::bytes data(std::filesystem::file_size(file));
  std::ifstream in(file, std::ios::binary);
  if (!in.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size())))
    throw std::runtime_error(file.string() + " can't be read");
  return data;
}

// One way to do it: where, and with how many workers.
class contender {
 public:
  // `cpu`: all of it on this one of the CPUs.
  contender(bulkhead::isolation isolation, unsigned workers, std::optional<int> cpu) : workers_(workers), cpu_(cpu) {
    ::sched_getaffinity(0, sizeof all_, &all_);
    placed([&] {
      host_.emplace();
      bulkhead::load_options options;
      options.instances = workers;
      options.isolation = isolation;
      image_ = host_->load(plugin_file, options);
    });
  }

  // Seconds for all of them, and of CPU time, the workers' included.
  struct cost {
    double wall = 0, cpu = 0;
  };
  cost once(const std::vector<std::filesystem::path>& files) {
    double took = 0;
    const double before = cpu();
    placed([&] {
      took = timed([&] {
               std::atomic<std::size_t> next{0};
               auto work = [&] {
                 for (std::size_t i = next++; i < files.size(); i = next++)
                   if (image_.call<bulkhead::bytes>("thumbnail", read(files[i]), side).empty()) std::abort();
               };
               std::vector<std::jthread> others;
               for (unsigned i = 1; i < workers_; ++i) others.emplace_back(work);
               work();
             }) /
             1e6;
    });
    return {took, cpu() - before};
  }

 private:
  double cpu() const {
    double all = own_cpu_us();
    for (const auto& worker : image_.workers())
      if (worker.pid != ::getpid()) all += cpu_us(worker.pid);  // else the plugin is in this process
    return all / 1e6;
  }

  template <class F>
  void placed(F&& work) {
    if (cpu_) run_on_cpu(all_, *cpu_);
    work();
    if (cpu_) ::sched_setaffinity(0, sizeof all_, &all_);
  }

  unsigned workers_;
  std::optional<int> cpu_;
  cpu_set_t all_{};
  std::optional<bulkhead::host> host_;
  bulkhead::plugin image_;
};

void measure() {
  const auto files = photos();
  enum { alone_one_core, isolated_one_core, alone, isolated_two_workers, count };
  const std::array<const char*, count> names = {"in-process, one core", "isolated, one worker and host on one core",
                                                "in-process, one thread, CPUs free",
                                                "isolated, two workers, CPUs free"};
  using bulkhead::isolation;
  std::array<contender, count> contenders = {contender(isolation::none, 1, 0), contender(isolation::process, 1, 0),
                                             contender(isolation::none, 1, {}), contender(isolation::process, 2, {})};
  std::array<std::vector<double>, count> times, cpu;
  for (int round = 0; round < scaled(20, 2) + 1; ++round)
    for (std::size_t i = 0; i < count; ++i) {
      // Whoever comes second finds a warmer machine.
      const std::size_t which = round % 2 ? i : count - 1 - i;
      const auto cost = contenders[which].once(files);
      if (round == 0) continue;
      times[which].push_back(cost.wall);
      cpu[which].push_back(cost.cpu);
    }
  auto ratio_in = [](const std::array<std::vector<double>, count>& seconds, std::size_t of, std::size_t to) {
    // What else the machine does can only make them slower.
    if (this_run().check) return quantile(seconds[of], 0) / quantile(seconds[to], 0);
    std::vector<double> each;
    for (std::size_t i = 0; i < seconds[of].size(); ++i) each.push_back(seconds[of][i] / seconds[to][i]);
    return quantile(each, 0.5);
  };
  auto ratio = [&](std::size_t of, std::size_t to) { return ratio_in(times, of, to); };
  const auto images = static_cast<double>(files.size());
  for (std::size_t i = 0; i < count; ++i)
    this_run().more["results"].push_back({{"work", "thumbnails"},
                                          {"who", names[i]},
                                          {"unit", "/s"},
                                          {"value", images / quantile(times[i], 0.5)},
                                          {"samples", times[i].size()},
                                          {"floor", names[i < alone ? alone_one_core : alone]},
                                          {"to_floor", ratio(i, i < alone ? alone_one_core : alone)}});
  this_run().more["photos"] = files.size();
  for (const std::size_t i : {isolated_one_core, isolated_two_workers}) {
    const std::size_t floor = i - 1;
    row(std::string("thumbnails, ") + names[i], images / quantile(times[i], 0.5), "/s",
        fmt::format("{} {:.1f} /s", names[floor], images / quantile(times[floor], 0.5)), ratio(i, floor),
        i == isolated_one_core ? 1.2 : 1.3);
  }
  row("thumbnails, CPU time of a photo, isolated", 1e3 * quantile(cpu[isolated_one_core], 0.5) / images, "ms",
      fmt::format("in-process {:.2f} ms", 1e3 * quantile(cpu[alone_one_core], 0.5) / images),
      ratio_in(cpu, isolated_one_core, alone_one_core), 1.2, steady);
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "thumbnails", measure); }
