// What becomes of a plugin whose workers die: restarts and their limits, quarantine, spares, recycling, hot reload.
#include "watched_host.hpp"

#include <boost/asio/io_context.hpp>

#include <csignal>

namespace bulkhead::testing {
namespace {

using kind = enum lifecycle_event::kind;
using state = enum plugin_status::state;

// Under the build tree, where no other user can write.
std::filesystem::path copy_of(const std::string& plugin, const std::string& as) {
  const std::filesystem::path to = std::filesystem::path(BULKHEAD_TEST_PLUGINS) / as;
  const std::filesystem::path fresh = to.string() + ".new";
  std::filesystem::copy_file(plugin_path(plugin), fresh, std::filesystem::copy_options::overwrite_existing);
  std::filesystem::rename(fresh, to);
  return to;
}

// Copies of plugins' files that this process holds.
std::size_t copies() {
  std::size_t count = 0;
  std::error_code gone;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd"))
    count += std::filesystem::read_symlink(fd.path(), gone).string().starts_with("/memfd:bulkhead-plugin");
  return count;
}
bool comes_down_to(std::size_t wanted) {
  const auto limit = std::chrono::steady_clock::now() + 10s;
  while (copies() > wanted && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  return copies() == wanted;
}

}  // namespace

TEST_CASE("a plugin that fails too often is given up with the reasons, and reset starts it again") {
  watched_host host;
  load_options options;
  options.supervision.intensity = {.restarts = 2, .period = 600s};
  options.supervision.backoff.first = 1ms;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  CHECK(chaos.try_call("misbehave", "exit_3").outcome() == outcome::worker_lost);
  CHECK(chaos.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
  CHECK(chaos.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);

  const auto refused = failure_of([&] { chaos.call("echo", 1); });
  CHECK(refused.outcome() == outcome::unavailable);
  CHECK(refused.message().find("more than 2 restarts in 600 s") != std::string::npos);
  CHECK(refused.message().find("SIGSEGV") != std::string::npos);
  CHECK(refused.message().find("plugin::reset()") != std::string::npos);
  CHECK(chaos.status().state == state::gave_up);
  CHECK(chaos.workers().empty());
  REQUIRE(host.saw(kind::gave_up));
  CHECK(host.count(kind::restarting) == 2);
  const auto gave_up = host.last(kind::gave_up);
  CHECK(gave_up.plugin == "chaos");
  REQUIRE(gave_up.last_exits.size() == 3);
  CHECK(gave_up.last_exits[0]->exit_code == 3);
  CHECK(gave_up.last_exits[2]->signal == SIGSEGV);

  chaos.reset();
  CHECK(chaos.call<int>("echo", 2) == 2);
  CHECK(chaos.status().state == state::running);
  CHECK(chaos.status().serving == 1);
}

TEST_CASE("a violation quarantines at once, whatever the restart kind, until reset") {
  watched_host host;
  load_options options;
  options.supervision.restart = restart_kind::permanent;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  CHECK(chaos.try_call("misbehave", "forged_response").outcome() == outcome::protocol);
  REQUIRE(host.saw(kind::quarantined));
  CHECK(host.last(kind::quarantined).report->reason == exit_reason::protocol);
  CHECK(chaos.status().state == state::quarantined);
  CHECK(chaos.try_call("echo", 1).outcome() == outcome::unavailable);
  CHECK(host.count(kind::started) == 1);
  chaos.reset();
  CHECK(chaos.call<int>("echo", 2) == 2);
}

TEST_CASE("restart kinds decide which ends are followed by a new worker") {
  const auto [kind_of, how, restarts] = GENERATE(table<restart_kind, const char*, bool>(
      {{restart_kind::temporary, "segfault", false},
       {restart_kind::transient, "exit_0", true},  // with its call pending, so abnormal
       {restart_kind::transient, "segfault", true},
       {restart_kind::permanent, "exit_0", true}}));
  host host;
  load_options options;
  options.supervision.restart = kind_of;
  auto chaos = host.load(plugin_path("chaos"), options);
  CHECK(chaos.try_call("misbehave", how).outcome() == outcome::worker_lost);
  const auto after = chaos.try_call("echo", 1);
  CHECK(after.outcome() == (restarts ? outcome::ok : outcome::unavailable));
  CHECK(chaos.status().state == (restarts ? state::running : state::ended));
}

TEST_CASE("an exit(0) is no good end while a call that was given up is in progress") {
  watched_host host;
  auto parallel = host.self.load(plugin_path("parallel"));
  std::stop_source stop;
  mailbox<outcome> ended;
  parallel.async_call<reply>("quit", std::tuple{},
                             [&](boost::system::error_code, const reply& result) { ended.put(result.outcome()); },
                             {.stop = stop.get_token()});
  while (parallel.workers().at(0).phase != phase::call) std::this_thread::yield();
  stop.request_stop();
  REQUIRE(host.saw(kind::exited));
  CHECK(host.last(kind::exited).report->exit_code == 0);
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values()[0] == outcome::cancelled);
  CHECK(host.saw(kind::restarting));
  CHECK(parallel.call<int>("add", 1, 2) == 3);
}

TEST_CASE("a warm spare takes the place of a worker that died") {
  watched_host host;
  load_options options = untiring();
  options.supervision.spares = 1;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  REQUIRE(host.saw(kind::ready, 2));
  const auto before = pids(chaos);
  REQUIRE(before.size() == 2);
  CHECK(chaos.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
  CHECK(chaos.call<int>("echo", 1) == 1);
  REQUIRE(host.saw(kind::exited));
  const pid_t dead = host.last(kind::exited).pid;
  CHECK(before.contains(dead));
  CHECK(host.saw(kind::ready, 3));  // a new spare
  CHECK(pids(chaos).size() == 2);
}

TEST_CASE("recycled workers are replaced one after the other, and no call is lost by it") {
  watched_host host;
  auto chaos = host.self.load(plugin_path("chaos"), {.instances = 3});
  const auto before = pids(chaos);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, served{0};
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < 3; ++t)
      callers.emplace_back([&] {
        while (!stop) ++(chaos.try_call("echo", 1) ? served : wrong);
      });
    CHECK(chaos.recycle());
    CHECK(host.saw(kind::exited, 3));
    stop = true;
  }
  CHECK(wrong == 0);
  CHECK(served > 0);
  const auto after = pids(chaos);
  CHECK(after.size() == 3);
  for (const pid_t each : after) CHECK_FALSE(before.contains(each));
  CHECK(host.count(kind::restarting) == 0);  // it is no failure
  CHECK_FALSE(chaos.recycle(1));             // no such worker
}

TEST_CASE("a worker is recycled after so many calls") {
  watched_host host;
  load_options options;
  options.supervision.recycle.calls = 10;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  for (int i = 0; i < 30; ++i) CHECK(chaos.call<int>("echo", i) == i);
  CHECK(host.saw(kind::exited, 1));
  CHECK(host.last(kind::exited).report->reason == exit_reason::shut_down);
}

TEST_CASE("a worker that grows beyond its share of the memory limit is recycled") {
  watched_host host;
  load_options options;
  constexpr std::size_t limit = std::size_t{800} << 20;  // a thread sanitizer makes 600 of what is kept
  if (GENERATE(true, false)) options.policy = policy::strict().memory_limit(limit);  // it has the last word
  else options.memory_limit = limit;
  options.supervision.recycle.memory = 0.12;
  options.supervision.drain.calls = 1min;  // the call may go on, however long it takes to grow
  options.supervision.heartbeat.interval = 20ms;
  options.supervision.backoff.healthy_after = 1h;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  const pid_t before = chaos.workers().at(0).pid;
  CHECK(chaos.call<int>("keep_memory", 120) == 120);
  REQUIRE(host.saw(kind::exited));
  CHECK(host.last(kind::exited).pid == before);
  CHECK(host.last(kind::exited).report->reason == exit_reason::shut_down);
  CHECK(chaos.call<int>("echo", 1) == 1);
  CHECK(host.logs.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(), [](const auto& record) {
      return record.level == log_level::warning &&
             record.text.find("restart_backoff::healthy_after") != std::string::npos;
    });
  }));
}

