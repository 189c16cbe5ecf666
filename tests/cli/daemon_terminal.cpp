// `bulkhead top` on a terminal: what it draws, that it fits, and that it leaves the terminal as it was, however it ends.
#include "daemon.hpp"
#include "terminal.hpp"

#include <regex>
#include <sstream>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
using Catch::Matchers::StartsWith;

namespace {

// The lines of the next table that it draws, without styles.
std::vector<std::string> next_table(on_terminal& top) {
  top.read_until("\x1b[H");
  static const std::regex controls("\x1b\\[[0-9;?]*[A-Za-z]|\r");  // the terminal adds a \\r to each \\n
  std::istringstream table(std::regex_replace(top.read_until("\x1b[J"), controls, ""));
  std::vector<std::string> lines;
  for (std::string line; std::getline(table, line);) lines.push_back(line);
  return lines;
}

// The first table that `wanted` is true of.
template <class F>
std::vector<std::string> table(on_terminal& top, F wanted) {
  for (;;)
    if (auto lines = next_table(top); wanted(lines)) return lines;
}

on_terminal start_top(const running_daemon& daemon, unsigned short rows, unsigned short columns) {
  return on_terminal({"bulkhead", "top", "--socket", daemon.socket(), "--interval", "20ms"}, rows, columns);
}

void check_left_alone(on_terminal& top) {
  top.read_until("\x1b[?25h\x1b[?1049l");  // the cursor is there again, and what the screen showed before
  const termios now = top.modes();
  CHECK(now.c_lflag == top.before.c_lflag);
  CHECK(now.c_iflag == top.before.c_iflag);
  CHECK(now.c_oflag == top.before.c_oflag);
}

}  // namespace

TEST_CASE("top on a terminal is a table that is drawn again and again and fits, however the terminal's size changes") {
  const running_daemon daemon(plugin_table("echo", "instances = 2") + plugin_table("chaos"));
  on_terminal top = start_top(daemon, 4, 40);
  CHECK_THAT(top.read_until("\x1b[?1049h"), !Contains("\x1b[H"));  // a screen of its own, before all else
  for (int i = 0; i < 3; ++i) {
    const auto lines = next_table(top);
    REQUIRE(lines.size() == 4);
    CHECK(lines[0].starts_with("bulkhead "));
    CHECK(lines[2].starts_with("PLUGIN  STATE"));
    CHECK(lines[2].size() == 40);
    CHECK(lines[3].starts_with("chaos   running"));
    for (const auto& line : lines) CHECK(line.size() <= 40);
  }
  top.resize(24, 200);
  const auto wide = table(top, [](const auto& lines) { return lines.size() == 5; });
  CHECK(wide[2].ends_with("RSS"));
  CHECK(std::regex_match(wide[4], std::regex(R"(echo +running +2/2 +0\.0 +0\.0 .* [\d.]+ MiB)")));
  CHECK(daemon.run({"stop", "echo"}).status == 0);
  table(top, [](const auto& lines) { return lines.back().starts_with("echo    stopped"); });
}

TEST_CASE("top leaves the terminal as it was, by a key, by a signal, and when its daemon dies") {
  const running_daemon daemon(plugin_table("echo"));
  on_terminal top = start_top(daemon, 24, 80);
  next_table(top);
  CHECK((top.modes().c_lflag & (ECHO | ICANON)) == 0);
  SECTION("q") {
    top.type("xq");  // any other key changes nothing
    check_left_alone(top);
    CHECK(top.wait() == 0);
  }
  SECTION("Ctrl-C") {
    top.type("\x03");
    check_left_alone(top);
    CHECK(top.wait() == 0);
  }
  SECTION("SIGTERM") {
    top.signal(SIGTERM);
    check_left_alone(top);
    CHECK(top.wait() == 0);
  }
  SECTION("the daemon dies") {
    daemon.signal(SIGKILL);
    check_left_alone(top);
    CHECK_THAT(top.read_until("\n"), Contains("bulkhead"));  // the reason, where it stays to be read
    CHECK(top.wait() != 0);
  }
}

TEST_CASE(
    "the thumbnailer draws its progress into one line of the terminal, which is gone when it prints its summary") {
  const scratch_folder folder;
  on_terminal job(
      {"thumbnailer", BULKHEAD_TEST_IMAGES, "-o", (folder / "sheet").string(), "--no-compare", "--deadline", "100s"},
      24, 200);
  const std::string drawn = job.read_until("  files ");
  CHECK_THAT(drawn, StartsWith("\r█░"));
  CHECK_THAT(drawn, Contains("░ 1 of 28 files") && Contains("█ 28 of 28 files, 10 failed\x1b[K"));
  CHECK_THAT(drawn, EndsWith("\r\x1b[K  files "));
  CHECK(drawn.find('\n') == std::string::npos);
  job.read_until("index.html");
  CHECK(job.wait() == 0);
}
