// The daemon's own life: its socket, signals, a changed configuration, and what it tells systemd.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <csignal>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

TEST_CASE("two daemons never share a socket, and what a dead one left is replaced") {
  const scratch_folder plugins;
  running_daemon daemon(plugin_table("echo"));
  const finished second = run({"bulkhead", "run", daemon.file().string()});
  CHECK(second.status == 3);
  CHECK_THAT(second.err, Contains("another daemon serves"));
  CHECK(daemon.call({"echo.add", "1", "2"}).out == "3\n");

  daemon.signal(SIGKILL);
  daemon.wait();
  CHECK(std::filesystem::exists(daemon.socket()));
  program next({"bulkhead", "run", daemon.file().string()});
  finished called;
  do called = daemon.call({"echo.add", "1", "2"});
  while (called.status == 3);
  CHECK(called.out == "3\n");
  next.signal(SIGTERM);
  CHECK(next.wait().status == 0);

  write(daemon.socket(), "a file");
  const finished refused = run({"bulkhead", "run", daemon.file().string()});
  CHECK(refused.status == 3);
  CHECK_THAT(refused.err, Contains("there is something else at"));
  CHECK(contents(daemon.socket()) == "a file");
}

TEST_CASE("SIGTERM lets a call in flight end, takes no new ones, and ends with 0") {
  // The worker alone would not wait: it is the daemon that does.
  running_daemon daemon("drain = \"60s\"\n" + plugin_table("echo") +
                        plugin_table("chaos", "[plugins.chaos.supervision]\ndrain = { calls = 0, shutdown = 0 }"));
  held_call held(daemon);
  raw_client client(daemon.socket());
  client.hello();
  daemon.signal(SIGTERM);
  daemon.service_manager().wait("STOPPING=1");
  // Said before the last call may still be taken: asked until it is not.
  json answer;
  do {
    client.request(1, "echo.add", 1, 1);
    answer = client.answer(1);
  } while (answer[2].is_null());
  CHECK(answer[2]["code"] == "unavailable");
  CHECK_FALSE(std::filesystem::exists(daemon.socket()));
  const finished done = held.release();
  CHECK(done.status == 0);
  CHECK(done.out.size() > 4'000'000);
  CHECK(daemon.wait().status == 0);
  CHECK(client.closed());
}

TEST_CASE("the drain has a limit, and a second signal does not wait for it") {
  {
    running_daemon daemon("drain = \"100ms\"\n" +
                          plugin_table("chaos", "[plugins.chaos.supervision]\ndrain = { calls = 0 }"));
    held_call held(daemon);
    daemon.signal(SIGINT);
    const finished done = daemon.wait();
    CHECK(done.status == 0);
    CHECK_THAT(done.err, Contains("calls are still open"));
    CHECK(held.release().status != 0);
  }
  running_daemon daemon("drain = \"1h\"\n" + plugin_table("chaos"));
  held_call held(daemon);
  daemon.signal(SIGTERM);
  daemon.service_manager().wait("STOPPING=1");
  daemon.signal(SIGTERM);
  CHECK(daemon.wait().status == 128 + SIGTERM);
  CHECK_FALSE(std::filesystem::exists(daemon.socket()));
}

TEST_CASE("SIGHUP loads what is new, replaces what has changed, and drains what is gone") {
  running_daemon daemon(plugin_table("echo") + plugin_table("chaos"));
  held_call held(daemon);
  const json before = daemon.plugin("echo");
  daemon.reload(plugin_table("echo") + plugin_table("chaos") + plugin_table("more", "", "echo"));
  CHECK(daemon.call({"more.add", "1", "2"}).out == "3\n");
  CHECK(daemon.plugin("echo")["workers"][0]["pid"] == before["workers"][0]["pid"]);  // nothing of it has changed

  daemon.reload(plugin_table("echo", "instances = 2\nenvironment = [\"A=1\"]") + plugin_table("chaos"));
  CHECK(daemon.plugin("echo")["instances"] == 2);
  CHECK(daemon.call({"more.add", "1", "2"}).status == 17);
  CHECK_THAT(daemon.run({"logs"}).out, Contains("plugin more: unloaded"));
  CHECK(held.release().status == 0);

  // The same file, changed on disk.
  const auto file = daemon.folder() / "own.so";
  const auto put = [&](const char* plugin) {
    std::filesystem::copy_file(std::string(BULKHEAD_TEST_PLUGINS) + "/" + plugin + ".so", file.string() + ".new");
    std::filesystem::rename(file.string() + ".new", file);
  };
  put("echo");
  const std::string own = "[plugins.own]\nfile = \"" + file.string() + "\"\n";
  daemon.reload(own);
  CHECK(daemon.call({"own.pid"}).status == 17);
  put("chaos");
  daemon.reload(own);
  CHECK(daemon.call({"own.pid"}).status == 0);
}

