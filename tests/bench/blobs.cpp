// Bytes in bulk, each figure beside its floor from the same run, interleaved: 64 MiB there and back without a copy against
// the same pass over memory in this process; with a copy against a warm memcpy; 64 KiB by blob and in the message.
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <algorithm>
#include <cstring>

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

void with_copy(bulkhead::host& host) {
  auto plugin = host.load(std::string(BULKHEAD_TEST_PLUGINS) + "/blobs.so");
  const bytes from(large, 1);
  bytes to(large);
  std::vector<double> copy, call;
  for (int i = 0; i < rounds(); ++i) {
    copy.push_back(timed([&] { std::memcpy(to.data(), from.data(), large); }));
    call.push_back(timed([&] { plugin.call("nothing", from); }));
  }
  copy.erase(copy.begin());
  call.erase(call.begin());  // the first touches fresh memory
  row("64 MiB of bytes as an argument, one copy", gib_per_second(large, median(call)), "GiB/s",
      fmt::format("warm memcpy {:.1f} GiB/s", gib_per_second(large, median(copy))), median(call) / median(copy), 3);
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

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv, "blobs", [] {
    bulkhead::host host;
    without_copy(host);
    with_copy(host);
    small_round_trips(host);
  });
}
