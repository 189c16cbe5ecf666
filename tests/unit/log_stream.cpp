// A worker's output as log records: lines however the bytes come, cut, made fit to be shown, limited in rate.
#include "log_stream.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace bulkhead::testing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using strings = std::vector<std::string>;

// A stream and what came out of it; time stands still unless a test moves it.
struct capture {
  struct record {
    log_level level;
    std::string text;
    std::uint64_t dropped;
  };
  std::vector<record> records;
  ipc::time_point now{1h};
  log_stream stream{[this](log_level level, std::string text, std::uint64_t dropped) {
    records.push_back({level, std::move(text), dropped});
  }};

  strings texts() const {
    strings list;
    for (const record& one : records) list.push_back(one.text);
    return list;
  }
};

// The lines of an output that comes in these pieces.
strings lines(const strings& pieces) {
  capture log;
  for (const std::string& piece : pieces) log.stream.feed(piece, log.now);
  log.stream.finish(log.now);
  return log.texts();
}

TEST_CASE("log_stream: the lines are the same however the bytes come") {
  const std::string whole = "first\n\nthird ß €\r\nlast";
  const strings expected = {"first", "", "third ß €", "last"};
  CHECK(lines({whole}) == expected);
  for (std::size_t at = 0; at <= whole.size(); ++at) CHECK(lines({whole.substr(0, at), whole.substr(at)}) == expected);
  strings bytes;
  for (const char byte : whole) bytes.emplace_back(1, byte);
  CHECK(lines(bytes) == expected);
}

TEST_CASE("log_stream: a line is handed on as soon as it ends, not before") {
  capture log;
  log.stream.feed("one\ntw", log.now);
  CHECK(log.texts() == strings{"one"});
  log.stream.feed("o", log.now);
  CHECK(log.records.size() == 1);
  log.stream.feed("\n", log.now);
  CHECK(log.texts() == strings{"one", "two"});
  CHECK(log.records[0].level == log_level::info);
}

TEST_CASE("log_stream: a last line without a newline is handed on at the end, once") {
  CHECK(lines({"a\nb"}) == strings{"a", "b"});
  CHECK(lines({"a\n"}) == strings{"a"});
  CHECK(lines({""}).empty());
  CHECK(lines({"a\r"}) == strings{"a"});
  capture log;
  log.stream.feed("end", log.now);
  log.stream.finish(log.now);
  log.stream.finish(log.now);
  CHECK(log.texts() == strings{"end"});
}

TEST_CASE("log_stream: CRLF ends a line, a CR elsewhere is shown") {
  CHECK(lines({"a\r\nb\r", "\nc\n"}) == strings{"a", "b", "c"});
  CHECK(lines({"10%\r20%\n"}) == strings{"10%\\x0d20%"});
  CHECK(lines({"a\r\r\n"}) == strings{"a\\x0d"});
}

