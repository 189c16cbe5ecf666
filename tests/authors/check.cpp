// `bulkhead check` finds each of a set of plugins that are bad on purpose, by the check that is about it, and passes the
// good ones.
#include "program.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// The words that name the plugin with this flaw, see CMakeLists.txt.
std::vector<std::string> bad(const std::string& flaw) {
  const std::string folder = BULKHEAD_BAD_PLUGINS, own = folder + "/bad_" + flaw + ".so";
  if (std::filesystem::exists(own)) return {own};
  return {folder + "/bad.so", "--env", "FLAW=" + flaw};
}

struct checked {
  int status = -1;
  json report;
  std::string err;
};

// With fewer calls than usual: these plugins are bad at once.
checked check(const std::vector<std::string>& plugin, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"bulkhead", "check", "--json",     "--cases", "100",
                                    "--calls",  "2000",  "--deadline", "300ms"};
  words.insert(words.end(), plugin.begin(), plugin.end());
  words.insert(words.end(), more.begin(), more.end());
  const finished done = run(words);
  INFO(done.out << done.err);
  REQUIRE((done.status == 0 || done.status == 1));
  return {done.status, json::parse(done.out), done.err};
}

const json& named(const json& report, const std::string& name) {
  for (const json& each : report["checks"])
    if (each["check"] == name) return each;
  static const json none;
  return none;
}

// The flaw is found by this check, in words that hold `text`, and no other check fails.
void finds(const std::string& flaw, const std::string& name, const std::string& text,
           const std::vector<std::string>& also = {}) {
  const checked done = check(bad(flaw));
  INFO(done.report.dump(1));
  CHECK(done.status == 1);
  CHECK(done.report["passed"] == false);
  CHECK_THAT(named(done.report, name)["failures"].dump(), Contains(text));
  for (const json& each : done.report["checks"])
    if (each["check"] != name && std::find(also.begin(), also.end(), each["check"]) == also.end())
      CHECK(each["failures"].empty());
}

void warns(const std::string& flaw, const std::string& name, const std::string& text) {
  const checked done = check(bad(flaw), {"--skip", "leaks"});
  INFO(done.report.dump(1));
  CHECK(done.status == 0);
  CHECK_THAT(named(done.report, name)["warnings"].dump(), Contains(text));
  CHECK(check(bad(flaw), {"--skip", "leaks", "--strict"}).status == 1);
}

void passes(const std::vector<std::string>& plugin) {
  const checked done = check(plugin);
  INFO(done.report.dump(1));
  CHECK(done.status == 0);
  CHECK(done.report["passed"] == true);
  CHECK(done.report["checks"].size() == 11);
  for (const json& each : done.report["checks"]) CHECK(each["failures"].empty());
}

}  // namespace

TEST_CASE("check passes good plugins") {
  passes({"echo"});
  passes({"text"});
  passes({"image"});
  passes({"lua"});
  passes({"sqlite"});
  passes({"zstd"});
  passes({"http"});
  passes(bad(""));
  passes(bad("honours stop"));
  passes(bad("asks_right"));
}

TEST_CASE("check finds what crashes or exits for some arguments, and makes the call again") {
  finds("crashes", "arguments", "SIGSEGV");
  finds("exits", "arguments", "3");
  const json report = check(bad("crashes"), {"--skip", "leaks"}).report;
  const std::string text = named(report, "arguments")["failures"][0];
  const auto at = text.find("--reproduce ") + 12;
  const std::string seed = text.substr(at, text.find(')', at) - at);
  const checked again = check(bad("crashes"), {"--reproduce", seed});
  CHECK(again.status == 1);
  CHECK_THAT(named(again.report, "arguments")["failures"].dump(), Contains("SIGSEGV"));
  CHECK(check(bad(""), {"--reproduce", seed}).status == 0);
}

TEST_CASE("check finds a decoder that believes what a file says of itself") {
  const checked done = check({"fragile"}, {"--skip", "leaks"});
  CHECK(done.status == 1);
  CHECK_THAT(named(done.report, "arguments")["failures"].dump(), Contains("'decode' worker_lost"));
}

