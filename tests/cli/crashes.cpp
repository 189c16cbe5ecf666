// What people see of a crash: its stack in the error of `bulkhead call`, the report that `bulkhead report` shows, and the
// same crash again by `bulkhead replay`.
#include "program.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <csignal>
#include <fstream>

#include <unistd.h>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// Reports in a folder, the oldest first.
std::vector<std::string> reports(const scratch_folder& folder) {
  std::vector<std::string> files;
  for (const auto& each : std::filesystem::directory_iterator(folder.path))
    if (each.path().extension() == ".json") files.push_back(each.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

finished crash(const scratch_folder& folder, std::vector<std::string> words) {
  words.insert(words.begin(), {"bulkhead", "call", "--crash-dir", folder.path.string()});
  return run(std::move(words));
}

finished replay(std::vector<std::string> words) {
  words.insert(words.begin(), {"bulkhead", "replay"});
  return run(std::move(words));
}

}  // namespace

TEST_CASE("a crash leaves a report that says all, for people and for programs") {
  const scratch_folder folder;
  const finished lost = crash(folder, {"chaos", "misbehave", "exit_3", "--env", "SECRET=geheim"});
  CHECK(lost.status == 13);
  REQUIRE(reports(folder).size() == 1);
  const std::string file = reports(folder)[0];
  CHECK_THAT(lost.err, Contains("report: " + file));

  const finished shown = run({"bulkhead", "report", file});
  CHECK(shown.status == 0);
  CHECK_THAT(shown.out, Contains("chaos exited with status 3 in method 'misbehave'\n") &&
                            Contains("  method    misbehave\n") && Contains("  request   8 bytes: [\"exit_3\"]\n") &&
                            Contains("chaos.so\n") && Contains("of CPU time"));
  CHECK_THAT(contents(file), !Contains("geheim"));

  const json object = json::parse(run({"bulkhead", "report", "--json", file}).out);
  CHECK(object["reason"] == "exited");
  CHECK(object["exit_code"] == 3);
  CHECK(object["method"] == "misbehave");

  // What a report that came from elsewhere says to a terminal.
  std::string text = contents(file);
  text.replace(text.find("\"message\": \"\""), 13, R"("message": "\u001b[2Jx")");
  write(file, text);
  CHECK_THAT(run({"bulkhead", "report", file}).out, Contains("[2Jx") && !Contains("\x1b"));
}

TEST_CASE("the reports in a folder are listed, the newest first, and one that is damaged hides none") {
  const scratch_folder folder;
  CHECK_THAT(run({"bulkhead", "report", folder.path.string()}).err, Contains("no crash reports"));
  for (const char* how : {"exit_0", "exit_3"}) CHECK(crash(folder, {"chaos", "misbehave", how}).status == 13);
  write(folder / "chaos-20000101T000000.000Z-1.json", "{");
  const finished listed = run({"bulkhead", "report", folder.path.string()});
  CHECK(listed.status == 3);
  CHECK_THAT(listed.err, Contains("chaos-20000101T000000.000Z-1.json is no crash report"));
  const auto newest = listed.out.find("status 3"), oldest = listed.out.find("status 0");
  CHECK(oldest != std::string::npos);
  CHECK(newest < oldest);
  const json all = json::parse(run({"bulkhead", "report", "--json", folder.path.string()}).out);
  REQUIRE(all.size() == 2);
  CHECK(all[0]["exit_code"] == 3);
  CHECK(all[1]["report"] == reports(folder)[1]);
}

TEST_CASE("a replay makes the same call to the same plugin, and tells when it ends otherwise") {
  const scratch_folder folder;
  CHECK(crash(folder, {"chaos", "die_of", R"({"a": [1, "x"]})"}).status == 13);
  const std::string file = reports(folder).at(0);
  const finished again = replay({file});
  INFO(again.err);
  CHECK(again.status == 13);
  CHECK_THAT(again.err, Contains("killed by SIGABRT in method 'die_of'"));
  const json object = json::parse(replay({"--json", file}).out);
  CHECK(object["outcome"] == "worker_lost");
  CHECK(object["report"]["signal"] == "SIGABRT");

  // Another method of the same plugin, with the same arguments: it does not crash.
  std::string text = contents(file);
  text.replace(text.find("\"die_of\""), 8, "\"echo\"");
  write(file, text);
  const finished well = replay({file});
  CHECK(well.status == 0);
  CHECK(well.out == "It does not crash now: 'echo' returns {\"a\":[1,\"x\"]}\n");
}

TEST_CASE("a call that streams is replayed as one, and that its streamed arguments are not kept is said") {
  const scratch_folder folder;
  CHECK(crash(folder, {"streaming", "die_after", "2"}).status == 13);
  const std::string file = reports(folder).at(0);
  const finished again = replay({file});
  INFO(again.err);
  CHECK(again.status == 13);
  CHECK_THAT(again.err, Contains("worker_lost: plugin streaming") && !Contains("note:"));

  // Other methods of the same plugin, with the same argument: they do not crash.
  const std::string text = contents(file);
  const auto replayed_as = [&](const std::string& method, std::vector<std::string> words) {
    std::string other = text;
    other.replace(other.find("\"die_after\""), 11, "\"" + method + "\"");
    words.push_back(write(file, other).string());
    return replay(std::move(words));
  };
  CHECK(replayed_as("count", {}).out == "It does not crash now: 'count' returns 2\n");
  const finished fed = replayed_as("scale", {});
  CHECK(fed.status == 0);
  CHECK_THAT(fed.err, Contains("note: 'scale' takes a stream of arguments, which is not kept"));
  const json object = json::parse(replayed_as("scale", {"--json"}).out);
  CHECK(object["outcome"] == "ok");
  CHECK_THAT(object["note"].get<std::string>(), Contains("stream of arguments"));
}

TEST_CASE("a worker that died before any call is started again by a replay") {
  const scratch_folder folder;
  const std::vector<std::string> broken = {"--env", "BULKHEAD_CHAOS_AT=init", "--env", "BULKHEAD_CHAOS=exit_3"};
  std::vector<std::string> words = {"chaos", "echo", "1"};
  words.insert(words.end(), broken.begin(), broken.end());
  CHECK(crash(folder, words).status == 16);
  const std::string file = reports(folder).at(0);
  CHECK_THAT(replay({file}).out, Contains("what it died of in phase init does not happen now"));
  words = broken;
  words.push_back(file);
  CHECK(replay(words).status == 16);
}

TEST_CASE("what can't be replayed is said to be so, with the reason") {
  const scratch_folder folder;
  const auto plugin = folder / "mine.so";
  std::filesystem::copy(std::string(BULKHEAD_TEST_PLUGINS) + "/chaos.so", plugin);
  CHECK(crash(folder, {plugin.string(), "misbehave", "exit_3"}).status == 13);
  const std::string file = reports(folder).at(0);
  const std::string request = file.substr(0, file.size() - 5) + ".msgpack";
  REQUIRE(std::filesystem::exists(request));
  CHECK(replay({file}).status == 13);

  SECTION("its plugin has changed") {
    std::filesystem::remove(plugin);
    std::filesystem::copy(std::string(BULKHEAD_TEST_PLUGINS) + "/echo.so", plugin);
    const finished refused = replay({file});
    CHECK(refused.status == 17);
    CHECK_THAT(refused.err, Contains("mine.so has the SHA-256 ") && Contains("it has changed since the crash"));
    CHECK(replay({"--in-process", file}).status == 17);
  }
  SECTION("its request was not kept") {
    std::filesystem::remove(request);
    const finished refused = replay({file});
    CHECK(refused.status == 3);
    CHECK_THAT(refused.err, Contains("the report has no request to replay"));
  }
  SECTION("the request had a descriptor") {
    write(request, std::string("\x92\x01\xd4\x01\x00", 5));
    CHECK_THAT(replay({file}).err, Contains("file descriptors among its arguments"));
  }
  SECTION("the request is no MessagePack") {
    write(request, "\xc1");
    CHECK(replay({file}).status == 3);
  }
  SECTION("it is no report") {
    CHECK_THAT(replay({request}).err, Contains("is no crash report"));
    CHECK_THAT(replay({(folder / "none").string()}).err, Contains("can't be read"));
  }
}

#ifndef BULKHEAD_SANITIZED  // a sanitizer has frames of its own, and reports a crash in its own way

TEST_CASE("a crash shows its stack with names, down to the plugin's own frames") {
  const scratch_folder folder;
  const finished lost = crash(folder, {"chaos", "misbehave", "segfault"});
  CHECK(lost.status == 13);
  const auto first = lost.err.find("    #0 "), second = lost.err.find("    #1 ");
  REQUIRE(first != std::string::npos);
  CHECK_THAT(lost.err.substr(0, first), Contains("stack, innermost first:\n"));
  CHECK_THAT(lost.err.substr(first, second - first), Contains("chaos.so  chaos_segfault at ") && Contains("faults.c:"));
  CHECK_THAT(lost.err.substr(second), Contains("misbehave(") && Contains(" more of the worker's own\n"));
  CHECK_THAT(lost.err, !Contains("bulkhead::session"));
  const json object = json::parse(run({"bulkhead", "call", "chaos", "misbehave", "segfault", "--json"}).out);
  CHECK(object["report"]["signal_code"] == "SEGV_MAPERR");
  CHECK(object["report"]["fault_address"] == "0x10");
  CHECK(object["report"]["stack"][0]["function"] == "chaos_segfault");
  CHECK_THAT(run({"bulkhead", "report", reports(folder).at(0)}).out,
             Contains("bulkhead::session::serve()") && Contains("  signal    SIGSEGV, SEGV_MAPERR, at address 0x10\n"));
}

TEST_CASE("an endless recursion is told in few lines, from its cause to its end") {
  const scratch_folder folder;
  const finished lost = crash(folder, {"chaos", "misbehave", "stack_overflow"});
  CHECK_THAT(lost.err, Contains("more of the same") && Contains("frames that were not recorded") &&
                           Contains("chaos_stack_overflow at") && Contains("misbehave("));
  CHECK(std::count(lost.err.begin(), lost.err.end(), '\n') < 40);
}

TEST_CASE("guessed frames are marked, and what that means is said") {
  const scratch_folder folder;
  const finished lost = crash(folder, {"chaos", "misbehave", "smashed_return"});
  CHECK_THAT(lost.err, Contains("? chaos.so") && Contains("its stack is damaged"));
}

TEST_CASE("a replay in this process crashes this process, and gdb shows where") {
  const scratch_folder folder;
  CHECK(crash(folder, {"chaos", "misbehave", "segfault"}).status == 13);
  const std::string file = reports(folder).at(0);
  CHECK(replay({"--in-process", file}).status == 128 + SIGSEGV);
  if (::access("/usr/bin/gdb", X_OK) != 0) {
    WARN("there is no gdb here");
    return;
  }
  const finished debugged = replay({"--gdb", file});
  CHECK_THAT(debugged.out + debugged.err, Contains("SIGSEGV") && Contains("chaos_segfault ("));
}

#endif
