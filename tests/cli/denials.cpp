// `bulkhead call --explain` and `--learn`: what the sandbox denied, and the policy that would have allowed it.
#include "program.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

finished call(std::vector<std::string> words) {
  words.insert(words.begin(), {"bulkhead", "call"});
  return run(std::move(words));
}

// The part that is a policy file: from its heading to the next empty line.
std::string policy_in(const std::string& text) {
  const std::size_t begin = text.find("# policy.toml\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find("\n\n", begin) - begin + 1);
}

}  // namespace

TEST_CASE("explained, a child that was denied is shown with its method and its grant") {
  const finished done = call({"guest", "make_child", "spawn", "--explain"});
  CAPTURE(done.err);
  CHECK(done.out == "1\n");  // EPERM
  CHECK_THAT(done.err,
             Contains("clone(") && Contains("in method make_child") && Contains("--grant subprocesses would allow it"));
}

TEST_CASE("explained, what a child was denied is shown with its program") {
  const finished done = call({"guest", "socket_in_child", "--explain", "--grant", "subprocesses"});
  CAPTURE(done.err);
  CHECK_THAT(done.err, Contains("socket(AF_INET, SOCK_STREAM, 0)") && Contains("bulkhead-worker, process ") &&
                           Contains("--grant connect:PORT would allow it"));
}

TEST_CASE("explained, a port that is not granted is shown with its grant") {
  const finished done = call({"guest", "connect_to", "444", "false", "--explain", "--grant", "connect:443"});
  CAPTURE(done.err);
  CHECK(done.status != 0);
#if defined(__x86_64__)
  CHECK_THAT(done.err,
             Contains("127.0.0.1:444") && Contains("EACCES") && Contains("--grant connect:444 would allow it"));
#endif
}

TEST_CASE("explained, a file that is nowhere is no denial, and one that is there is") {
  const finished none = call({"guest", "read_file", "/nonexistent/foo", "--explain"});
  CAPTURE(none.err);
  CHECK(none.status != 0);
  CHECK_THAT(none.err, !Contains("/nonexistent"));
#ifndef BULKHEAD_SANITIZED  // whose runtime looks for files of its own
  CHECK_THAT(none.err, Contains("No denial was reported.") && Contains("system calls that are not granted"));
#endif
  const finished some = call({"guest", "read_file", "/etc/passwd", "--explain"});
  CAPTURE(some.err);
#if defined(__x86_64__)
  CHECK_THAT(some.err, Contains("--grant read:/etc/passwd would allow it"));
#endif
}

TEST_CASE("explained, it is said that files and programs are not reported where a plugin may have children") {
  const finished done = call({"guest", "run", "/bin/true", "--explain", "--grant", "subprocesses"});
  CAPTURE(done.err);
  CHECK(done.out == "126\n");
  CHECK_THAT(done.err, Contains("not files, programs and ports"));
}

TEST_CASE("what is learned of a plugin that starts programs is a policy and a manifest that let it") {
  const auto words = GENERATE(values<std::vector<std::string>>(
      {{"guest", "make_child", "spawn"}, {"guest", "make_child", "system"}, {"guest", "run", "/bin/true"}}));
  CAPTURE(words);
  std::vector<std::string> learning = words;
  learning.emplace_back("--learn");
  const finished learned = call(learning);
  CAPTURE(learned.err);
  CHECK(learned.status == 0);
  CHECK(learned.out == "0\n");
  CHECK_THAT(learned.err, Contains("subprocesses = true\n") && Contains("\"request=subprocesses\"") &&
                              !Contains("no policy grants"));

  const scratch_folder folder;
  std::vector<std::string> again = words;
  again.insert(again.end(), {"--policy", write(folder / "policy.toml", policy_in(learned.err)).string()});
  const finished done = call(again);
  CAPTURE(done.err);
  CHECK(done.status == 0);
  CHECK(done.out == "0\n");
}
