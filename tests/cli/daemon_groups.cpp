// Groups of a daemon's plugins: they start, fail and change together.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <regex>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

std::string group_table(const std::string& strategy, const std::string& plugins, const std::string& more = "") {
  return "[groups.trio]\nstrategy = \"" + strategy + "\"\nplugins = [" + plugins + "]\n" + more + "\n";
}

// Two that answer and, between them, one that can be made to fail.
const std::string plugins =
    plugin_table("first", "", "echo") + plugin_table("second", "", "chaos") + plugin_table("third", "", "echo");
const std::string in_order = R"("first", "second", "third")";

// Of the one worker each has, by plugin.
std::map<std::string, int> pids(const running_daemon& daemon) {
  std::map<std::string, int> out;
  const json status = daemon.status();
  for (const json& each : status["plugins"]) {
    REQUIRE(each["workers"].size() == 1);
    out[each["name"].get<std::string>()] = each["workers"][0]["pid"].get<int>();
  }
  return out;
}

// Back when those that fail with `second` are there again: the last of them answers.
void crash_second(const running_daemon& daemon) {
  CHECK(daemon.call({"second.misbehave", "abort"}).status == 13);
  CHECK(daemon.call({"third.add", "1", "2"}).out == "3\n");
}

std::string state_of(const running_daemon& daemon, const std::string& plugin) {
  return daemon.plugin(plugin)["state"].get<std::string>();
}

}  // namespace

TEST_CASE("a crash restarts the plugins of its group that its strategy says, and ps shows the group") {
  const bool all = GENERATE(true, false);
  const running_daemon daemon(plugins + plugin_table("other", "", "echo") +
                              group_table(all ? "one_for_all" : "rest_for_one", in_order));
  auto before = pids(daemon);
  crash_second(daemon);
  auto now = pids(daemon);
  CHECK((now["first"] != before["first"]) == all);
  CHECK(now["second"] != before["second"]);
  CHECK(now["third"] != before["third"]);
  CHECK(now["other"] == before["other"]);

  CHECK(daemon.plugin("third")["group"] == "trio");
  CHECK(daemon.plugin("other")["group"] == "");
  const std::string table = daemon.run({"ps"}).out;
  CHECK(std::regex_search(table, std::regex("PLUGIN +GROUP +STATE +WORKERS")));
  CHECK(std::regex_search(table, std::regex("first +trio +running +1/1")));
  CHECK(std::regex_search(table, std::regex("other +- +running +1/1")));
}

TEST_CASE("SIGHUP that changes a group, or a plugin of it, replaces the whole group, and others leave it alone") {
  running_daemon daemon(plugins + group_table("rest_for_one", in_order));
  auto before = pids(daemon);
  daemon.reload(plugins + group_table("rest_for_one", in_order) + plugin_table("other", "", "echo"));
  auto now = pids(daemon);
  CHECK(now["first"] == before["first"]);
  CHECK(now["third"] == before["third"]);

  daemon.reload(plugins + group_table("one_for_all", in_order));
  now = pids(daemon);
  CHECK(now.size() == 3);
  for (const auto& [name, pid] : now) CHECK(pid != before[name]);
  before = now;
  crash_second(daemon);
  CHECK(pids(daemon)["first"] != before["first"]);

  before = pids(daemon);
  daemon.reload(plugins + "deadline = \"9s\"\n" + group_table("one_for_all", in_order));  // third's
  now = pids(daemon);
  for (const auto& [name, pid] : now) CHECK(pid != before[name]);

  // The third leaves; the first leaves for itself.
  daemon.reload(plugin_table("first", "", "echo") + plugin_table("second", "", "chaos") +
                group_table("one_for_all", R"("second")"));
  CHECK(daemon.call({"third.add", "1", "2"}).status == 17);
  CHECK_THAT(daemon.run({"logs"}).out, Contains("plugin third: unloaded"));
  before = pids(daemon);
  CHECK(daemon.call({"second.misbehave", "abort"}).status == 13);
  CHECK(daemon.call({"second.echo", "1"}).out == "1\n");
  CHECK(pids(daemon)["first"] == before["first"]);
  CHECK(daemon.plugin("first")["group"] == "");
}

TEST_CASE("when a group's new version can't be loaded the old one goes on, with those that were to leave it") {
  running_daemon daemon(plugins + group_table("rest_for_one", in_order));
  const auto before = pids(daemon);
  const std::string broken =
      "[plugins.second]\nfile = \"" + write(daemon.folder() / "broken.so", "no plugin at all").string() + "\"\n";
  daemon.reload(plugin_table("first", "", "echo") + broken + group_table("one_for_all", R"("second")"));
  CHECK(pids(daemon) == before);
  CHECK_THAT(daemon.run({"logs"}).out, Contains("group trio: ") && Contains("; the old version goes on"));
  crash_second(daemon);
  CHECK(pids(daemon).at("first") == before.at("first"));
  CHECK(pids(daemon).at("third") != before.at("third"));
}

