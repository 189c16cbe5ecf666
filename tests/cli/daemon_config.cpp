// The configuration of `bulkhead run`: every mistake is told, with its line and what is allowed, before anything starts.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

finished run_config(const scratch_folder& folder, const std::string& text) {
  return run({"bulkhead", "run", write(folder / "c.toml", text).string()});
}

}  // namespace

TEST_CASE("all mistakes of a configuration are told at once, a line each, and nothing starts") {
  const scratch_folder folder;
  const finished done = run_config(folder, R"(socket = "d.sock"
colour = "red"
metrics = "0.0.0.0:80"
drain = "soon"
allow_users = ["nobody-of-this-name"]
[clients]
calls = 0
frame = "16 MB"
[plugins.bad]
[plugins."a.b"]
file = "/nowhere/x.so"
[plugins.chaos]
file = "/nowhere/chaos.so"
instances = "two"
sha256 = "12"
policy = { profile = "lax" }
grants = ["connect:http"]
[plugins.chaos.supervision]
restart = "always"
backoff = { jitter = 2.0 }
[plugins.chaos.lanes]
ring = 5000
[plugins.chaos.blobs]
memory = "8 GiB"
threshold = 3
)");
  CHECK(done.status == 2);
  CHECK(done.out.empty());
  CHECK_FALSE(std::filesystem::exists(folder / "d.sock"));
  CHECK_FALSE(std::filesystem::exists(folder / "d.sock.lock"));
  const std::string at = (folder / "c.toml").string() + ":";
  for (const char* each :
       {"2: there is no key colour; allowed: allow_users, ",
        "3: metrics is \"0.0.0.0:80\"; allowed: \"127.0.0.1:PORT\"", "4: drain is 'soon'; allowed: a time such as",
        "5: allow_users: there is no user", "7: clients.calls is 0; allowed: a whole number from 1 to",
        "8: clients.frame is '16 MB'; allowed: bytes, or", "9: plugins.bad has no 'file'",
        "10: plugins.a.b is no name for a plugin; allowed: ", "10: plugins.a.b: there is no file /nowhere/x.so",
        "12: plugins.chaos: there is no file",
        "14: plugins.chaos.instances is 'two'; allowed: a whole number from 1 to", "15: plugins.chaos.sha256: allowed",
        "16: plugins.chaos.policy: profile:lax is not strict, files", "17: plugins.chaos.grants: connect:http is not",
        "19: plugins.chaos.supervision.restart is 'always'; allowed: \"permanent\", \"transient\", \"temporary\"",
        "20: plugins.chaos.supervision.backoff.jitter is 2", "22: plugins.chaos.lanes.ring: allowed is a power of two",
        "24: plugins.chaos.blobs.memory: allowed is \"4GiB\" or less", "25: plugins.chaos.blobs.threshold: allowed is"})
    CHECK_THAT(done.err, Contains(at + each));
  CHECK(std::count(done.err.begin(), done.err.end(), '\n') == 19);
}

TEST_CASE("what is no TOML, no file, or has no plugins is one clear error") {
  const scratch_folder folder;
  CHECK_THAT(run_config(folder, "socket = \n").err, Contains("c.toml:1: "));
  CHECK_THAT(run_config(folder, "socket = \"d.sock\"\n").err, Contains("there are no plugins"));
  const finished missing = run({"bulkhead", "run", (folder / "missing.toml").string()});
  CHECK(missing.status == 2);
  CHECK_THAT(missing.err, Contains("missing.toml"));
}

TEST_CASE("a directory of plugins is served whole, with defaults, and tables for what differs") {
  const scratch_folder plugins;
  for (const char* each : {"echo", "chaos"})
    std::filesystem::copy_file(std::string(BULKHEAD_TEST_PLUGINS) + "/" + each + ".so",
                               plugins / (std::string(each) + ".so"));
  const running_daemon daemon("plugin_directory = \"" + plugins.path.string() + "\"\n" + R"(
[defaults]
instances = 2
environment = ["A=default"]
[plugins.echo]
enabled = false
[plugins.chaos]
instances = 1
[plugins.again]
file = ")" + (plugins / "chaos.so").string() +
                              "\"\n");
  CHECK(daemon.status()["plugins"].size() == 2);
  CHECK(daemon.plugin("again")["instances"] == 2);
  CHECK(daemon.plugin("chaos")["instances"] == 1);
  CHECK(daemon.call({"again.environment", "A"}).out == "\"default\"\n");
}

TEST_CASE("a plugin that can't be loaded does not keep the others from being served") {
  const scratch_folder folder;
  const auto broken = write(folder / "broken.so", "no plugin at all");
  const running_daemon daemon(plugin_table("echo") + "[plugins.broken]\nfile = \"" + broken.string() + "\"\n");
  CHECK(daemon.call({"echo.add", "1", "2"}).out == "3\n");
  CHECK(daemon.plugin("broken")["state"] == "failed");
  CHECK_THAT(daemon.run({"ps"}).out, Contains("broken: plugin"));
  CHECK(daemon.run({"restart", "broken"}).status != 0);
}

TEST_CASE("the example in docs/daemon.md is a configuration that works") {
  std::string text = contents(BULKHEAD_SOURCE_DIR "/docs/daemon.md");
  const auto begin = text.find("```toml\n") + 8;
  text = text.substr(begin, text.find("```", begin) - begin);
  const scratch_folder plugins;
  for (const char* each : {"image", "text"})
    std::filesystem::copy_file(std::string(BULKHEAD_TEST_PLUGINS) + "/" + each + ".so",
                               plugins / (std::string(each) + ".so"));
  const auto replace = [&text](const std::string& what, const std::string& with) {
    const auto at = text.find(what);
    REQUIRE(at != std::string::npos);
    text.replace(at, what.size(), with);
  };
  replace("socket = \"/run/bulkhead/daemon.sock\"\n", "");
  replace("/usr/local/lib/bulkhead/plugins", plugins.path.string());
  replace("127.0.0.1:9464", "127.0.0.1:0");
  replace("\"www-data\"", "\"root\"");
  const running_daemon daemon(text);
  CHECK(daemon.plugin("image")["serving"] == 2);
  CHECK(daemon.plugin("text")["state"] == "running");
}