TEST_CASE("an idle worker that gives no sign of life is killed as hung and replaced") {
  watched_host host;
  load_options options = untiring();
  options.supervision.heartbeat = {.interval = 20ms, .silence = 400ms};
  auto chaos = host.self.load(plugin_path("chaos"), options);
  const pid_t before = chaos.workers().at(0).pid;
  ::kill(before, SIGSTOP);
  REQUIRE(host.saw(kind::exited));
  CHECK(host.last(kind::exited).pid == before);
  CHECK(host.last(kind::exited).report->reason == exit_reason::hung);
  CHECK(chaos.call<int>("echo", 1) == 1);
}

TEST_CASE("a thread that never comes back from a call it has answered is a hang, also beside others that do") {
  watched_host host;
  load_options options = untiring();
  options.supervision.heartbeat = {.interval = 20ms, .silence = 400ms};
  auto parallel = host.self.load(plugin_path("parallel"), options);
  const pid_t before = parallel.workers().at(0).pid;
  CHECK(parallel.call<int>("linger", 1) == 1);
  REQUIRE(host.saw(kind::exited));
  CHECK(host.last(kind::exited).pid == before);
  CHECK(host.last(kind::exited).report->reason == exit_reason::hung);
  CHECK(parallel.call<int>("add", 1, 2) == 3);
}

