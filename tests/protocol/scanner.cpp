// The scanner: whatever way bytes are cut, the same values come out, and limits hold while the bytes arrive.
#include "page.hpp"
#include <bulkhead/ipc/scanner.hpp>

#include <catch2/catch.hpp>

#include <cstring>
#include <random>

namespace bulkhead::testing {
namespace {

using namespace ipc;
using status = scanner::status;

// One of each kind of value, among them every kind of header.
bytes_t one_of_each() {
  bytes_t out = {0xdc, 0x00, 0x21};  // an array of 33
  auto add = [&](std::initializer_list<int> bytes) {
    for (const int byte : bytes) out.push_back(static_cast<std::uint8_t>(byte));
  };
  add({0x05});
  add({0xff});
  add({0xc0});
  add({0xc2});
  add({0xc3});
  add({0xa2, 'h', 'i'});
  add({0xd9, 1, 'x'});
  add({0xda, 0, 1, 'x'});
  add({0xdb, 0, 0, 0, 1, 'x'});
  add({0xc4, 1, 7});
  add({0xc5, 0, 1, 7});
  add({0xc6, 0, 0, 0, 1, 7});
  add({0xcc, 200});
  add({0xcd, 1, 2});
  add({0xce, 1, 2, 3, 4});
  add({0xcf, 1, 2, 3, 4, 5, 6, 7, 8});
  add({0xd0, 200});
  add({0xd1, 1, 2});
  add({0xd2, 1, 2, 3, 4});
  add({0xd3, 1, 2, 3, 4, 5, 6, 7, 8});
  add({0xca, 1, 2, 3, 4});
  add({0xcb, 1, 2, 3, 4, 5, 6, 7, 8});
  add({0xd4, 1, 0});
  add({0xd5, 9, 0, 0});
  add({0xd6, 9, 0, 0, 0, 0});
  add({0xc7, 1, 1, 0});
  add({0xc8, 0, 1, 9, 0});
  add({0xc9, 0, 0, 0, 1, 9, 0});
  add({0x81, 0x01, 0x90});
  add({0xde, 0, 1, 1, 2});
  add({0xdf, 0, 0, 0, 1, 1, 2});
  add({0xdd, 0, 0, 0, 1, 0x91, 0xc0});
  add({0xa0});
  return out;
}

status feed_all(scanner& scan, const bytes_t& bytes) {
  std::size_t used = 0;
  return scan.feed(bytes, used);
}

}  // namespace

TEST_CASE("a value is the same however its bytes are cut") {
  const bytes_t value = one_of_each();
  const std::size_t cut = GENERATE_COPY(range(std::size_t{0}, value.size() + 1));
  scanner scan;
  std::size_t used = 0, total = 0;
  auto result = scan.feed({value.data(), cut}, used);
  total += used;
  if (result == status::need_more) {
    CHECK(used == cut);
    bytes_t rest(value.begin() + static_cast<std::ptrdiff_t>(cut), value.end());
    rest.push_back(0x2a);  // of the next value: must not be taken
    result = scan.feed(rest, used);
    total += used;
  }
  CHECK(result == status::complete);
  CHECK(total == value.size());
  CHECK(scan.size() == value.size());
  CHECK(scan.handles() == 2);
}

TEST_CASE("a value is complete exactly at its last byte, fed one at a time") {
  const bytes_t value = one_of_each();
  scanner scan;
  for (std::size_t i = 0; i < value.size(); ++i) {
    std::size_t used = 0;
    const auto result = scan.feed({&value[i], 1}, used);
    CHECK(used == 1);
    CHECK(result == (i + 1 == value.size() ? status::complete : status::need_more));
  }
}

TEST_CASE("a promise larger than the frame limit is refused at its header, before any of it has come") {
  limits small;
  small.frame = 1000;
  const auto header = GENERATE(values<bytes_t>({{0xc6, 0, 0, 4, 0},
                                                {0xdb, 0xff, 0xff, 0xff, 0xff},
                                                {0xc5, 0x03, 0xe6},
                                                {0xdd, 0, 0, 4, 0},
                                                {0xdf, 0, 0, 2, 0},
                                                {0xdf, 0xff, 0xff, 0xff, 0xff},
                                                {0xc9, 0, 0, 4, 0, 5},
                                                {0xdc, 0x03, 0xe6},
                                                {0xda, 0x03, 0xe6}}));
  scanner scan(small);
  CHECK(feed_all(scan, header) == status::violation);
  CHECK(std::strlen(scan.violation()) > 0);
}

TEST_CASE("a value of exactly the frame limit passes and one byte more does not") {
  limits small;
  small.frame = 100;
  for (const std::size_t payload : {98u, 99u}) {
    bytes_t value = {0xc4, static_cast<std::uint8_t>(payload)};
    value.resize(2 + payload);
    scanner scan(small);
    CHECK(feed_all(scan, value) == (payload == 98 ? status::complete : status::violation));
  }
}

TEST_CASE("many small promises count together") {
  limits small;
  small.frame = 64;
  bytes_t nested;
  for (int i = 0; i < 6; ++i) nested.insert(nested.end(), {0xdc, 0, 12});  // 6 x 12 elements owed: more than 64 bytes
  scanner scan(small);
  CHECK(feed_all(scan, nested) == status::violation);
}

TEST_CASE("64 levels of nesting pass and 65 do not") {
  for (const std::size_t depth : {64u, 65u}) {
    bytes_t value(depth, 0x91);
    value.push_back(0xc0);
    scanner scan;
    CHECK(feed_all(scan, value) == (depth == 64 ? status::complete : status::violation));
  }
}

TEST_CASE("the byte that MessagePack never uses is refused wherever it stands") {
  for (const bytes_t& value : {bytes_t{0xc1}, bytes_t{0x92, 0x01, 0xc1}, bytes_t{0x81, 0xc1}}) {
    scanner scan;
    CHECK(feed_all(scan, value) == status::violation);
  }
}

TEST_CASE("random bytes end in a value, a violation or the wish for more, and never take more than was given") {
  std::mt19937 random(20260101);
  for (int round = 0; round < 20'000; ++round) {
    bytes_t noise(1 + random() % 64);
    for (auto& byte : noise) byte = static_cast<std::uint8_t>(random());
    scanner whole, pieces;
    std::size_t used = 0;
    const auto expected = whole.feed(noise, used);
    REQUIRE(used <= noise.size());
    auto result = status::need_more;
    std::size_t taken = 0;
    while (result == status::need_more && taken < noise.size()) {
      std::size_t one = 0;
      result = pieces.feed({&noise[taken], 1}, one);
      taken += one;
    }
    REQUIRE(result == expected);
    if (expected == status::complete) REQUIRE(taken == used);
  }
}

}  // namespace bulkhead::testing