TEST_CASE("a plugin that keeps its state goes on from it after a new file, other settings and a restart") {
  running_daemon daemon(plugin_table("echo"));
  const auto file = daemon.folder() / "own.so";
  const auto put = [&](const char* plugin) {
    std::filesystem::copy_file(std::string(BULKHEAD_TEST_PLUGINS) + "/" + plugin + ".so", file.string() + ".new");
    std::filesystem::rename(file.string() + ".new", file);
  };
  const std::string own = "[plugins.own]\nfile = \"" + file.string() + "\"\nstate = { keep = true, every = 0 }\n";
  put("counter");
  daemon.reload(own);
  CHECK(daemon.call({"own.add", "5"}).out == "5\n");
  put("counter_2");
  daemon.reload(own);
  CHECK(daemon.call({"own.version"}).out == "2\n");
  CHECK(daemon.call({"own.add", "2"}).out == "7\n");
  daemon.reload(own + "deadline = \"9s\"\n");
  CHECK(daemon.call({"own.add", "1"}).out == "8\n");
  CHECK(daemon.run({"restart", "own"}).status == 0);
  CHECK(daemon.call({"own.total"}).out == "8\n");
}

TEST_CASE("other settings start a plugin that was given up before it had saved any state") {
  running_daemon daemon(plugin_table("echo"));
  const std::string own =
      plugin_table("own", "state = { keep = true }\nsupervision = { intensity = { restarts = 0 } }", "counter");
  daemon.reload(own);
  CHECK(daemon.call({"own.crash"}).status == 13);
  CHECK(daemon.call({"own.total"}).status == 16);
  CHECK(daemon.plugin("own")["state"] == "given up");
  daemon.reload(own + "environment = [\"A=1\"]\n");
  CHECK(daemon.plugin("own")["state"] == "running");
  CHECK(daemon.call({"own.add", "1"}).out == "1\n");
}

TEST_CASE("a call in flight on a plugin whose settings change ends well") {
  running_daemon daemon("drain = \"60s\"\n" + plugin_table("chaos"));
  held_call held(daemon);
  write(daemon.file(), "socket = \"d.sock\"\ndrain = \"60s\"\n" + plugin_table("chaos", "instances = 2"));
  daemon.signal(SIGHUP);
  daemon.service_manager().wait("RELOADING=1");
  while (daemon.plugin("chaos")["instances"] != 2) {
  }
  CHECK(daemon.call({"chaos.echo", "1"}).out == "1\n");  // by the new workers, while the old one still reads
  CHECK(held.release().status == 0);
  daemon.service_manager().wait("READY=1");
}

TEST_CASE("SIGHUP with a wrong configuration changes nothing, and says what is wrong") {
  running_daemon daemon(plugin_table("echo"));
  const json before = daemon.plugin("echo");
  daemon.reload(plugin_table("echo", "instances = 0") + plugin_table("chaos"));
  CHECK(daemon.plugin("echo")["workers"][0]["pid"] == before["workers"][0]["pid"]);
  CHECK(daemon.plugin("chaos").is_null());
  CHECK_THAT(daemon.run({"logs"}).out,
             Contains("the configuration is as it was") && Contains("plugins.echo.instances is 0; allowed"));
  daemon.reload("log_format = \"json\"\n" + plugin_table("echo"));
  CHECK_THAT(daemon.run({"logs"}).out, Contains("only plugins and 'drain' change without a restart"));
  daemon.reload("[plugins.echo]\nfile = \"" + write(daemon.folder() / "broken.so", "x").string() + "\"\n");
  CHECK_THAT(daemon.run({"logs"}).out, Contains("the old version goes on"));
  CHECK(daemon.call({"echo.add", "1", "2"}).out == "3\n");
}

TEST_CASE("systemd hears the state and, if it asks, a sign of life") {
  running_daemon daemon(plugin_table("echo"), {"WATCHDOG_USEC=300000"});
  for (int i = 0; i < 3; ++i) daemon.service_manager().wait("WATCHDOG=1");
  daemon.signal(SIGHUP);
  daemon.service_manager().wait("RELOADING=1");
  CHECK_THAT(daemon.service_manager().wait("READY=1"), Contains("STATUS=1 plugins"));
}

TEST_CASE("the log is JSON on request, a line each") {
  running_daemon daemon("log_format = \"json\"\n" + plugin_table("chaos"));
  CHECK(daemon.call({"chaos.misbehave", "abort"}).status == 13);
  CHECK(daemon.run({"stop"}).status == 0);
  std::istringstream lines(daemon.wait().err);
  bool exited = false;
  for (std::string line; std::getline(lines, line);) {
    const json each = json::parse(line);
    CHECK(each["time"].get<std::string>().size() == 24);
    exited = exited || (each.value("event", "") == "exited" && each["reason"] == "signalled" && each["pid"] > 0);
  }
  CHECK(exited);
}
