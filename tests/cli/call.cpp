// `bulkhead call`: arguments from words and files, results as people and programs read them, one exit status for each
// outcome, Ctrl-C.
#include "program.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <csignal>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

finished call(std::vector<std::string> words, const std::string& input = "") {
  words.insert(words.begin(), {"bulkhead", "call"});
  return run(std::move(words), input);
}

// Starts a call that reads a named pipe to its end, and gives back the pipe once the method reads it.
int begin_reading(const std::filesystem::path& pipe) {
  const int end = ::open(pipe.c_str(), O_WRONLY | O_CLOEXEC);
  REQUIRE(end >= 0);
  // Far more than a pipe holds: when it is written, the method runs and reads.
  const std::string much(4u << 20, 'x');
  REQUIRE(::write(end, much.data(), much.size()) == static_cast<ssize_t>(much.size()));
  return end;
}

}  // namespace

TEST_CASE("words become arguments by the method's signature, and the result is JSON") {
  CHECK(call({"echo", "add", "2", "-3"}).out == "-1\n");
  CHECK(call({"echo", "echo", "hello"}).out == "\"hello\"\n");
  CHECK(call({"echo", "echo", R"({"a": [1, 2.5, null, true]})"}).out == "{\"a\":[1,2.5,null,true]}\n");
  CHECK(call({"echo", "size", "\"abc\""}).out == "3\n");
  CHECK(call({"echo", "echo", "--", "--json"}).out == "\"--json\"\n");
}

