// What authors debug plugins with: the call in the program itself, gdb, core files, a worker that waits for a debugger,
// AddressSanitizer.
#include "program.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>

#include <unistd.h>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;

namespace {

finished call(std::vector<std::string> words) {
  words.insert(words.begin(), {"bulkhead", "call"});
  return run(std::move(words));
}

}  // namespace

TEST_CASE("call --in-process makes the call without a worker") {
  CHECK(call({"--in-process", "echo", "add", "2", "3"}).out == "5\n");
#ifndef BULKHEAD_SANITIZED                                                             // which makes an exit of it
  CHECK(call({"--in-process", "chaos", "misbehave", "segfault"}).status == 128 + 11);  // the program's own
#endif
  const finished with_variable =
      call({"--in-process", "--env", "FLAW=fails to start", BULKHEAD_BAD_PLUGIN, "work", "1", "a"});
  CHECK_THAT(with_variable.err, Contains("no licence server"));
}

#ifndef BULKHEAD_SANITIZED  // whose own checks at the end can't be traced
TEST_CASE("call --gdb shows the stack of a crash, and passes results on") {
  const finished fine = call({"--gdb", "echo", "add", "2", "3"});
  INFO(fine.out << fine.err);
  CHECK_THAT(fine.out,
             Contains("5\n"));  // perhaps within a line of gdb's, all of which end with a bracket or a full stop
  const finished without_shell =
      run({"/usr/bin/env", "SHELL=/bin/false", std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead", "call", "--gdb",
           "echo", "add", "2", "3"});
  INFO(without_shell.out << without_shell.err);
  CHECK_THAT(without_shell.out, Contains("5\n"));
  const finished crashed = call({"--gdb", "chaos", "misbehave", "segfault"});
  INFO(crashed.out << crashed.err);
  CHECK_THAT(crashed.out, Contains("SIGSEGV") && Contains("misbehave"));
}

TEST_CASE("call --core leaves a core file of a crash") {
  const scratch_folder folder;
  const auto core = folder / "core";
  const finished crashed = call({"--core", core.string(), "chaos", "misbehave", "segfault"});
  INFO(crashed.out << crashed.err);
  REQUIRE(std::filesystem::exists(core));
  CHECK_THAT(contents(core).substr(0, 4), Contains("ELF"));
  std::filesystem::remove(core);
  CHECK_THAT(call({"--core=" + core.string(), "echo", "add", "2", "3"}).out, Contains("5"));
  CHECK(!std::filesystem::exists(core));
}
#endif

TEST_CASE("call --wait-for-debugger makes the call when one has attached to the worker") {
  if (::geteuid() != 0) {
    WARN("skipped: attaching to a worker takes root");
    return;
  }
  if (::access("/usr/bin/gdb", X_OK) != 0) {
    WARN("there is no gdb here");
    return;
  }
  // Its errors come where the test can wait for them.
  program waits(
      {"/bin/sh", "-c",
       std::string("exec ") + BULKHEAD_TEST_PROGRAMS + "/bulkhead call --wait-for-debugger echo add 2 3 2>&1"});
  const std::string text = waits.wait_for("waits for a debugger: ");
  const auto command = text.find("gdb ");
  REQUIRE(command != std::string::npos);
  const finished debugged =
      run({"/bin/sh", "-c",
           text.substr(command, text.find('\n', command) - command) +
               " -nx -batch -iex 'set debuginfod enabled off' -ex 'info functions ^bulkhead_define_plug'"});
  INFO(text << debugged.out << debugged.err);
  CHECK_THAT(debugged.out, Contains("bulkhead_define_plugin"));  // the plugin's, its regular expression aside
  const finished done = waits.wait();
  CHECK(done.status == 0);
  CHECK_THAT(done.out, EndsWith("\n5\n"));
}

TEST_CASE("call --wait-for-debugger says that it takes root, and does not wait") {
  std::vector<std::string> words = {
      std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead", "call", "--wait-for-debugger", "echo", "add", "2", "3"};
  if (::geteuid() == 0) words.insert(words.begin(), {"/usr/bin/setpriv", "--reuid", "65534", "--"});
  const finished refused = run(words);
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("takes root"));
}

TEST_CASE("call: what does not go together is refused") {
  CHECK(call({"--gdb", "--wait-for-debugger", "echo", "add", "2", "3"}).status == 2);
  CHECK(call({"--in-process", "--wait-for-debugger", "echo", "add", "2", "3"}).status == 2);
  CHECK(call({"--core", "x", "--wait-for-debugger", "echo", "add", "2", "3"}).status == 2);
}

#ifdef BULKHEAD_ASAN_PLUGIN
TEST_CASE("a plugin built with AddressSanitizer runs in a worker that is not, in the sandbox") {
  const std::string preload = std::string("BULKHEAD_WORKER_PRELOAD=") + BULKHEAD_LIBASAN;
  const auto at = [&](const char* index) {
    return run({"/usr/bin/env", preload, "ASAN_OPTIONS=detect_leaks=0",
                std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead", "call", "--memory", "0", BULKHEAD_ASAN_PLUGIN, "at",
                index});
  };
  CHECK(at("3").out == "9\n");
  const finished found = at("10");
  CHECK(found.status == 13);
  CHECK_THAT(found.err, Contains("Shadow byte legend"));

  const finished without = call({BULKHEAD_ASAN_PLUGIN, "at", "3"});
  CHECK(without.status == 16);
  CHECK_THAT(without.err, Contains("ASan runtime does not come first"));
}
#endif