TEST_CASE("check finds symbols that are exported, or that nobody has") {
  finds("exports", "file", "a_helper_for_all");
  const checked done = check(bad("unresolved"));
  CHECK(done.status == 1);
  CHECK_THAT(named(done.report, "file")["failures"].dump(), Contains("nobody_has_this"));
  CHECK_THAT(named(done.report, "start")["failures"].dump(), Contains("nobody_has_this"));
}

TEST_CASE("check finds an executable stack, a library that is not there, and a run path that no worker has") {
  finds("executable_stack", "file", "executable stack", {"start"});  // which no worker may have
  finds("text_relocations", "file", "relocations in its code", {"start"});
  const checked done = check(bad("lacks_library"));
  CHECK(done.status == 1);
  CHECK_THAT(named(done.report, "file")["failures"].dump(), Contains("libgone.so"));
  warns("run_path", "file", "/nowhere");
}

TEST_CASE("check finds what does not start, and says why, once") {
  finds("fails to start", "start", "no licence server");
  const std::string text = named(check(bad("fails to start")).report, "start")["failures"][0];
  CHECK(text.find("no licence server") == text.rfind("no licence server"));
}

TEST_CASE("check finds a plugin without a manifest, and one for another ABI") {
  finds("no_manifest", "start", "manifest");
  finds("other_abi_in_manifest", "start", "ABI version 99");
  finds("other_abi_in_entry", "start", "ABI version 99");
}

TEST_CASE("check finds leaks of memory, descriptors, threads, blobs and answers") {
  finds("leaks memory", "leaks", "memory");
  finds("leaks little", "leaks", "leaks memory");
  finds("leaks descriptors", "leaks", "leaks descriptors");
  finds("leaks blobs", "leaks", "blobs");
  finds("leaks mappings", "leaks", "KiB resident");
  finds("leaks threads", "leaks", "leaks threads");
  finds("leaks answers", "leaks", "answers (release_answer())");
}

TEST_CASE("check finds a small leak with the number of calls that it makes unless it is told") {
  std::vector<std::string> words = {"bulkhead", "check", "--cases", "20"};
  for (const std::string& each : bad("leaks little")) words.push_back(each);
  const finished done = run(words);
  CHECK(done.status == 1);
  CHECK_THAT(done.out, Contains("failed  leaks") && Contains("leaks memory"));
}

TEST_CASE("check finds a method that lets an exception out") { finds("throws", "arguments", "lets an exception out"); }

TEST_CASE("check finds methods that go on after their deadline or their cancellation") {
  finds("ignores stop", "deadlines", "after its deadline", {"cancellation"});
  CHECK_THAT(named(check(bad("ignores stop"), {"--skip", "leaks"}).report, "cancellation")["failures"].dump(),
             Contains("after it was cancelled"));
  finds("dies cancelled", "cancellation", "SIGSEGV");
}

TEST_CASE("check finds a call that is never answered") {
  const checked done = check(bad("never_answers"));
  CHECK(done.status == 1);
  CHECK_THAT(named(done.report, "deadlines")["failures"].dump(), Contains("'work'"));
}

TEST_CASE("check finds answers that are no values, or not of the type that was promised") {
  finds("answers_garbage", "arguments", "not one MessagePack value", {"host-use"});
  finds("answers_other_type", "arguments", "not int");
  finds("takes_anything", "arguments", "forbids");
  finds("takes_more", "arguments", "forbids (too many arguments)");
  finds("no_signature", "methods", "takes a number");
}

TEST_CASE("check finds a plugin that says it is thread-safe and is not") {
  finds("races", "threads", "another result");
}

TEST_CASE("check finds uses of a call that is over, answers given twice, and threads that outlive the plugin") {
  finds("uses a call late", "host-use", "answered already", {"leaks", "life"});  // it has too many threads, too
  finds("answers twice", "host-use", "answered already");
  finds("lives on", "host-use", "after destroy()");
}

TEST_CASE("check finds ends that are no good ones, and a state that can't be taken over") {
  finds("dies at the end", "life", "SIGSEGV");
  finds("hangs at the end", "life", "destroy()");
  finds("forgets", "life", "can't make sense of it");
  CHECK_THAT(named(check(bad("forgets"), {"--skip", "leaks"}).report, "life")["failures"].dump(),
             Contains("it can't be reloaded"));
}

