// The cursors of a lane beyond 2^32, where they begin anew: they are told in 32 bits, and bytes go on for as long as a
// worker lives.
#include "lane_pair.hpp"

#include <catch2/catch.hpp>

#include <random>

#ifndef BULKHEAD_SANITIZED  // it takes 4 GiB of copying
namespace bulkhead::testing {

using io = ipc::transport::io;

TEST_CASE("what crosses a lane beyond its first 4 GiB arrives, and a cursor from before makes no sense there") {
  constexpr std::size_t size = 16 << 10;
  constexpr std::uint64_t border = std::uint64_t{1} << 32;
  lane_pair pair(size);
  auto& theirs = pair.scribbled.control();
  auto host = pair.host();
  auto worker = pair.worker();
  std::vector<unique_fd> handles;
  bytes_t data(size);
  std::uint64_t sent = 1000;  // the border then lies within a message
  REQUIRE(worker->write(bytes_t(sent), {}, {}).bytes == sent);
  REQUIRE(host->read(data, handles, false).bytes == sent);
  for (; sent + size < border; sent += size)
    if (worker->write(data, {}, {}).bytes != size || host->read(data, handles, false).bytes != size)
      FAIL("nothing crosses any more after " << sent);
  REQUIRE(theirs.tail.load() == sent);

  std::mt19937 random(1);
  const auto any = [&](std::size_t bytes) {
    bytes_t out(bytes);
    for (auto& each : out) each = static_cast<std::uint8_t>(random());
    return out;
  };
  const auto arrives = [&](const bytes_t& expected) {
    bytes_t got(expected.size());
    CHECK(host->read(got, handles, false).bytes == got.size());
    CHECK(got == expected);
  };
  for (std::size_t i = 0; i < 10; ++i) {
    const bytes_t first = any(5000 + i), second = any(size - first.size());
    REQUIRE(worker->write(first, second, {}).bytes == size);
    REQUIRE(worker->write(first, {}, {}).status == io::would_block);
    arrives(first);
    REQUIRE(worker->write(first, {}, {}).bytes == first.size());
    arrives(second);
    arrives(first);
    sent += size + first.size();
  }
  CHECK(theirs.tail.load() == sent - border);
  theirs.tail = 0u - 16;
  CHECK(host->read(data, handles, false).status == io::violation);
}

}  // namespace bulkhead::testing
#endif
