// What Node's own cluster expects of its primary, and what Node expects of a child that it passes sockets to: with real Node.
#include "node_fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

TEST_CASE("a server of a Node parent counts the connections that its child holds, and closes once they are closed") {
  launcher launch;
  const auto done =
      launch.exec_file("node", {scripts + "/sockets_parent.js", program("node_child")}, {.process = {.timeout = 60s}});
  INFO(done.err);
  REQUIRE(!done.error);
  const json result = json::parse(done.out);
  CHECK(result["seen"] == json{3, 2, "not with two", "not with one", "closed", {{"echo", "and you?"}}});
  CHECK(result["signal"] == nullptr);
}
