// `bulkhead new`: what it writes is built out of the tree, as an author would, and its own CI script run.
#include "program.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

void check_language(const std::string& language, const std::string& source) {
  const scratch_folder folder;
  const auto plugin = folder / "first-one";
  const finished made = run({"bulkhead", "new", "first-one", "--lang", language, "--dir", plugin.string()});
  REQUIRE(made.status == 0);
  CHECK_THAT(made.out, Contains("cmake -S . -B build"));
  CHECK(std::filesystem::exists(plugin / source));
  CHECK(std::filesystem::exists(plugin / "README.md"));
  CHECK_THAT(contents(plugin / ".github/workflows/ci.yml"), Contains("ci/run"));

  const std::string tree = std::string("CMAKE_PREFIX_PATH=") + BULKHEAD_BUILD_TREE;
  // By Debian's own compilers, whatever newer ones there are beside them.
  const finished ci =
      program({"/usr/bin/env", tree, "PATH=/usr/bin:/bin", (plugin / "ci/run").string()}, "", folder.path).wait();
  INFO(ci.out << ci.err);
  REQUIRE(ci.status == 0);
  CHECK_THAT(ci.out, Contains("100% tests passed"));
  CHECK_THAT(contents(plugin / "build/check.xml"), Contains("failures=\"0\""));

  const std::string built = (plugin / "build/first-one.so").string();
  CHECK(run({"bulkhead", "call", built, "greet", "Ada"}).out == "\"Hello, Ada!\"\n");
  const finished wrong = run({"bulkhead", "call", built, "greet", "[1]"});
  CHECK(wrong.status != 0);
  CHECK_THAT(run({"bulkhead", "inspect", built}).out, Contains("first-one 0.1.0") && Contains("(str name) -> str"));
}

}  // namespace

TEST_CASE("a new plugin in C++ builds out of the tree, passes its tests and is found good") {
  check_language("c++", "first-one.cpp");
}

TEST_CASE("a new plugin in C builds out of the tree, passes its tests and is found good") {
  check_language("c", "first-one.c");
}

TEST_CASE("a new plugin in Rust builds with rustc alone, passes its tests and is found good") {
  check_language("rust", "first-one.rs");
}

TEST_CASE("without the compiler, new says what to install, and so does the build") {
  const scratch_folder folder;
  const std::string nothing = "PATH=" + folder.path.string(), plugin = (folder / "late").string();
  const finished made = run(
      {"/usr/bin/env", nothing, BULKHEAD_TEST_PROGRAMS "/bulkhead", "new", "late", "--lang", "rust", "--dir", plugin});
  CHECK(made.status == 0);
  CHECK_THAT(made.err, Contains("rustc is not installed") && Contains("apt-get install rustc cmake make"));
  const finished configured = run({"/usr/bin/env", nothing, "/usr/bin/cmake", "-S", plugin, "-B", plugin + "/build",
                                   "-DCMAKE_MAKE_PROGRAM=/usr/bin/make", "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF"});
  CHECK(configured.status != 0);
  CHECK_THAT(configured.err, Contains("rustc is not installed: apt-get install rustc"));
  CHECK(run({"bulkhead", "new", "first", "--lang", "c", "--dir", (folder / "first").string()}).err.empty());
}

TEST_CASE("new leaves a folder alone that is there, and says what to do") {
  const scratch_folder folder;
  const auto mine = write(folder / "stats/notes.txt", "mine");
  const finished made = program({"bulkhead", "new", "stats"}, "", folder.path).wait();
  CHECK(made.status == 2);
  CHECK_THAT(made.err, Contains("stats is there already") && Contains("--dir"));
  CHECK(contents(mine) == "mine");
  CHECK(std::distance(std::filesystem::directory_iterator(folder / "stats"), {}) == 1);

  std::filesystem::create_symlink("nowhere", folder / "link");
  CHECK(program({"bulkhead", "new", "link"}, "", folder.path).wait().status == 2);
}

TEST_CASE("new refuses names that can't be a plugin's, and languages that it does not know") {
  const scratch_folder folder;
  for (const char* name : {"", "Stats", "9lives", "-x", "a/b", "../up", "two words", "caf\xc3\xa9", "test", "all"}) {
    const finished made = program({"bulkhead", "new", "--", name}, "", folder.path).wait();
    INFO(name << ": " << made.err);
    CHECK(made.status == 2);
    CHECK_THAT(made.err, Contains("can't be named"));
  }
  CHECK(program({"bulkhead", "new", std::string(65, 'a')}, "", folder.path).wait().status == 2);
  const finished made = program({"bulkhead", "new", "stats", "--lang", "cobol"}, "", folder.path).wait();
  CHECK(made.status == 2);
  CHECK_THAT(made.err, Contains("c++, c and rust"));
  CHECK(std::filesystem::is_empty(folder.path));
}