TEST_CASE("files and the standard input are bytes for a method, and results go to files") {
  const scratch_folder folder;
  const std::string image = std::string(BULKHEAD_TEST_IMAGES) + "/astronaut.jpg";
  const auto thumbnail = folder / "small.jpg";
  const finished made = call({"image", "thumbnail", "--in", image, "64", "--out", thumbnail.string()});
  CHECK(made.status == 0);
  CHECK(made.out.empty());
  CHECK(contents(thumbnail).substr(0, 3) == "\xff\xd8\xff");
  const auto info = json::parse(call({"image", "info", "--in", thumbnail.string(), "--json"}).out);
  CHECK(info["result"]["width"].get<int>() <= 64);

  CHECK(call({"echo", "size", "--in", "-"}, std::string(100'000, 'a')).out == "100000\n");
  CHECK(call({"echo", "size", "@" + image}).out == std::to_string(std::filesystem::file_size(image)) + "\n");
  const auto note = write(folder / "note", "of the file");
  CHECK(call({"chaos", "read_handle", "@" + note.string()}).out == "\"of the file\"\n");
  CHECK(call({"image", "thumbnail", "--in", image, "64", "--out", "-"}).out == contents(thumbnail));
}

TEST_CASE("as JSON, a result says outcome, value and time, and bytes come back as they were") {
  const finished done = call({"echo", "echo", R"({"$bin": "AAECAw=="})", "--json"});
  const json made = json::parse(done.out);
  CHECK(made["outcome"] == "ok");
  CHECK(made["result"] == json{{"$bin", "AAECAw=="}});
  CHECK(made["report"].is_null());
  CHECK(made["time_ms"].get<double>() > 0);
}

namespace {

struct expected_failure {
  std::vector<std::string> words;
  int status;
  std::string error;
};

const std::vector<expected_failure> failures = {
    {{"chaos", "misbehave", "exception"}, 1, "plugin_error: "},
    {{"chaos", "misbehave", "no such way"}, 1, "there is no kind of misbehaviour called 'no such way'"},
    {{"chaos", "sleep_ms", "100000", "--deadline", "50ms"}, 10, "timeout: no answer before the deadline"},
#ifndef BULKHEAD_SANITIZED  // a sanitizer reports it in its own way
    {{"chaos", "misbehave", "segfault"}, 13, "was killed by SIGSEGV (SEGV_MAPERR, address 0x10)"},
#endif
    {{"chaos", "misbehave", "exit_3"}, 13, "exited with status 3 in method 'misbehave'"},
    {{"chaos", "misbehave", "garbage_on_channel"}, 14, "protocol: "},
    {{"echo", "subtract", "1", "2"}, 17, "plugin 'echo' has no method 'subtract'; it has:\n  echo(any value) -> any"},
    {{"/bin/true", "echo", "1"}, 17, "not a bulkhead plugin: it has no manifest"},
};

}  // namespace

TEST_CASE("each outcome of a call has its exit status and one clear line") {
  const auto wanted = GENERATE(from_range(failures));
  CAPTURE(wanted.words);
  const finished done = call(wanted.words);
  CHECK(done.status == wanted.status);
  CHECK(done.out.empty());
  CHECK_THAT(done.err, Contains(wanted.error));

  std::vector<std::string> for_programs = wanted.words;
  for_programs.push_back("--json");
  const finished again = call(for_programs);
  CHECK(again.status == wanted.status);
  const json made = json::parse(again.out);
  CHECK(made["outcome"].is_string());
  CHECK(made["error"]["message"].is_string());
  if (wanted.status == 13) {
    CHECK(made["outcome"] == "worker_lost");
    CHECK(made["report"]["method"] == "misbehave");
    CHECK(made["report"]["plugin"] == "chaos");
  }
}

TEST_CASE("a plugin that takes too long to start is unavailable") {
  const finished done = call({"chaos", "echo", "1", "--timeout", "50ms", "--env", "BULKHEAD_CHAOS_AT=init", "--env",
                              "BULKHEAD_CHAOS=endless_loop"});
  CHECK(done.status == 16);
  CHECK_THAT(done.err, Contains("unavailable: ") && Contains("was not ready in time"));
}

TEST_CASE("what is wrong in a command line is said, with what would be right") {
  struct expected {
    std::vector<std::string> words;
    std::string error;
  };
  const auto wanted = GENERATE(values<expected>({
      {{"echo"}, "METHOD is required"},
      {{"nowhere", "echo", "1"}, "there is no plugin nowhere.so; searched:"},
      {{"./nowhere.so", "echo", "1"}, "there is no file ./nowhere.so"},
      {{"echo", "add", "1"}, "add"},
      {{"echo", "add", "1", "two"}, "int"},
      {{"echo", "add", "1", "2.5"}, "int"},
      {{"echo", "add", "1", "99999999999999999999"}, "int"},
      {{"echo", "echo", "1", "--deadline", "5"}, "expected a time such as 500ms, 5s or 2m, got '5'"},
      {{"echo", "echo", "1", "--memory", "much"}, "expected a size such as 256M or 1G, got 'much'"},
      {{"echo", "echo", "1", "--jason"}, "there is no option --jason"},
      {{"echo", "size", R"({"$bin": "AAE"})"}, "base64"},
      {{"echo", "echo", "1", "--json", "--out", "file"}, "--json and --out exclude each other"},
  }));
  CAPTURE(wanted.words);
  const finished done = call(wanted.words);
  CHECK(done.status == 2);
  CHECK(done.out.empty());
  CHECK_THAT(done.err, Contains(wanted.error));
}

TEST_CASE("files that can't be read or written are named, and that is an exit status of its own") {
  const finished unread = call({"echo", "size", "--in", "/nowhere/at/all"});
  CHECK(unread.status == 3);
  CHECK_THAT(unread.err, Contains("/nowhere/at/all"));
  const finished unwritten = call({"echo", "echo", "1", "--out", "/nowhere/at/all"});
  CHECK(unwritten.status == 3);
  CHECK_THAT(unwritten.err, Contains("/nowhere/at/all"));
}

TEST_CASE("the worker's log is shown when asked for, beside the result") {
  const finished quiet = call({"chaos", "misbehave", "stderr_lines"});
  const finished told = call({"chaos", "misbehave", "stderr_lines", "--log"});
  CAPTURE(told.err);
  CHECK(told.status == 0);
  CHECK(told.out == quiet.out);
  CHECK(told.err.size() > quiet.err.size());
}

TEST_CASE("Ctrl-C cancels the call, and what was printed stays whole") {
  const scratch_folder folder;
  const auto pipe = folder / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  program calling({"bulkhead", "call", "--json", "chaos", "read_handle", "@" + pipe.string()});
  const int end = begin_reading(pipe);
  calling.signal(SIGINT);
  const finished done = calling.wait();
  ::close(end);
  CHECK(done.status == 11);
  CHECK(json::parse(done.out)["outcome"] == "cancelled");
}

TEST_CASE("SIGTERM cancels like Ctrl-C, and no worker outlives the program") {
  const scratch_folder folder;
  const auto pipe = folder / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  program calling({"bulkhead", "call", "chaos", "read_handle", "@" + pipe.string()});
  const int end = begin_reading(pipe);
  calling.signal(SIGTERM);
  CHECK(calling.wait().status == 11);
  // The last reader of the pipe is gone with the worker.
  std::signal(SIGPIPE, SIG_IGN);
  CHECK(::write(end, "x", 1) == -1);
  CHECK(errno == EPIPE);
  ::close(end);
}

TEST_CASE("an output that nobody reads any more ends the program quietly") {
  const finished done = run({"/bin/sh", "-c",
                             std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead call chaos kinds | head -n 1; "
                                                                   "exec 2>&-; true"});
  CHECK(done.status == 0);
  CHECK(done.out == "[\n");
  CHECK(done.err.empty());
}

TEST_CASE("streamed results are printed as they come, each on its own line") {
  const finished lines = call({"text", "matches", "a1 b22", "[a-z](\\d+)"});
  CHECK(lines.err == "");
  CHECK(lines.out ==
        "{\"start\":0,\"end\":2,\"text\":\"a1\",\"groups\":[\"1\"],\"named\":{}}\n"
        "{\"start\":3,\"end\":6,\"text\":\"b22\",\"groups\":[\"22\"],\"named\":{}}\n");
  const finished objects = call({"text", "matches", "a1", "[a-z]", "--json"});
  std::istringstream each(objects.out);
  std::string item, last;
  std::getline(each, item);
  std::getline(each, last);
  CHECK(json::parse(item)["item"]["text"] == "a");
  CHECK(json::parse(last)["outcome"] == "ok");
  CHECK(call({"streaming", "count", "3"}).out == "0\n1\n2\n3\n");

  const finished failed = call({"streaming", "fail_after", "2"});
  CHECK(failed.out == "0\n1\n");
  CHECK(failed.status == 1);
  CHECK_THAT(failed.err, Contains("that was all"));
  CHECK(call({"text", "matches", "a", "a", "--out", "-"}).status == 2);
}

TEST_CASE("a stream of arguments is read from the standard input, a line for each") {
  CHECK(call({"streaming", "sum"}, "1\n2\n39").out == "42\n");
  CHECK(call({"streaming", "scale", "2"}, "1\n2\n").out == "2\n4\n");
  CHECK(call({"streaming", "first", "2"}, "a\nb\nc\n").out == "[\"a\",\"b\"]\n");
  const finished wrong = call({"streaming", "sum"}, "1\ntwo\n");
  CHECK(wrong.status == 2);
  CHECK_THAT(wrong.err, Contains("line 2 of the standard input: expected int, got 'two'"));
  CHECK(call({"streaming", "sum", "--in", "-"}, "1\n").status == 2);
}

TEST_CASE("a call that has enough of its arguments ends though the standard input goes on") {
  const scratch_folder folder;
  const auto pipe = folder / "lines";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  program running({"/bin/sh", "-c", "exec \"" BULKHEAD_TEST_PROGRAMS "/bulkhead\" call streaming first 1 < lines"}, "",
                  folder.path);
  const int end = ::open(pipe.c_str(), O_WRONLY | O_CLOEXEC);
  REQUIRE(::write(end, "one\n", 4) == 4);
  const finished done = running.wait();
  CHECK(done.out == "[\"one\"]\n");
  CHECK(done.status == 0);
  ::close(end);
}
