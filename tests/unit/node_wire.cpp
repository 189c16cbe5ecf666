// What comes over Node's channel, line by line.
#include "process/node_wire.hpp"

#include <catch2/catch.hpp>

using bulkhead::node::parse_line;

TEST_CASE("half of a surrogate pair in a line of Node's is U+FFFD, and all other text is as it was") {
  const std::string replaced = "\uFFFD", smile = "\U0001F600";
  CHECK(parse_line(R"("\ud83d")") == replaced);
  CHECK(parse_line(R"("\uDE00")") == replaced);
  CHECK(parse_line(R"("a\ud83d\ud83d\ude00b\ude00")") == "a" + replaced + smile + "b" + replaced);
  CHECK(parse_line(R"("\ud83dA")") == replaced + "A");
  CHECK(parse_line(R"("\ud83d\u0041")") == replaced + "A");
  CHECK(parse_line(R"({"\udfff":["\ud800"]})") == nlohmann::json{{replaced, {replaced}}});
  CHECK(parse_line(R"("\\ud83d \\\\ud83d \\\ud83d")") == R"(\ud83d \\ud83d \)" + replaced);
  CHECK(parse_line(R"("\u00e9\n\u001f\ufffd\uffff")") == "\u00e9\n\x1f\ufffd\uffff");
  for (const char* broken :
       {R"("\u")", R"("\ud83")", R"("\ud8-1")", R"("\ud83d)", R"("\ud83d\")", R"("\ud83d\u12")", "\\"})
    CHECK_THROWS_AS(parse_line(broken), std::runtime_error);
}
