// Envelopes and errors as a hostile peer may send them.
#include "page.hpp"
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/scanner.hpp>

#include <catch2/catch.hpp>

namespace bulkhead::testing {

using namespace ipc;

TEST_CASE("envelopes that are none of the three forms are no messages") {
  int checked = 0;
  for (const auto& [name, frame] : vectors("refused")) {
    scanner scan;
    std::size_t used = 0;
    if (scan.feed(frame, used) != scanner::status::complete) continue;  // refused before it is looked into
    INFO(name);
    CHECK_FALSE(parse_message({frame.data(), used}));
    ++checked;
  }
  CHECK(checked >= 20);
}

TEST_CASE("an envelope cut short is no message, at whatever length") {
  for (const auto& [name, frame] : vectors("vectors"))
    for (std::size_t length = 0; length < std::min<std::size_t>(frame.size(), 5); ++length) {
      INFO(name << " cut at " << length);
      CHECK_FALSE(parse_message({frame.data(), length}));
    }
}

TEST_CASE("an error of any shape is read as one with a code and a text") {
  auto read = [](auto&& pack_it) {
    buffer out;
    packer pack(out);
    pack_it(pack);
    return parse_failure(out.view());
  };
  CHECK(read([](packer& p) { p.pack(7); }).message == "an error without a text");
  CHECK(read([](packer& p) { p.pack_map(0); }).code == outcome::plugin_error);
  CHECK(read([](packer& p) { p.pack_map(1).pack("code").pack("ok"); }).code == outcome::plugin_error);
  CHECK(read([](packer& p) { p.pack_map(1).pack("code").pack("no such outcome"); }).code == outcome::plugin_error);
  CHECK(read([](packer& p) { p.pack_map(1).pack("code").pack(3); }).code == outcome::plugin_error);
  CHECK(read([](packer& p) { p.pack_map(1).pack(3).pack("x"); }).message == "an error without a text");
  CHECK(read([](packer& p) { p.pack_map(1).pack("message").pack(std::string(100'000, 'x')); }).message.size() <= 4096);
  CHECK(read([](packer& p) { p.pack_map(1).pack("message").pack("a\x1b[31mred"); }).message == "a\\x1b[31mred");
  CHECK(read([](packer& p) { p.pack("only a text"); }).message == "only a text");
  CHECK(read([](packer& p) { p.pack_map(2).pack(3).pack("x").pack("message").pack("why"); }).message == "why");
  const auto full = read([](packer& p) {
    p.pack_map(3).pack("code").pack("overloaded").pack("data").pack(std::vector<int>{1, 2}).pack("message").pack("why");
  });
  CHECK(full.code == outcome::overloaded);
  CHECK(full.message == "why");
  CHECK(full.data == bytes_t{0x92, 1, 2});
  CHECK(parse_failure(bytes_t{0x81}).code == outcome::plugin_error);  // not even whole
}

TEST_CASE("text from a worker keeps valid UTF-8 and shows everything else as escapes") {
  CHECK(sanitised("plain\ttext\n") == "plain\ttext\n");
  CHECK(sanitised("gr\xc3\xbcn \xe2\x82\xac \xf0\x9f\x98\x80") == "gr\xc3\xbcn \xe2\x82\xac \xf0\x9f\x98\x80");
  CHECK(sanitised(std::string_view("\0\x07\x7f", 3)) == "\\x00\\x07\\x7f");
  CHECK(sanitised("\xc3") == "\\xc3");                             // cut off
  CHECK(sanitised("\xc0\xaf") == "\\xc0\\xaf");                    // overlong
  CHECK(sanitised("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
  CHECK(sanitised("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // past the end of Unicode
  CHECK(sanitised("\xc2\x9b"
                  "31m") == "\\xc2\\x9b31m");  // a C1 control: CSI
  CHECK(sanitised(std::string(100, 'x'), 20).size() <= 20);
  CHECK(sanitised(std::string(100, 'x'), 20).ends_with("..."));
  CHECK(sanitised(std::string(20, 'x'), 20) == std::string(20, 'x'));  // what fits is not cut
  CHECK(sanitised(std::string(21, 'x'), 20) == std::string(17, 'x') + "...");
  for (std::size_t size = 0; size < 20; ++size) {  // whatever is last, no limit is passed and no character halved
    CHECK(sanitised(std::string(size, 'x') + std::string(20, '\xff'), 20).size() <= 20);
    std::string euros;
    for (int i = 0; i < 7; ++i) euros += "\xe2\x82\xac";
    const std::string cut = sanitised(std::string(size, 'x') + euros, 20);
    CHECK(cut.size() <= 20);
    CHECK(cut.find('\\') == std::string::npos);
  }
}

}  // namespace bulkhead::testing
