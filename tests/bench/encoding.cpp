// What it costs to pack and unpack arguments: into memory from where they are copied to the ring, beside straight into it; in
// a plugin's method (values taken where they lie, or by way of objects), and in a whole call, beside the same bytes as they
// are, copied or not.
#include "bench.hpp"
#include <bulkhead/host.hpp>
#include <bulkhead/ipc/lane.hpp>

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

double view_us(bytes_view packed_bytes, int times) {
  return timed([&] {
           for (int i = 0; i < times; ++i) {
             bytes_view value;
             if (!bulkhead::typed::take_all(packed_bytes, value)) throw std::logic_error("not taken");
             asm volatile("" : : "r"(value.data()) : "memory");
           }
         }) /
         times;
}

msgpack::sbuffer as_bytes(std::size_t size) {
  msgpack::sbuffer out;
  msgpack::packer<msgpack::sbuffer> packer(out);
  const std::string body(size, 'x');
  packer.pack_bin(static_cast<std::uint32_t>(size));
  packer.pack_bin_body(body.data(), static_cast<std::uint32_t>(size));
  return out;
}

bytes_view view(const msgpack::sbuffer& of) { return {reinterpret_cast<const std::uint8_t*>(of.data()), of.size()}; }

template <class T>
void unpacking(const std::string& name, const T& value, int times, double bar) {
  msgpack::sbuffer out;
  msgpack::pack(out, value);
  const bytes_view packed = view(out);
  const msgpack::sbuffer packed_bytes = as_bytes(out.size());
  std::vector<double> object, direct, raw, in_place, ratios;
  for (int round = 0; round < scaled(15, 7); ++round) {
    object.push_back(object_us<T>(packed, times));
    direct.push_back(direct_us<T>(packed, times));
    raw.push_back(raw_us(packed, times));
    in_place.push_back(view_us(view(packed_bytes), times));
    ratios.push_back(direct.back() / object.back());
  }
  row(name + fmt::format(", {} bytes packed", out.size()), 1000 * quantile(direct, 0.5), "ns",
      fmt::format("by objects {:.0f} ns, bytes copied {:.0f} ns, in place {:.1f} ns", 1000 * quantile(object, 0.5),
                  1000 * quantile(raw, 0.5), 1000 * quantile(in_place, 0.5)),
      quantile(ratios, 0.5), bar, steady);
}

// The sending end of a lane's ring, whose other side is never behind.
class ring {
 public:
  void write(const char* data, std::size_t size) { out_.put({reinterpret_cast<const std::uint8_t*>(data), size}); }
  void publish() {
    out_.publish();
    theirs_.control().head.store(mine_.control().tail.load());
  }

 private:
  static bulkhead::ipc::lane_memory memory() {
    return {bulkhead::ipc::lane_memory::make(bulkhead::ipc::lane_options{}.ring).get(), true};
  }
  bulkhead::ipc::lane_memory mine_ = memory(), theirs_ = memory();
  bulkhead::ipc::lane_writer out_{mine_, theirs_};
};

// As it is done, and as it could be if the length of what is packed, which a frame begins with, were known before.
template <class T>
void packing(const std::string& name, const T& value, int times) {
  ring to;
  std::vector<double> copied, straight;
  const auto repeated = [&](auto&& pack) {
    return timed([&] {
             for (int i = 0; i < times; ++i) pack();
           }) /
           times;
  };
  for (int round = 0; round < scaled(15, 7); ++round) {
    copied.push_back(repeated([&] {
      const bulkhead::packed_arguments packed = bulkhead::pack_arguments(value);
      const bytes_view all = packed.params.view();
      to.write(reinterpret_cast<const char*>(all.data()), all.size());
      to.publish();
    }));
    straight.push_back(repeated([&] {
      msgpack::packer<ring> packer(to);
      packer.pack_array(1);
      packer.pack(value);
      to.publish();
    }));
  }
  row("packed and copied into the ring: " + name, 1000 * quantile(copied, 0.5), "ns",
      fmt::format("packed straight into it {:.0f} ns", 1000 * quantile(straight, 0.5)), ratio(copied, straight));
}

// In a call: few values, and 48,000 bytes of numbers as a list, beside as many bytes that the plugin looks at where they lie.
// All are under the size that goes by blob.
void calls() {
  bulkhead::host host;
  auto plugin = host.load(BULKHEAD_TEST_PLUGINS "/numbers.so");
  const std::vector<double> numbers(5333, 0.5);
  const std::string text = "sixteen bytes...";
  const bytes few(28, 1), many(48'000, 1);
  std::vector<double> typed, small, list, copied, large;
  for (int i = 0; i < scaled(3000, 500); ++i) {
    small.push_back(timed([&] { plugin.call<std::size_t>("size", few); }));
    typed.push_back(timed([&] { plugin.call<std::size_t>("values", text, 0.5, 3); }));
    large.push_back(timed([&] { plugin.call<std::size_t>("size", many); }));
    copied.push_back(timed([&] { plugin.call<std::size_t>("copied", many); }));
    list.push_back(timed([&] { plugin.call<double>("sum", numbers); }));
  }
  const auto told = [](const std::string& what, const std::vector<double>& of, const std::vector<double>& to) {
    const double value = quantile(of, 0.5), floor = quantile(to, 0.5);
    row(what, value, "us", fmt::format("as many bytes in place {:.1f} us", floor), value / floor);
  };
  told("call with text, double and int, p50", typed, small);
  told("call with a list of 5,333 doubles, p50", list, large);
  told("call with 48,000 bytes that the plugin copies, p50", copied, large);
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
  packing("(int, int)", std::tuple(1, 2), 100'000);
  packing("1,000 doubles", doubles, 500);
  packing("map of 100 texts to ints", map, 300);
  packing("8 KiB of bytes", bytes(8192, 1), 2000);
  calls();
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, "encoding", measure); }
