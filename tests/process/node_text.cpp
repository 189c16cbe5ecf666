// Text that JavaScript has and UTF-8 has not, from a real Node on either end.
#include "process_fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

TEST_CASE("half an emoji from a Node child arrives as U+FFFD, and costs neither the child nor its other messages") {
  const scratch_folder folder;
  const auto script =
      write_file(folder.path / "child.js",
                 "const half = '\U0001F600'.slice(0, 1);\n"
                 "for (const each of [half, 'a' + half + 'b', { [half]: '\U0001F600' }, '\\\\ud83d'])\n"
                 "  process.send(each);\n"
                 "process.on('message', (m) => { process.send({ echo: m }); process.disconnect(); });\n");
  mailbox<json> messages;
  launcher launch;
  process_options options;
  options.events.on_message = [&](const json& message, passed_handle) { messages.put(message); };
  const child node = launch.fork(script, {}, options);
  node.send("\U0001F600");
  CHECK(node.wait().code == 0);
  REQUIRE(messages.wait_for(5));
  CHECK(messages.values() == std::vector<json>{"\uFFFD",
                                               "a\uFFFD"
                                               "b",
                                               {{"\uFFFD", "\U0001F600"}},
                                               "\\ud83d",
                                               {{"echo", "\U0001F600"}}});
}

TEST_CASE("half an emoji from a Node parent arrives as U+FFFD") {
  const scratch_folder folder;
  const auto script = write_file(
      folder.path / "parent.js",
      "const child = require('child_process').fork('unused', [], { execPath: process.argv[2], execArgv: [] });\n"
      "const half = '\U0001F600'.slice(0, 1), seen = [];\n"
      "child.on('message', (m) => {\n"
      "  seen.push(m);\n"
      "  if (seen.length === 3) child.disconnect();\n"
      "});\n"
      "child.on('exit', () => console.log(JSON.stringify(seen.slice(1))));\n"
      "child.send(half);\n"
      "child.send([half + '\\\\ud83d']);\n");
  launcher launch;
  const auto done = launch.exec_file("node", {script, program("node_child")}, {.process = {.timeout = 60s}});
  INFO(done.err);
  REQUIRE(!done.error);
  CHECK(json::parse(done.out) == json{{{"echo", "\uFFFD"}}, {{"echo", {"\uFFFD\\ud83d"}}}});
}
