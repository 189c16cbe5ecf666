// Plugins that are forked: `bulkhead node` on Node's channel, with this side as its parent.
#include "node_fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

TEST_CASE("a forked plugin says that it is ready, answers calls and errors, outlives a crash, and ends when told") {
  conversation with;
  launcher launch;
  const child plugin = launch.fork(plugin_path("chaos"), {"--memory", "0"}, with.options());
  CHECK(with.message(0)["ready"]["id"] == "chaos");
  plugin.send({{"id", 1}, {"method", "echo"}, {"params", {"grüße"}}});
  CHECK(with.message(1) == json{{"id", 1}, {"result", "grüße"}});
  plugin.send({{"id", 2}, {"method", "no_such_method"}});
  CHECK(with.message(2)["error"]["code"] == "rejected");
  plugin.send({{"id", 3}, {"method", "die_of"}, {"params", {1}}});
  CHECK(with.message(3)["error"]["code"] == "worker_lost");
  plugin.send({{"id", 4}, {"method", "echo"}, {"params", {4}}});
  CHECK(with.message(4) == json{{"id", 4}, {"result", 4}});
  plugin.disconnect();
  CHECK(plugin.wait().code == 0);
}

TEST_CASE("a forked plugin that is not there says so and ends, and one is not forked under a policy of its parent's") {
  conversation with;
  launcher launch;
  process_options options = with.options();
  options.streams = {stdio::null(), stdio::null(), stdio::null()};
  const child missing = launch.fork("/no/such/plugin.so", {}, options);
  CHECK(with.message(0)["error"]["message"].get<std::string>().find("/no/such/plugin.so") != std::string::npos);
  CHECK(missing.wait().code == 2);
  CHECK_THROWS_AS(launch.fork(plugin_path("chaos"), {}, {.policy = policy()}), std::invalid_argument);
}

TEST_CASE("without the program bulkhead a plugin can't be forked, which the error says") {
  const scratch_folder folder;
  std::filesystem::create_directories(folder.path / "a/b/c/d");
  const auto worker = folder.path / "a/b/c/d/bulkhead-worker";
  std::filesystem::create_symlink(program("bulkhead-worker"), worker);
  launcher launch({.worker_path = worker});
  const auto error = error_of([&] { launch.fork(plugin_path("chaos")); });
  CHECK(error.code().value() == ENOENT);
  CHECK(std::string(error.what()).find((worker.parent_path() / "bulkhead").string() + ": execve") != std::string::npos);
}
