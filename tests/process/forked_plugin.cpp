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

TEST_CASE("a forked plugin's handles come with its results and events if they are granted, and else as errors") {
  const scratch_folder folder;
  std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
  const std::string fifo = folder / "fifo", file = write_file(folder / "file", "text");
  REQUIRE(::mkfifo(fifo.c_str(), 0644) == 0);
  const unique_fd held(::open(fifo.c_str(), O_RDWR | O_CLOEXEC));  // the plugin need not wait for a writer
  const std::string places = "read:" + folder.path.string();
  launcher launch;
  conversation with;
  const child plugin =
      launch.fork(plugin_path("guest"), {"--memory", "0", "--grant", places, "--grant", "handles"}, with.options());
  with.message(0);
  const json reference = {{"$ext", 1}, {"data", "AA=="}};
  // The kind of what came with this message; "no message" if that did not come.
  const auto kind_with = [&](const json& message) -> std::string_view {
    const auto is_it = [&](const received& each) { return each.message == message; };
    if (!with.messages.wait([&](const auto& all) { return std::any_of(all.begin(), all.end(), is_it); }))
      return "no message";
    const auto all = with.messages.values();
    const auto found = std::find_if(all.begin(), all.end(), is_it);
    return to_string(found->handle ? found->handle->kind() : handle_kind::none);
  };
  const auto error = [](const char* text) { return json{{"code", "plugin_error"}, {"message", text}}; };
  plugin.send({{"id", 1}, {"method", "open_file"}, {"params", {fifo}}});
  CHECK(kind_with({{"id", 1}, {"result", reference}}) == "pipe");
  plugin.send({{"id", 2}, {"method", "emit_file"}, {"params", {fifo}}});
  CHECK(kind_with({{"event", "file"}, {"value", {fifo, reference}}}) == "pipe");
  plugin.send({{"id", 3}, {"method", "open_file"}, {"params", {file}}});
  const auto refused = "a handle of the kind file can't be sent to Node, which would abort, or take no handle after it";
  CHECK(kind_with({{"id", 3}, {"error", error(refused)}}) == "none");
  plugin.send({{"id", 4}, {"method", "emit_file_twice"}, {"params", {fifo}}});
  CHECK(kind_with({{"event", "twice"}, {"error", error("2 handles, where a message takes one")}}) == "none");

  conversation without;
  const child ungranted = launch.fork(plugin_path("guest"), {"--memory", "0", "--grant", places}, without.options());
  without.message(0);
  ungranted.send({{"id", 1}, {"method", "open_file"}, {"params", {fifo}}});
  CHECK(without.message(1)["error"]["code"] == "plugin_error");
  CHECK(without.message(1)["error"]["message"].get<std::string>().find("does not grant handles") != std::string::npos);
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
