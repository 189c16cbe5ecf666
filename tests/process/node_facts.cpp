// What Node does on its channel that its own scripts bring about seldom: with real Node.
#include "node_fixture.hpp"

#include <future>

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

TEST_CASE("what Node has written of a message when it ends is dropped, and all before it has come") {
  launcher launch;
  conversation with;
  const child node =
      node_with(launch, with.options(), "process.send(1); require('fs').writeSync(3, '2\\n{\"a\":'); process.exit(0)");
  CHECK(node.wait().code == 0);
  REQUIRE(with.events.wait_for(4));
  CHECK(with.events.values() == std::vector<std::string>{"spawn", "disconnect", "exit 0", "close"});
  REQUIRE(with.messages.values().size() == 2);
  CHECK(with.message(0) == 1);
  CHECK(with.message(1) == 2);
}

TEST_CASE("a Node child that does not listen to its parent ends when it has nothing else to do") {
  launcher launch;
  conversation with;
  CHECK(node_with(launch, with.options(), "process.send('once')").wait().code == 0);
  CHECK(with.message(0) == "once");
}

TEST_CASE("messages of Node's own kind that are unknown are nobody's") {
  launcher launch;
  conversation with;
  const child node =
      node_with(launch, with.options(), "process.send({cmd: 'NODE_UNKNOWN', ack: 1}); process.send({cmd: 'NODE_'})");
  CHECK(node.wait().code == 0);
  REQUIRE(with.events.wait_for(4));
  REQUIRE(with.messages.values().size() == 1);
  CHECK(with.message(0) == json{{"cmd", "NODE_"}});
}

TEST_CASE("Node is told that its sockets are not taken, tries again, gives up, and goes on") {
  launcher launch;
  conversation with;
  process_options options = with.options();
  options.policy = policy::program().memory_limit(0).threads(64).allow_syscalls("unix-sockets");
  options.streams = {stdio::null(), stdio::pipe(), stdio::pipe()};
  const child node = node_with(launch, options,
                               "process.on('message', (m, socket) => {\n"
                               "  process.send('before');\n"
                               "  process.send('it', socket);\n"
                               "  process.send('after', () => process.disconnect());\n"
                               "})");
  int both[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
  const unique_fd ours(both[0]);
  node.send(1, passed_handle(unique_fd(both[1])));
  const std::string errors = rest_of(node.err());
  INFO(errors);
  CHECK(node.wait().code == 0);
  REQUIRE(with.events.wait_for(4));
  CHECK(with.messages.values().size() == 2);
  CHECK(with.message(0) == "before");
  CHECK(with.message(1) == "after");
  CHECK(errors.find("Handle did not reach the receiving process correctly") != std::string::npos);
}

TEST_CASE("send says that a Node child that is busy has too much to read, and completes once it has read") {
  launcher launch;
  conversation with;
  const child node = node_with(launch, with.options(),
                               "process.on('message', (m) => {\n"
                               "  if (m !== 'wait') return m === 'last' && process.disconnect();\n"
                               "  process.send('waiting');\n"
                               "  require('fs').readSync(0, Buffer.alloc(1));\n"
                               "})");
  CHECK(node.send("wait"));
  CHECK(with.message(0) == "waiting");
  CHECK(node.send(std::string(1000, 'x')));
  CHECK(!node.send(std::string(1 << 20, 'x')));
  CHECK(!node.send(1));
  auto written = node.async_send("last", {}, boost::asio::use_future);
  CHECK(written.wait_for(50ms) == std::future_status::timeout);
  node.in().close();
  CHECK_NOTHROW(written.get());
  CHECK(node.wait().code == 0);
}

TEST_CASE("Node is told to wait, too, when what it sends is not read") {
  launcher launch;
  conversation with;
  process_options options = with.options();
  std::promise<void> go_on;
  options.events.on_message = [held = go_on.get_future().share()](const json&, passed_handle) { held.wait(); };
  const child node = node_with(launch, options,
                               "process.once('message', () => {\n"
                               "  let n = 0;\n"
                               "  while (process.send('x'.repeat(10000)) && n < 1000) ++n;\n"
                               "  console.log(n);\n"
                               "})");
  node.send("begin");
  const int sent = std::stoi(line_of(node.out()));
  go_on.set_value();
  CHECK(sent < 1000);
  CHECK(node.wait().code == 0);
}
