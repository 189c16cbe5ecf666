// What it costs to pack and unpack arguments, beside the same bytes as they are: in a plugin's method (values taken where they
// lie, or by way of objects), and in a whole call.
#include "bench.hpp"
#include <bulkhead/host.hpp>

#include <malloc.h>

#include <cstring>
#include <map>
#include <numeric>

namespace {

using namespace bench;
using bulkhead::bytes;
using bulkhead::bytes_view;

template <class T>
double object_us(bytes_view packed, int times) {
  return timed([&] {
           for (int i = 0; i < times; ++i) {
             const auto handle = msgpack::unpack(reinterpret_cast<const char*>(packed.data()), packed.size(),
                                                 [](msgpack::type::object_type, std::size_t, void*) { return true; });
             auto value = bulkhead::typed::convert<T>(handle.get());
             asm volatile("" : : "r"(&value) : "memory");
           }
         }) /
         times;
}

template <class T>
double direct_us(bytes_view packed, int times) {
  return timed([&] {
           for (int i = 0; i < times; ++i) {
             T value{};
             if (!bulkhead::typed::take_all(packed, value)) throw std::logic_error("not taken");
             asm volatile("" : : "r"(&value) : "memory");
           }
         }) /
         times;
}

double raw_us(bytes_view packed, int times) {
  return timed([&] {
           for (int i = 0; i < times; ++i) {
             bytes copy(packed.begin(), packed.end());
             asm volatile("" : : "r"(copy.data()) : "memory");
           }
         }) /
         times;
}

template <class T>
void unpacking(const std::string& name, const T& value, int times, double bar) {
  msgpack::sbuffer out;
  msgpack::pack(out, value);
  const bytes_view packed(reinterpret_cast<const std::uint8_t*>(out.data()), out.size());
  std::vector<double> object, direct, raw, ratios;
  for (int round = 0; round < scaled(15, 7); ++round) {
    object.push_back(object_us<T>(packed, times));
    direct.push_back(direct_us<T>(packed, times));
    raw.push_back(raw_us(packed, times));
    ratios.push_back(direct.back() / object.back());
  }
  row(name + fmt::format(", {} bytes packed", out.size()), 1000 * quantile(direct, 0.5), "ns",
      fmt::format("by objects {:.0f} ns, as raw bytes {:.0f} ns", 1000 * quantile(object, 0.5),
                  1000 * quantile(raw, 0.5)),
      quantile(ratios, 0.5), bar);
}

// 48,000 bytes of numbers in a call: as a list and as bytes. Both are under the size that goes by blob.
void calls() {
  bulkhead::host host;
  auto plugin = host.load(BULKHEAD_TEST_PLUGINS "/numbers.so");
  const std::vector<double> numbers(5333, 0.5);
  const bytes raw(48'000, 1);
  std::vector<double> list, plain;
  for (int i = 0; i < scaled(3000, 500); ++i) {
    plain.push_back(timed([&] { plugin.call<std::size_t>("size", raw); }));
    list.push_back(timed([&] { plugin.call<double>("sum", numbers); }));
  }
  row("call with a list of 5,333 doubles, p50", quantile(list, 0.5), "us",
      fmt::format("as many raw bytes {:.1f} us", quantile(plain, 0.5)), quantile(list, 0.5) / quantile(plain, 0.5));
}

void measure() {
  // What is measured is not how the heap gives back its end and gets it again.
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  ::mallopt(M_TOP_PAD, 16 << 20);
  unpacking("(int, int)", std::tuple(1, 2), 100'000, 0.7);
  unpacking("(text, double, optional)", std::tuple(std::string("sixteen bytes..."), 0.5, std::optional<int>(3)), 50'000,
            0.8);
  std::vector<double> doubles(1000);
  std::iota(doubles.begin(), doubles.end(), 0.5);
  unpacking("1,000 doubles", doubles, 500, 0.9);
  std::map<std::string, int> map;
  for (int i = 0; i < 100; ++i) map["key " + std::to_string(i)] = i;
  unpacking("map of 100 texts to ints", map, 300, 1.2);
  calls();
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, "encoding", measure); }