TEST_CASE("a busy worker is judged by its calls' deadlines, not by heartbeats") {
  watched_host host;
  load_options options;
  options.supervision.heartbeat = {.interval = 20ms, .silence = 1s};
  auto chaos = host.self.load(plugin_path("chaos"), options);
  CHECK(chaos.call<int>("sleep_ms", 2000) == 2000);
  CHECK(host.count(kind::exited) == 0);
}

TEST_CASE("of a version that was replaced nothing is left once its workers have ended") {
  watched_host host;
  auto echo = host.self.load(plugin_path("echo"));
  const std::size_t before = copies();
  echo.reload(plugin_path("echo"));
  REQUIRE(host.saw(kind::exited));
  CHECK(comes_down_to(before));
}

TEST_CASE("events of a version that was replaced are handled, also when its workers have ended by then") {
  mailbox<int> seen, go_on;
  watched_host host;
  auto chaos = host.self.load(plugin_path("chaos"));
  chaos.on_event([&](const std::string&, const msgpack::object& value) {
    seen.put(value.as<int>());
    go_on.wait_for(1);
  });
  CHECK(chaos.try_call("emit", "tick", 1, 5).outcome() == outcome::ok);
  REQUIRE(seen.wait_for(1));
  chaos.reload(plugin_path("chaos"));
  REQUIRE(host.saw(kind::exited));
  chaos.reset();  // looks for versions that are gone, if nobody has yet
  go_on.put(1);
  CHECK(seen.wait_for(5));
}

TEST_CASE("whether a lost call is repeated is for the version to say that had it, not for its successor") {
  mailbox<int> begun, go_on;
  mailbox<outcome> ended;
  watched_host host;
  load_options options = untiring();
  options.functions.add("hold", [&] {
    begun.put(1);
    go_on.wait_for(1);
  });
  auto counter = host.self.load(plugin_path("counter"), options);
  counter.async_call<reply>("crash_after", std::tuple{"hold"}, outcome_to(ended));
  REQUIRE(begun.wait_for(1));
  counter.reload(plugin_path("counter_2"));
  go_on.put(1);
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values()[0] == outcome::worker_lost);
  CHECK(begun.values().size() == 1);
}

TEST_CASE("a version that breaks the rules after it was replaced quarantines nothing, and nothing of it is left") {
  mailbox<int> begun, go_on;
  mailbox<outcome> held, broken;
  watched_host host;
  load_options options;
  options.functions.add("hold", [&] {
    begun.put(1);
    return go_on.wait_for(1);
  });
  auto chaos = host.self.load(plugin_path("chaos"), options);
  const std::size_t before = copies();
  chaos.async_call<reply>("call_host", std::tuple{"hold", std::tuple{}},
                          [&](boost::system::error_code, const reply& result) { held.put(result.outcome()); });
  chaos.async_call<reply>("misbehave", std::tuple{"forged_response"},
                          [&](boost::system::error_code, const reply& result) { broken.put(result.outcome()); });
  REQUIRE(begun.wait_for(1));
  chaos.reload(plugin_path("chaos"));
  go_on.put(1);
  REQUIRE(host.saw(kind::exited));
  CHECK(host.last(kind::exited).report->reason == exit_reason::protocol);
  REQUIRE(broken.wait_for(1));
  CHECK(broken.values()[0] == outcome::protocol);
  CHECK(comes_down_to(before));
  CHECK(host.count(kind::quarantined) == 0);
  CHECK(chaos.call<int>("echo", 1) == 1);
}

