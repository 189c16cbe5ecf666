// Bytes in bulk, each figure beside its floor from the same run, interleaved: 64 MiB there and back without a copy against
// the same pass over memory in this process; with a copy against a warm memcpy; from which size on a blob is worth it, by
// arguments of 16 bytes to 64 KiB; pages that are touched for the first time.
#include "bench.hpp"
#include "shared_memory_echo.hpp"
#include <bulkhead/host.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <sstream>

namespace {

using namespace bench;
using bulkhead::bytes;
using bulkhead::shared_blob;

constexpr std::size_t large = std::size_t{64} << 20, small = std::size_t{64} << 10;
int rounds() { return scaled(15, 5); }
int small_rounds() { return scaled(3000, 500); }

double median(const std::vector<double>& values) { return quantile(values, 0.5); }

double gib_per_second(std::size_t bytes, double us) { return static_cast<double>(bytes) / us * 1e6 / (1 << 30); }

void invert(const std::uint8_t* from, std::uint8_t* to, std::size_t size) {
  std::transform(from, from + size, to, [](std::uint8_t each) { return static_cast<std::uint8_t>(~each); });
}

void without_copy(bulkhead::host& host) {
  auto plugin = host.load(std::string(BULKHEAD_TEST_PLUGINS) + "/blobs.so");
  shared_blob in = plugin.make_blob(large);
  std::memset(in.writable().data(), 1, large);
  bytes from(large, 1), to(large);
  std::vector<double> pass, call, empty;
  for (int i = 0; i < rounds(); ++i) {
    pass.push_back(timed([&] { invert(from.data(), to.data(), large); }));
    shared_blob out;
    call.push_back(timed([&] { out = plugin.call<shared_blob>("invert", in); }));
    empty.push_back(timed([&] { plugin.call("nothing", in); }));
  }
  row("64 MiB there and back, the plugin's pass only", median(call) / 1000, "ms",
      fmt::format("the pass in-process {:.1f} ms", median(pass) / 1000), median(call) / median(pass), 3);
  row("64 MiB there, and nothing done with it", median(empty), "us");
}

// What goes before a pass over so much memory leaves more or less of it in the caches, so each figure takes turns with its
// floor alone.
void with_copy(bulkhead::host& host) {
  auto plugin = host.load(std::string(BULKHEAD_TEST_PLUGINS) + "/blobs.so");
  const bytes from(large, 1);
  bytes to(large);
  shared_blob in = plugin.make_blob(large);
  std::memset(in.writable().data(), 1, large);
  const auto copy = [&] { std::memcpy(to.data(), from.data(), large); };
  // Medians of the floor and of what is measured.
  const auto in_turn = [](auto&& floor, auto&& work) {
    std::vector<double> floors, values;
    for (int i = -1; i < rounds(); ++i) {
      const double one = timed(floor), other = timed(work);
      if (i < 0) continue;  // touches fresh memory
      floors.push_back(one);
      values.push_back(other);
    }
    return std::pair(median(floors), median(values));
  };
  const auto rate = [](const char* name, const std::pair<double, double>& found) {
    const auto& [floor, value] = found;
    row(name, gib_per_second(large, value), "GiB/s",
        fmt::format("warm memcpy {:.1f} GiB/s", gib_per_second(large, floor)), value / floor, 3);
  };
  rate("64 MiB of bytes as an argument, one copy", in_turn(copy, [&] { plugin.call("nothing", from); }));
  rate("64 MiB there and back, the plugin copies it", in_turn(copy, [&] { plugin.call<shared_blob>("echo", in); }));
  const auto [least, both] = in_turn(
      [&] {
        invert(from.data(), to.data(), large);
        copy();
        copy();
      },
      [&] { plugin.call<bytes>("invert", from); });
  row("64 MiB of bytes there and back, the plugin's pass", both / 1000, "ms",
      fmt::format("the pass and two warm copies {:.1f} ms", least / 1000), both / least);
}

void small_round_trips(bulkhead::host& host) {
  bulkhead::load_options inlined;
  inlined.blobs.threshold = SIZE_MAX;
  auto by_blob = host.load(std::string(BULKHEAD_TEST_PLUGINS) + "/blobs.so");
  auto in_message = host.load(std::string(BULKHEAD_TEST_PLUGINS) + "/blobs.so", inlined);
  const bytes data(small, 1);
  shared_blob in = by_blob.make_blob(small);
  std::vector<double> blob, automatic, message;
  for (int i = 0; i < small_rounds(); ++i) {
    message.push_back(timed([&] { in_message.call<bytes>("echo", data); }));
    automatic.push_back(timed([&] { by_blob.call<bytes>("echo", data); }));
    blob.push_back(timed([&] { by_blob.call<shared_blob>("invert", in); }));
  }
  const std::string floor = fmt::format("in the message {:.1f} us", median(message));
  row("64 KiB of bytes there and back, p50", median(automatic), "us", floor, median(automatic) / median(message), 1.5);
  row("64 KiB there and back by blob, p50", median(blob), "us", floor, median(blob) / median(message), 1.5);
}

std::string amount(std::size_t size) {
  return size < 1024 ? fmt::format("{} B", size) : fmt::format("{} KiB", size / 1024);
}

// What an argument costs in the message and by blob; the floor is a process that spins on shared memory, both sides of which
// copy as much. Each side has a CPU of its own.
void sizes() {
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  run_on_cpu(before, 1);
  shared_memory_echo raw(CPU_COUNT(&before) < 2);
  bulkhead::host host;
  bulkhead::load_options options;
  const std::size_t threshold = options.blobs.threshold;
  options.blobs.threshold = SIZE_MAX;
  auto in_message = host.load(BULKHEAD_TEST_PLUGINS "/blobs.so", options);
  constexpr std::size_t least = 1024;
  options.blobs.threshold = least;
  auto by_blob = host.load(BULKHEAD_TEST_PLUGINS "/blobs.so", options);
  run_on_cpu(before, 0);
  for (const std::size_t size : {16u, 256u, 1024u, 4096u, 16'384u, 32'768u, 65'536u}) {
    const bytes data(size, 1);
    enum { floor, message, blob, kinds };
    std::array<std::vector<double>, kinds> rounds;
    for (int round = 0; round < scaled(50, 10); ++round) {
      std::array<std::vector<double>, kinds> times;
      raw.awake(true);
      for (int i = 0; i < 100; ++i) times[floor].push_back(timed([&] { raw.once(data); }));
      raw.awake(false);
      for (int i = 0; i < 100; ++i) times[message].push_back(timed([&] { in_message.call("nothing", data); }));
      for (int i = 0; i < 100 && size >= least; ++i)
        times[blob].push_back(timed([&] { by_blob.call("nothing", data); }));
      for (std::size_t kind = 0; kind < kinds; ++kind)
        if (!times[kind].empty()) rounds[kind].push_back(median(times[kind]));
    }
    nlohmann::json found = {{"size", size}, {"floor", median(rounds[floor])}, {"message", median(rounds[message])}};
    row(fmt::format("argument of {}, in the message", amount(size)), median(rounds[message]), "us",
        fmt::format("spinning and copying {:.2f} us", median(rounds[floor])), ratio(rounds[message], rounds[floor]));
    if (size >= least) {
      found["blob"] = median(rounds[blob]);
      row(fmt::format("argument of {}, by blob", amount(size)), median(rounds[blob]), "us",
          fmt::format("in the message {:.2f} us", median(rounds[message])), ratio(rounds[blob], rounds[message]));
    }
    this_run().more["sizes"].push_back(found);
  }
  this_run().more["threshold"] = threshold;
  ::sched_setaffinity(0, sizeof before, &before);
}

// Of a process since it began.
double page_faults(pid_t pid) {
  std::ifstream stat(fmt::format("/proc/{}/stat", pid));
  std::string line, skipped;
  std::getline(stat, line);
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  for (int i = 0; i < 7; ++i) fields >> skipped;
  double minor = 0;
  fields >> minor;
  return minor;
}

// Of a call with 64 MiB there and back, in this process and the worker.
template <class Call>
void count_page_faults(const std::string& how, const bulkhead::plugin& plugin, Call&& call) {
  const pid_t worker = plugin.workers().at(0).pid;
  const auto all = [&] { return page_faults(::getpid()) + (worker == ::getpid() ? 0 : page_faults(worker)); };
  std::vector<double> each;
  for (int i = 0; i < 6; ++i) {
    const double before = all();
    call();
    if (i > 0) each.push_back(all() - before);
  }
  row("page faults of a call with 64 MiB, " + how, median(each), "");
}

void fresh_pages(bulkhead::host& host) {
  const std::string file = BULKHEAD_TEST_PLUGINS "/echo.so";
  bulkhead::load_options here;
  here.isolation = bulkhead::isolation::none;
  here.limits.frame = here.limits.queued_bytes = large + 4096;
  auto isolated = host.load(file), in_process = host.load(file, here);
  const bytes from(large, 1);
  bytes answer;
  const auto by_bytes = [&](const bulkhead::plugin& plugin) { answer = plugin.call<bytes>("echo", from); };
  count_page_faults("by bytes", isolated, [&] { by_bytes(isolated); });
  shared_blob in = isolated.make_blob(large), out;
  std::memset(in.writable().data(), 1, large);
  count_page_faults("by blob", isolated, [&] {
    out = {};
    out = isolated.call<shared_blob>("echo", in);
  });
  count_page_faults("in-process", in_process, [&] { by_bytes(in_process); });
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv, "blobs", [] {
    bulkhead::host host;
    without_copy(host);
    with_copy(host);
    small_round_trips(host);
    if (this_run().check) return;  // nothing is checked of what follows
    sizes();
    fresh_pages(host);
  });
}