TEST_CASE("check finds a plugin that does not come back when its worker was killed in a call") {
  std::filesystem::remove("/var/tmp/bulkhead-test-lock");
  finds("leaves_lock", "life", "after its worker was killed in a call: 'work' ends with plugin_error", {"permissions"});
  CHECK(std::filesystem::remove("/var/tmp/bulkhead-test-lock"));
}

TEST_CASE("check finds what a plugin needs and does not ask for, and the reverse") {
  finds("needs file", "permissions", "read:/etc/hostname");
  finds("needs network", "permissions", "connect:");
  finds("asks_for_nonsense", "start", "fly:/moon");
  warns("asks_too_much", "permissions", "read:/usr/share/zoneinfo");
}

TEST_CASE("check warns of a missing licence and of methods without a doc, --strict makes that fail") {
  warns("no_licence", "start", "licence");
  warns("has no doc", "methods", "undocumented");
}

TEST_CASE("check reports for people and as JUnit's XML") {
  const scratch_folder folder;
  const auto file = (folder / "report.xml").string();
  const finished done = run({"bulkhead", "check", bad("exports")[0], "--skip", "leaks", "--junit", file});
  CHECK(done.status == 1);
  CHECK_THAT(done.out, Contains("failed  file") && Contains("passed  start") && Contains("a_helper_for_all"));
  const std::string xml = contents(file);
  CHECK_THAT(xml, Contains("<testsuite name=\"bulkhead check bad\" tests=\"10\" failures=\"1\"") &&
                      Contains("<failure message=\"it exports more than bulkhead_entry: a_helper_for_all") &&
                      Contains("<skipped message=\"it gets one call at a time"));
}

TEST_CASE("check writes XML that parsers take, whatever the plugin says") {
  const scratch_folder folder;
  const auto file = (folder / "report.xml").string();
  for (const char* flaw : {"answers_long_text", "fails oddly"}) {
    std::vector<std::string> words = {"bulkhead", "check", "--skip", "leaks", "--cases", "20", "--junit", file};
    for (const std::string& each : bad(flaw)) words.push_back(each);
    INFO(flaw);
    CHECK(run(words).status == 1);
    const finished parsed =
        run({"/usr/bin/env", "python3", "-c",
             "import sys, xml.etree.ElementTree as t; print(len(t.parse(sys.argv[1]).findall('testcase')))", file});
    INFO(parsed.err << contents(file));
    CHECK(parsed.status == 0);
    CHECK(std::stoi(parsed.out) > 1);
  }
}

#ifdef BULKHEAD_ASAN_PLUGIN
TEST_CASE("check finds nothing wrong with the file of a plugin built with AddressSanitizer") {
  const finished done = run({"/usr/bin/env", std::string("BULKHEAD_WORKER_PRELOAD=") + BULKHEAD_LIBASAN,
                             "ASAN_OPTIONS=detect_leaks=0", std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead", "check",
                             "--json", "--memory", "0", "--cases", "10", "--skip", "leaks", BULKHEAD_ASAN_PLUGIN});
  INFO(done.out << done.err);
  const json report = json::parse(done.out);
  CHECK(named(report, "file")["failures"].empty());
  CHECK(named(report, "start")["failures"].empty());
  CHECK_THAT(named(report, "arguments")["failures"].dump(), Contains("worker_lost"));
}
#endif

TEST_CASE("check: the same seed makes the same calls") {
  const auto told = [](const char* seed) {
    return named(check(bad("crashes"), {"--seed", seed, "--skip", "leaks"}).report, "arguments").at("failures");
  };
  CHECK(told("7") == told("7"));
  CHECK(told("7") != told("8"));
}

TEST_CASE("check refuses what it can't make sense of") {
  CHECK(run({"bulkhead", "check", "echo", "--skip", "everything"}).status == 2);
  CHECK(run({"bulkhead", "check", "echo", "--cases", "0"}).status == 2);
  CHECK(run({"bulkhead", "check", "no-such-plugin"}).status == 2);
  const scratch_folder folder;
  const finished done = run({"bulkhead", "check", write(folder / "text.so", "no library").string()});
  CHECK(done.status == 1);
  CHECK_THAT(done.out, Contains("not an ELF file"));
}