TEST_CASE("a host that ends stops its plugins in the reverse order of their start") {
  watched_host host;
  const auto first = host.self.load(plugin_path("echo"), {.name = "first"});
  const auto second = host.self.load(plugin_path("echo"), {.name = "second"});
  const auto third = host.self.load(plugin_path("echo"), {.name = "third"});
  host.self.shutdown();
  std::vector<std::string> ended;
  for (const auto& event : host.events.values())
    if (event.kind == kind::exited) ended.push_back(event.plugin);
  CHECK(ended == std::vector<std::string>{"third", "second", "first"});
}

TEST_CASE("a new version takes over without a lost call, one that can't start leaves the old") {
  watched_host host;
  const auto file = copy_of("echo", "reloaded.so");
  auto plugin = host.self.load(file, {.instances = 2});
  CHECK(plugin.call<int>("add", 1, 2) == 3);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, served{0};
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < 3; ++t)
      callers.emplace_back([&] {
        while (!stop) ++(plugin.try_call("echo", 1) ? served : wrong);
      });
    const auto before = pids(plugin);
    CHECK_THROWS_AS(plugin.reload(std::filesystem::path(BULKHEAD_TEST_PLUGINS) / "no_such.so"), call_error);
    CHECK(pids(plugin) == before);
    copy_of("chaos", "reloaded.so");
    plugin.reload(file);
    CHECK(host.saw(kind::reloaded));
    CHECK(host.saw(kind::exited, 2));  // the old ones
    for (const pid_t each : pids(plugin)) CHECK_FALSE(before.contains(each));
    stop = true;
  }
  CHECK(wrong == 0);
  CHECK(served > 0);
  CHECK(plugin.call<int>("sleep_ms", 1) == 1);  // a method that only the new one has
  CHECK(plugin.describe().id == "chaos");
  CHECK(plugin.workers().size() == 2);
}

TEST_CASE("a new version that crashes in its start is an error with its report, and the old one goes on") {
  watched_host host;
  auto plugin =
      host.self.load(plugin_path("echo"), {.environment = {"BULKHEAD_CHAOS_AT=init", "BULKHEAD_CHAOS=segfault"}});
  const auto failed = failure_of([&] { plugin.reload(plugin_path("chaos")); });
  CHECK(failed.outcome() == outcome::unavailable);
  REQUIRE(failed.report());
  CHECK(failed.report()->signal == SIGSEGV);
  CHECK(plugin.call<int>("add", 1, 2) == 3);
}

TEST_CASE("supervision works through synchronous calls while nobody runs the embedder's executor") {
  boost::asio::io_context idle;
  host host(idle.get_executor(), {.spawns = any_number_of_spawns});
  auto chaos = host.load(plugin_path("chaos"), untiring());
  for (int i = 0; i < 5; ++i) {
    CHECK(chaos.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    CHECK(chaos.call<int>("echo", i) == i);
  }
  chaos.unload();
  CHECK(chaos.status().state == state::unloaded);
}

TEST_CASE("a host starts no more workers at once than it is told") {
  mailbox<lifecycle_event> events;
  host host({.on_lifecycle = [&](const lifecycle_event& event) { events.put(event); }, .spawns = {.at_once = 1}});
  auto echo = host.load(plugin_path("echo"), {.instances = 6});
  REQUIRE(events.wait_for(12));
  int starting = 0, most = 0;
  for (const auto& event : events.values()) {
    starting += event.kind == kind::started ? 1 : -1;
    most = std::max(most, starting);
  }
  CHECK(most == 1);
}

}  // namespace bulkhead::testing
