// The text plugin's core without any worker: groups, offsets, empty matches, replacements, and PCRE2's own errors.
#include "pattern.hpp"

#include <catch2/catch.hpp>

#include <ctime>

namespace text {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::Equals;
using strings = std::vector<std::string>;
using optional_strings = std::vector<std::optional<std::string>>;

constexpr std::size_t all = SIZE_MAX;

// "start-end:text" of each match.
strings found(std::string_view expression, std::string_view subject, std::string_view flags = "",
              std::size_t limit = all) {
  strings list;
  for (const match& one : pattern(expression, flags).search(subject, limit))
    list.push_back(std::to_string(one.start) + "-" + std::to_string(one.end) + ":" + one.text);
  return list;
}

strings split(std::string_view expression, std::string_view subject, std::size_t limit = all) {
  return pattern(expression, "").split(subject, limit);
}

std::string replaced(std::string_view expression, std::string_view subject, std::string_view replacement) {
  return pattern(expression, "").replace(subject, replacement);
}

TEST_CASE("text: a match has its groups by number and by name") {
  const auto matches = pattern("(?<key>\\w+)=(?<value>\\d+)?(;)?", "").search("a=1;bc=", all);
  REQUIRE(matches.size() == 2);
  CHECK(matches[0].text == "a=1;");
  CHECK(matches[0].groups == optional_strings{"a", "1", ";"});
  CHECK(matches[0].named.size() == 2);
  CHECK(matches[0].named.at("key") == "a");
  CHECK(matches[0].named.at("value") == "1");
  CHECK((matches[1].start == 4 && matches[1].end == 7));
  CHECK(matches[1].groups ==
        optional_strings{"bc", std::nullopt, std::nullopt});  // took no part, at the end of the list
  CHECK(matches[1].named.at("value") == std::nullopt);
}

TEST_CASE("text: an empty group is not a group that took no part") {
  const auto matches = pattern("(x*)(y)?", "").search("", all);
  REQUIRE(matches.size() == 1);
  CHECK(matches[0].groups == optional_strings{"", std::nullopt});
}

TEST_CASE("text: a name given to several groups is the one that matched") {
  const auto matches = pattern("(?J)(?<day>\\d+)\\.|(?<day>\\w+)day", "").search("12. Mon", all);
  REQUIRE(matches.size() == 1);
  CHECK(matches[0].named.at("day") == "12");
  CHECK(pattern("(?J)(?<day>\\d+)\\.|(?<day>\\w+)day", "").search("Monday", all).at(0).named.at("day") == "Mon");
}

TEST_CASE("text: offsets are bytes, characters are Unicode's") {
  CHECK(found(".", "aß€😀") == strings{"0-1:a", "1-3:ß", "3-6:€", "6-10:😀"});
  CHECK(found("\\w+", "Grüße, Ελλάδα") == strings{"0-7:Grüße", "9-21:Ελλάδα"});
  CHECK(found("ÄRGER", "ärger", "i") == strings{"0-6:ärger"});
  CHECK(found("b", std::string_view("a\0b", 3)) == strings{"2-3:b"});  // a zero byte is a character
}

TEST_CASE("text: a subject or a pattern that is not UTF-8 is an error") {
  CHECK_THROWS_WITH(pattern("a", "").search("a\xff", all), Contains("the match failed: UTF-8 error"));
  CHECK_THROWS_WITH(pattern("a", "").search("a a\xe2\x82", all), Contains("UTF-8 error: 1 byte missing at end"));
  CHECK_THROWS_WITH(pattern("\xc0\x80", ""), Contains("the pattern is not valid at offset 0: UTF-8 error"));
  CHECK_THROWS_WITH(pattern("\\C", ""), Contains("using \\C is disabled"));
  CHECK_THROWS_WITH(pattern("a", "").replace("\xff", "b"), Contains("the replacement failed: UTF-8 error"));
}

TEST_CASE("text: empty matches advance by a character") {
  CHECK(found("", "aß") == strings{"0-0:", "1-1:", "3-3:"});
  CHECK(found("x*", "axxß") == strings{"0-0:", "1-3:xx", "3-3:", "5-5:"});
  CHECK(found("\\b", "ab c") == strings{"0-0:", "2-2:", "3-3:", "4-4:"});
  CHECK(found("(?=(\\d\\d))", "123") == strings{"0-0:", "1-1:"});
  CHECK(found("$", "a\nb", "m") == strings{"1-1:", "3-3:"});
  CHECK(found("a\\K", "aab") == strings{"1-1:", "2-2:"});
}

TEST_CASE("text: no more matches than asked for") {
  CHECK(found("a", "aaaa", "", 2) == strings{"0-1:a", "1-2:a"});
  CHECK(found("a", "aaaa", "", 0).empty());
  CHECK(found("x", "aaaa").empty());
}

TEST_CASE("text: flags") {
  CHECK(found("A", "a").empty());
  CHECK(found("A", "a", "i").size() == 1);
  CHECK(found("^b", "a\nb").empty());
  CHECK(found("^b", "a\nb", "m").size() == 1);
  CHECK(found("a.b", "a\nb").empty());
  CHECK(found("a.b", "a\nb", "s").size() == 1);
  CHECK(found("a b # c", "ab", "x").size() == 1);
  CHECK(found("a+", "aa", "U") == strings{"0-1:a", "1-2:a"});
  CHECK(found("^A . b", "x\na\nB", "imsx") == strings{"2-5:a\nB"});
  CHECK_THROWS_WITH(pattern("a", "ig"), Equals("unknown flag 'g': i, m, s, x, U"));
}

TEST_CASE("text: a bad pattern gives PCRE2's message and the offset") {
  CHECK_THROWS_WITH(pattern("ab(c", ""), Equals("the pattern is not valid at offset 4: missing closing parenthesis"));
  CHECK_THROWS_WITH(pattern("a[z-b]", ""),
                    Equals("the pattern is not valid at offset 4: range out of order in character class"));
  CHECK_THROWS_WITH(pattern("*", ""),
                    Equals("the pattern is not valid at offset 0: quantifier does not follow a repeatable item"));
  CHECK_THROWS_WITH(pattern("ß\\", ""), Equals("the pattern is not valid at offset 3: \\ at end of pattern"));
  CHECK_THROWS_WITH(pattern(std::string(300, '('), ""), Contains("parentheses are too deeply nested"));
}

TEST_CASE("text: every match is replaced, with groups and case") {
  CHECK(replaced("b", "abcb", "x") == "axcx");
  CHECK(replaced("(\\w+)@(?<host>\\w+)", "me@here you@there", "${host}: $1") == "here: me there: you");
  CHECK(replaced("\\b(\\w)", "grüße an ålle", "\\U$1") == "Grüße An Ålle");
  CHECK(replaced("(a)|b", "ab", "<${1:+one:two}>") == "<one><two>");
  CHECK(replaced("", "ß", "-") == "-ß-");
  CHECK(replaced("x", "abc", "y") == "abc");
  CHECK(replaced("a", "", "y") == "");
  CHECK(pattern("a", "i").replace("Aa", "b") == "bb");
}

TEST_CASE("text: a result much longer than the subject is whole") {
  const std::string subject(1000, 'a'), replacement(500, 'x');
  CHECK(replaced("a", subject, replacement) == std::string(500'000, 'x'));
}

TEST_CASE("text: a bad replacement is PCRE2's error") {
  CHECK_THROWS_WITH(replaced("a", "a", "$9"), Equals("the replacement failed: unknown substring"));
  CHECK_THROWS_WITH(replaced("a", "a", "${1"), Contains("the replacement failed: "));
}

TEST_CASE("text: the parts between matches") {
  CHECK(split(",", "a,b,,c") == strings{"a", "b", "", "c"});
  CHECK(split(",", ",a,") == strings{"", "a", ""});
  CHECK(split("\\s*;\\s*", "a ;b; ß") == strings{"a", "b", "ß"});
  CHECK(split(",", "") == strings{""});
  CHECK(split("", "aß€") == strings{"a", "ß", "€"});
  CHECK(split("x*", "axxb") == strings{"a", "b"});
}

TEST_CASE("text: a limit is the number of splits") {
  CHECK(split(",", "a,b,c", 1) == strings{"a", "b,c"});
  CHECK(split(",", "a,b,c", 0) == strings{"a,b,c"});
  CHECK(split("x*", "axxbc", 2) == strings{"a", "b", "c"});
  CHECK(split("", "abc", 1) == strings{"a", "bc"});  // the empty match at the start splits nothing off
}

TEST_CASE("text: many matches in a long text take time in proportion to it") {
  auto cpu_seconds = [](std::size_t size) {
    const std::string subject(size, 'a');
    const std::clock_t begin = std::clock();
    CHECK(pattern("a", "").search(subject, all).size() == size);
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  const double small = cpu_seconds(5'000), large = cpu_seconds(80'000);
  CHECK(large < 64 * small);  // 16 times the text; checking the rest of it at each match would be 256 times the work
}

}  // namespace
}  // namespace text
