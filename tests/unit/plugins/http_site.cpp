// The plugin http without a worker: targets, types, ranges, dates, and what of a directory can be had.
#include "site.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

using namespace http_plugin;

namespace {

struct folder {
  std::filesystem::path path;
  folder() {
    std::string name = std::filesystem::temp_directory_path() / "bulkhead-site-XXXXXX";
    REQUIRE(::mkdtemp(name.data()));
    path = std::filesystem::path(name) / "root";
    std::filesystem::create_directories(path / "sub");
    std::filesystem::create_directories(path / ".git");
    std::filesystem::create_directories(path / ".well-known");
    for (const char* each : {"index.html", "sub/index.html", "a b.txt", ".git/config", ".well-known/x", "../secret"})
      std::ofstream(path / each) << "x";
    std::filesystem::create_symlink("../secret", path / "link");
    std::filesystem::create_directory_symlink("..", path / "up");
  }
  ~folder() { std::filesystem::remove_all(path.parent_path()); }
};

}  // namespace

TEST_CASE("http: a target becomes a path, or is refused") {
  CHECK(decoded_path("/a/b%20c?x=1") == "/a/b c");
  CHECK(decoded_path("/%41") == "/A");
  CHECK(decoded_path("/..a/b..") == "/..a/b..");
  for (const char* each : {"", "a", "*", "//host/x", "/../x", "/a/..", "/%2e%2e/x", "/a/%2E./x", "/a%00b", "/%4",
                           "/%zz", "http://host/"}) {
    CAPTURE(each);
    CHECK_FALSE(decoded_path(each));
  }
}

TEST_CASE("http: files below the root can be had, and nothing else") {
  const folder at;
  const site files(at.path.string());
  CHECK(files.find("/").status == 200);
  CHECK(files.find("/").type == "text/html; charset=utf-8");
  CHECK(files.find("/sub/").status == 200);
  CHECK(files.find("/sub").status == 301);
  CHECK(files.find("/a%20b.txt").size == 1);
  CHECK(files.find("/.well-known/x").status == 200);
  CHECK(files.find("/no").status == 404);
  CHECK(files.find("/index.html/x").status == 404);
  CHECK(files.find("/.git/config").status == 404);
  CHECK(files.find("/link").status == 404);
  CHECK(files.find("/up/secret").status == 404);
  CHECK(files.find("/../secret").status == 400);
  CHECK(files.find("/sub/%2e%2e/%2e%2e/secret").status == 400);
  CHECK_THROWS_AS(site((at.path / "none").string()), std::system_error);
}

TEST_CASE("http: ranges") {
  byte_range part{};
  CHECK(parse_range("bytes=0-0", 10, part) == range_result::part);
  CHECK((part.begin == 0 && part.end == 1));
  CHECK(parse_range("bytes=3-", 10, part) == range_result::part);
  CHECK((part.begin == 3 && part.end == 10));
  CHECK(parse_range("bytes=-4", 10, part) == range_result::part);
  CHECK((part.begin == 6 && part.end == 10));
  CHECK(parse_range("bytes=-40", 10, part) == range_result::part);
  CHECK((part.begin == 0 && part.end == 10));
  CHECK(parse_range("bytes=5-99999999999999", 10, part) == range_result::part);
  CHECK((part.begin == 5 && part.end == 10));
  for (const char* each : {"bytes=10-", "bytes=-0", "bytes=99-100"})
    CHECK(parse_range(each, 10, part) == range_result::unsatisfiable);
  CHECK(parse_range("bytes=-1", 0, part) == range_result::unsatisfiable);
  for (const char* each : {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-3", "bytes=0-1,3-4", "lines=1-2",
                           "bytes=99999999999999999999-"})
    CHECK(parse_range(each, 10, part) == range_result::whole);
}

TEST_CASE("http: dates and types") {
  CHECK(http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT");
  CHECK(type_of("a.b.css") == "text/css; charset=utf-8");
  CHECK(type_of("README") == "application/octet-stream");
  CHECK(type_of("x.") == "application/octet-stream");
}