TEST_CASE("log_stream: an overlong line is cut once and its rest is skipped") {
  const std::string start = "begins ", tail(10'000, 'x');
  for (const strings& pieces : {strings{start + tail + "\nnext\n"}, strings{start, tail, "\nnext\n"},
                                strings{start + tail, tail, tail + "\nnext", "\n"}}) {
    const strings got = lines(pieces);
    REQUIRE(got.size() == 2);
    CHECK(got[0].size() <= log_stream::line_limit);
    CHECK(got[0].size() > log_stream::line_limit - 8);
    CHECK(got[0].starts_with("begins xxx"));
    CHECK(got[0].ends_with("xxx..."));
    CHECK(got[1] == "next");
  }
  CHECK(lines({tail}).size() == 1);  // also when it never ends
  const std::string fits(log_stream::line_limit, 'y');
  CHECK(lines({fits + "\n"}) == strings{fits});
}

TEST_CASE("log_stream: memory for a line that never ends is bounded") {
  capture log;
  for (int i = 0; i < 100; ++i) log.stream.feed(std::string(1 << 20, 'x'), log.now);
  log.stream.finish(log.now);
  CHECK(log.records.size() == 1);
  CHECK(log.stream.tail().size() <= log_stream::tail_limit + 1);
}

TEST_CASE("log_stream: what is not UTF-8 or moves a terminal is written out") {
  CHECK(lines({"a\xff\xc3(b\n"}) == strings{"a\\xff\\xc3(b"});
  CHECK(lines({"\x1b[2Jgone\x07\n"}) == strings{"\\x1b[2Jgone\\x07"});
  CHECK(lines({"nul\0.\n"s}) == strings{"nul\\x00."});
  CHECK(lines({"\xc2\x9b"
               "2J\n"}) == strings{"\\xc2\\x9b"
                                   "2J"});                               // a C1 control
  CHECK(lines({"\xe2\x82\n\xac\n"}) == strings{"\\xe2\\x82", "\\xac"});  // a newline ends a character, too
  CHECK(lines({"tab\there\n"}) == strings{"tab\there"});
  const strings long_one = lines({std::string(5000, '\xff') + "\n"});  // four times as long when written out
  REQUIRE(long_one.size() == 1);
  CHECK(long_one[0].size() <= log_stream::line_limit);
}

TEST_CASE("log_stream: a flood is dropped and counted, and the count comes with the next line") {
  capture log;
  const std::string line(1023, 'x');  // and its newline
  for (int i = 0; i < 1000; ++i) log.stream.feed(line + "\n", log.now);
  CHECK(log.records.size() == 64);  // a burst of 64 KiB
  CHECK(log.stream.dropped() == 936);
  for (const auto& record : log.records) CHECK(record.dropped == 0);

  log.now += 31'250us;  // room for two lines
  for (int i = 0; i < 5; ++i) log.stream.feed(line + "\n", log.now);
  REQUIRE(log.records.size() == 66);
  CHECK(log.records[64].dropped == 936);
  CHECK(log.records[65].dropped == 0);
  CHECK(log.stream.dropped() == 939);

  log.now += 1h;  // the allowance does not grow past one burst
  for (int i = 0; i < 100; ++i) log.stream.feed(line + "\n", log.now);
  CHECK(log.records.size() == 66 + 64);
  CHECK(log.records[66].dropped == 3);
}

TEST_CASE("log_stream: empty lines are a flood, too") {
  capture log;
  log.stream.feed(std::string(200'000, '\n'), log.now);
  CHECK(log.records.size() == log_stream::bytes_per_second);
  CHECK(log.stream.dropped() == 200'000 - log_stream::bytes_per_second);
}

TEST_CASE("log_stream: lines dropped at the very end are told of") {
  capture log;
  log.stream.feed(std::string(70'000, '\n'), log.now);
  const std::size_t before = log.records.size();
  log.stream.finish(log.now);
  REQUIRE(log.records.size() == before + 1);
  CHECK(log.records.back().dropped == 70'000 - log_stream::bytes_per_second);
  CHECK(log.records.back().level == log_level::warning);
  CHECK(log.records.back().text == "the last lines of its output were too many and were dropped");
  log.stream.finish(log.now);
  CHECK(log.records.size() == before + 1);
}

TEST_CASE("log_stream: the tail is the last lines, dropped ones included") {
  capture log;
  log.stream.feed("early\n" + std::string(200'000, '\n'), log.now);
  for (int i = 0; i < 500; ++i) log.stream.feed("line " + std::to_string(i) + "\n", log.now);
  const std::string tail = log.stream.tail();
  CHECK(tail.size() <= log_stream::tail_limit);
  CHECK(tail.size() > log_stream::tail_limit - 16);
  CHECK(tail.ends_with("line 498\nline 499\n"));
  CHECK(tail.find("early") == std::string::npos);
}

TEST_CASE("log_stream: a record of its own does not disturb a line in pieces") {
  capture log;
  log.stream.feed("half a", log.now);
  log.stream.record(log_level::error, "from the log function", log.now);
  log.stream.feed(" line\n", log.now);
  CHECK(log.texts() == strings{"from the log function", "half a line"});
  CHECK(log.records[0].level == log_level::error);
  CHECK(log.records[1].level == log_level::info);
}

TEST_CASE("log_stream: a record can't pass for several") {
  capture log;
  log.stream.record(log_level::warning, "one\r\n[other plugin] two\n", log.now);
  log.stream.record(log_level::warning, "", log.now);
  CHECK(log.texts() == strings{"one", "[other plugin] two", ""});
  for (const auto& record : log.records) CHECK(record.level == log_level::warning);
}

TEST_CASE("log_stream: a record of many lines is limited and counted like other output") {
  capture log;
  log.stream.record(log_level::info, std::string(1'000'000, '\n') + "the end", log.now);
  CHECK(log.records.size() == log_stream::bytes_per_second);
  CHECK(log.stream.dropped() == 1'000'001 - log_stream::bytes_per_second);
  log.now += 1s;
  log.stream.record(log_level::info, "later", log.now);
  CHECK(log.records.back().text == "later");
  CHECK(log.records.back().dropped == 1'000'001 - log_stream::bytes_per_second);
}

TEST_CASE("log_stream: lines come whole from several threads") {
  capture log;
  std::vector<std::thread> threads;
  for (const char letter : {'a', 'b', 'c', 'd'})
    threads.emplace_back([&log, letter] {
      for (int i = 0; i < 100; ++i) log.stream.record(log_level::info, std::string(100, letter), log.now);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(log.records.size() == 400);
  for (const auto& record : log.records) CHECK(record.text == std::string(100, record.text[0]));
}

}  // namespace
}  // namespace bulkhead::testing
