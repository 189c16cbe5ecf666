// The plugin zstd in a real worker; what it writes is read by the real library, and the reverse.
#include "fixture.hpp"

#include <zstd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

using namespace bulkhead;
using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

bytes sample(std::size_t size) {
  bytes made(size);
  for (std::size_t i = 0; i < size; ++i) made[i] = static_cast<std::uint8_t>((i * i >> 7) & 0x3f);
  return made;
}

bytes packed_by_the_library(const bytes& data) {
  bytes made(ZSTD_compressBound(data.size()));
  made.resize(ZSTD_compress(made.data(), made.size(), data.data(), data.size(), 1));
  return made;
}

bytes unpacked_by_the_library(const bytes& data, std::size_t size) {
  bytes made(size);
  const std::size_t got = ZSTD_decompress(made.data(), made.size(), data.data(), data.size());
  REQUIRE(!ZSTD_isError(got));
  made.resize(got);
  return made;
}

}  // namespace

TEST_CASE("zstd compresses and decompresses as the library does") {
  host host;
  const plugin zstd = host.load(plugin_path("zstd"));
  for (const std::size_t size : {0u, 1u, 1000u, 3'000'000u}) {
    const bytes data = sample(size);
    const auto small = zstd.call<bytes>("compress", data);
    CHECK(unpacked_by_the_library(small, size) == data);
    CHECK(zstd.call<bytes>("decompress", small) == data);
    CHECK(zstd.call<bytes>("decompress", packed_by_the_library(data)) == data);
  }
  CHECK(zstd.call<bytes>("compress", sample(100'000), 19).size() < 50'000);
}

TEST_CASE("zstd compresses a blob where the application wrote it, and answers with one in shared memory") {
  host host;
  const plugin zstd = host.load(plugin_path("zstd"));
  std::mt19937 random(1);
  bytes data(1'000'000);
  for (std::uint8_t& each : data) each = static_cast<std::uint8_t>(random());
  shared_blob in = zstd.make_blob(data.size());
  std::copy(data.begin(), data.end(), in.writable().begin());
  const auto small = zstd.call<shared_blob>("compress", in);
  std::ifstream maps("/proc/self/maps");
  const std::string mapped((std::istreambuf_iterator<char>(maps)), {});
  CHECK_THAT(mapped, Contains("memfd:bulkhead-arguments") && Contains("memfd:bulkhead-results"));
  CHECK(unpacked_by_the_library(small.copy(), data.size()) == data);
  const auto again = zstd.call<shared_blob>("decompress", small);
  CHECK(std::equal(data.begin(), data.end(), again.view().begin(), again.view().end()));
}

TEST_CASE("zstd streams in both directions at once, more than a window holds") {
  host host;
  const plugin zstd = host.load(plugin_path("zstd"));
  const bytes piece = sample(100'000);
  constexpr int pieces = 100;
  const auto pass = [&](const char* method, const std::vector<bytes>& in, bytes& out) {
    streaming_call call = zstd.open(method, msgpack::object());
    std::thread sender([&] {
      for (const bytes& each : in)
        if (!call.send(each)) return;
      call.close();
    });
    while (const auto next = call.next<bytes>()) out.insert(out.end(), next->begin(), next->end());
    sender.join();
    return call.finish().as<std::uint64_t>();
  };
  bytes small, plain;
  CHECK(pass("compress_stream", std::vector<bytes>(pieces, piece), small) == pieces * piece.size());
  std::vector<bytes> cut;  // at odd places
  for (std::size_t at = 0; at < small.size(); at += 777)
    cut.emplace_back(small.begin() + static_cast<std::ptrdiff_t>(at),
                     small.begin() + static_cast<std::ptrdiff_t>(std::min(small.size(), at + 777)));
  CHECK(pass("decompress_stream", cut, plain) == pieces * piece.size());
  REQUIRE(plain.size() == pieces * piece.size());
  CHECK(std::equal(piece.begin(), piece.end(), plain.end() - static_cast<std::ptrdiff_t>(piece.size())));
}

TEST_CASE("zstd: what stands for far more than it is stops at the limit") {
  host host;
  const plugin zstd = host.load(plugin_path("zstd"));
  const bytes bomb = packed_by_the_library(bytes(std::size_t{64} << 20));
  REQUIRE(bomb.size() < 10'000);
  const reply done = zstd.try_call("decompress", bomb, 1'000'000);
  CHECK(done.outcome() == outcome::plugin_error);
  CHECK_THAT(done.message(), Contains("limit of 1000000 bytes"));
}

TEST_CASE("zstd tells of damage, of data that is cut short, and of levels that there are none of") {
  host host;
  const plugin zstd = host.load(plugin_path("zstd"));
  const auto small = zstd.call<bytes>("compress", sample(10'000));
  const auto error = [&](const char* method, const auto&... arguments) {
    const reply done = zstd.try_call(method, arguments...);
    CHECK(done.outcome() == outcome::plugin_error);
    return done.message();
  };
  CHECK_THAT(error("decompress", bytes{1, 2, 3, 4, 5}), Contains("not valid"));
  CHECK_THAT(error("decompress", bytes{}), Contains("cut short"));
  for (std::size_t size = 1; size < small.size(); size += 13)
    CHECK_THAT(error("decompress", bytes(small.begin(), small.begin() + static_cast<std::ptrdiff_t>(size))),
               Contains("cut short"));
  bytes damaged = small;
  damaged[small.size() / 2] ^= 0x10;
  CHECK_THAT(error("decompress", damaged), Contains("not valid"));
  CHECK_THAT(error("compress", bytes{1}, 99), Contains("level has to be 1 to"));
}