TEST_CASE("a plugin that is to move from a group whose new version can't be loaded stays there") {
  running_daemon daemon(plugins + group_table("rest_for_one", in_order));
  const auto before = pids(daemon);
  const std::string broken =
      "[plugins.second]\nfile = \"" + write(daemon.folder() / "broken.so", "no plugin at all").string() + "\"\n";
  daemon.reload(plugin_table("first", "", "echo") + broken + plugin_table("third", "", "echo") +
                "[groups.aim]\nplugins = [\"third\"]\n" + group_table("rest_for_one", R"("first", "second")"));
  CHECK(pids(daemon) == before);
  CHECK_THAT(daemon.run({"logs"}).out, Contains("plugin third stays in group trio"));
  crash_second(daemon);
  CHECK(pids(daemon).at("third") != before.at("third"));

  daemon.reload(plugins + "[groups.aim]\nplugins = [\"third\"]\n" +
                group_table("rest_for_one", R"("first", "second")"));
  CHECK(daemon.plugin("third")["group"] == "aim");
  const auto now = pids(daemon);
  CHECK(daemon.call({"second.misbehave", "abort"}).status == 13);
  CHECK(daemon.call({"second.echo", "1"}).out == "1\n");
  CHECK(pids(daemon).at("third") == now.at("third"));
}

TEST_CASE("a group is loaded whole or not at all, and the other plugins are served") {
  const scratch_folder folder;
  const auto file = write(folder / "second.so", "no plugin at all");
  const running_daemon daemon(plugin_table("first", "", "echo") + "[plugins.second]\nfile = \"" + file.string() +
                              "\"\n" + plugin_table("third", "", "echo") + plugin_table("other", "", "echo") +
                              group_table("one_for_all", in_order));
  CHECK(daemon.call({"other.add", "1", "2"}).out == "3\n");
  for (const char* each : {"first", "second", "third"}) CHECK(state_of(daemon, each) == "failed");
  CHECK_THAT(daemon.plugin("first")["reason"].get<std::string>(), Contains("second of its group can't be loaded"));

  std::filesystem::remove(file);
  std::filesystem::copy_file(std::string(BULKHEAD_TEST_PLUGINS) + "/chaos.so", file);
  CHECK(daemon.run({"restart", "third"}).status == 0);
  crash_second(daemon);
}

TEST_CASE("restart brings back a group that was given up, and a plugin of one that was stopped, in its old place") {
  const running_daemon daemon(plugins + group_table("rest_for_one", in_order, "intensity = { restarts = 0 }"));
  CHECK(daemon.call({"second.misbehave", "abort"}).status == 13);
  const finished refused = daemon.call({"third.add", "1", "2"});
  CHECK(refused.status == 16);
  CHECK_THAT(refused.err, Contains("plugin second of its group was given up"));
  CHECK(state_of(daemon, "first") == "running");
  CHECK(state_of(daemon, "second") == "given up");
  CHECK(daemon.run({"restart", "third"}).status == 0);
  for (const char* each : {"first", "second", "third"}) CHECK(state_of(daemon, each) == "running");
  CHECK(daemon.call({"second.echo", "1"}).out == "1\n");

  auto before = pids(daemon);
  CHECK(daemon.run({"restart", "first"}).status == 0);
  CHECK(daemon.run({"stop", "second"}).status == 0);
  CHECK(daemon.plugin("third")["workers"][0]["pid"] == before["third"]);
  CHECK(daemon.run({"restart", "second"}).status == 0);
  before = pids(daemon);
  CHECK(daemon.call({"second.misbehave", "abort"}).status == 13);
  CHECK(daemon.call({"third.add", "1", "2"}).status == 16);
  CHECK(daemon.call({"first.add", "1", "2"}).out == "3\n");
  CHECK(daemon.plugin("first")["workers"][0]["pid"] == before["first"]);
}

TEST_CASE("what is wrong with a group is told, with its line and what is allowed") {
  const scratch_folder folder;
  const auto file = write(folder / "c.toml", plugin_table("echo") + R"([groups.a]
strategy = "all"
plugins = ["echo", "nobody"]
[groups.b]
plugins = ["echo"]
intensity = { restarts = -1 }
[groups.c]
plugins = []
[groups.d]
colour = "red"
[groups.e]
plugins = "echo"
)");
  const finished done = run({"bulkhead", "run", "--check", file.string()});
  CHECK(done.status == 2);
  for (const char* each :
       {"5: groups.a.strategy is 'all'; allowed: \"one_for_one\", \"one_for_all\", \"rest_for_one\"",
        "6: groups.a.plugins: there is no plugin 'nobody'; allowed: ",
        "8: groups.b.plugins: echo is in group a already", "9: groups.b.intensity.restarts is -1; allowed: ",
        "10: groups.c has no plugins; give 'plugins'", "12: groups.d has no plugins; give 'plugins'",
        "13: there is no key groups.d.colour; allowed in groups.d: intensity, plugins, strategy",
        "15: groups.e.plugins is 'echo'; allowed: an array of names of plugins"})
    CHECK_THAT(done.err, Contains(file.string() + ":" + each));
}
