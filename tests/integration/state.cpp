// State that a plugin hands to its successor: over reloads, recycling, leaving and crashes, and what happens when saving
// or restoring fails.
#include "watched_host.hpp"

#include <csignal>
#include <future>

namespace bulkhead::testing {
namespace {

using kind = enum lifecycle_event::kind;
using state = enum plugin_status::state;

load_options keeping(std::chrono::nanoseconds every = 0s) {
  load_options options;
  options.state.keep = true;
  options.state.every = every;
  options.supervision.backoff.first = 1ms;
  return options;
}

const std::string counter = plugin_path("counter"), newer = plugin_path("counter_2"), other = plugin_path("counter_3");

}  // namespace

TEST_CASE("a new version starts from the state of the old one, and no call is lost or counted twice") {
  watched_host host;
  auto plugin = host.self.load(counter, keeping(600s));
  std::atomic<bool> over{false};
  std::atomic<std::int64_t> added{0};
  std::vector<std::jthread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      while (!over) {
        plugin.call<std::int64_t>("add", 1);
        ++added;
      }
    });
  for (int i = 0; i < 5; ++i) {
    plugin.reload(i % 2 ? counter : newer);
    const auto before = added.load();
    while (added < before + 100) std::this_thread::yield();
  }
  over = true;
  callers.clear();
  CHECK(plugin.call<int>("version") == 2);
  CHECK(plugin.call<std::int64_t>("total") == added);
}

TEST_CASE("calls that are answered late are part of the state that is handed over") {
  watched_host host;
  auto plugin = host.self.load(counter, keeping(600s));
  auto late = std::async(std::launch::async, [&] { return plugin.call<int>("add_late", 5, 300); });
  while (plugin.workers().front().outstanding == 0) std::this_thread::yield();
  plugin.reload(newer);
  CHECK(late.get() == 5);
  CHECK(plugin.call<int>("total") == 5);
}

TEST_CASE("after a crash the plugin goes on from the state saved last") {
  watched_host host;
  auto plugin = host.self.load(counter, keeping());
  for (int i = 1; i <= 3; ++i) {
    CHECK(plugin.call<int>("add", 2) == 2 * i);
    plugin.save_state();
    CHECK(plugin.try_call("crash").outcome() == outcome::worker_lost);
  }
  CHECK(plugin.call<int>("total") == 6);
}

TEST_CASE("state is saved after calls, at once or within the interval, also when no other call comes") {
  watched_host host;
  auto plugin = host.self.load(counter, keeping(GENERATE(0ms, 50ms)));
  CHECK(plugin.call<int>("add", 1) == 1);
  CHECK(plugin.call<int>("add", 2) == 3);
  int total = 0;
  for (int i = 0; i < 400 && total != 3; ++i) {  // until what a crash leaves is all of it
    plugin.with({.deadline = 20s}).try_call("total");
    std::this_thread::sleep_for(1ms);
    if (i % 100 != 99) continue;
    CHECK(plugin.try_call("crash").outcome() == outcome::worker_lost);
    total = plugin.call<int>("total");
  }
  CHECK(total == 3);
}

TEST_CASE("a recycled worker and one that leaves hand over what they knew after their last call") {
  watched_host host;
  auto plugin = host.self.load(counter, keeping(600s));
  const auto first = pids(plugin);
  CHECK(plugin.call<int>("add", 1) == 1);
  REQUIRE(plugin.recycle());
  REQUIRE(host.saw(kind::exited));
  CHECK(plugin.call<int>("add", 1) == 2);
  plugin.call("go");
  for (int i = 0; i < 100; ++i) plugin.call("add", 1);
  REQUIRE(host.saw(kind::exited, 2));
  CHECK(plugin.call<int>("total") == 102);
  CHECK(pids(plugin) != first);
}

TEST_CASE("a new version that can't read the state does not take over, and the old one goes on with it") {
  watched_host host;
  auto plugin = host.self.load(counter, keeping(600s));
  CHECK(plugin.call<int>("add", 7) == 7);
  const auto before = pids(plugin);
  const auto refused = failure_of([&] { plugin.reload(other); });
  CHECK(refused.outcome() == outcome::unavailable);
  CHECK(refused.message().find("could not restore its state: a state that this can't read") != std::string::npos);
  CHECK(plugin.call<int>("add", 1) == 8);
  CHECK(pids(plugin) == before);

  SECTION("neither does one when the old one can't save") {
    plugin.call("refuse_to_save", true);
    const auto failure = failure_of([&] { plugin.reload(newer); });
    CHECK(failure.outcome() == outcome::plugin_error);
    CHECK(failure.message().find("not now") != std::string::npos);
    CHECK(failure_of([&] { plugin.save_state(); }).outcome() == outcome::plugin_error);
  }
  SECTION("nor one that keeps no state") {
    CHECK(failure_of([&] { plugin.reload(plugin_path("echo")); }).outcome() == outcome::rejected);
  }
  SECTION("nor one while calls of the old one go on for too long") {
    auto options = keeping(600s);
    options.supervision.drain.calls = 50ms;
    auto busy = host.self.load(counter, options);
    std::stop_source enough;
    auto late = std::async(std::launch::async, [&] {
      return busy.with({.deadline = no_deadline, .stop = enough.get_token()})
          .try_call("add_late", 5, 600'000)
          .outcome();
    });
    while (busy.workers().front().outstanding == 0) std::this_thread::yield();
    CHECK(failure_of([&] { busy.reload(newer); }).outcome() == outcome::timeout);
    CHECK(busy.call<int>("version") == 1);
    CHECK(busy.workers().front().outstanding >= 1);
    enough.request_stop();
    CHECK(late.get() == outcome::cancelled);
  }
  CHECK(plugin.call<int>("version") == 1);
  CHECK(plugin.call<int>("total") == 8);
}

TEST_CASE("a state that workers can't restore ends in giving up, and reset drops it") {
  watched_host host;
  auto options = keeping();
  options.supervision.intensity = {.restarts = 2, .period = 600s};
  auto plugin = host.self.load(counter, options);
  plugin.call("add", 3);
  plugin.call("spoil", true);
  plugin.save_state();
  CHECK(plugin.try_call("crash").outcome() == outcome::worker_lost);
  const auto refused = failure_of([&] { plugin.call("total"); });
  CHECK(refused.outcome() == outcome::unavailable);
  CHECK(refused.message().find("could not restore its state") != std::string::npos);
  REQUIRE(host.saw(kind::gave_up));
  plugin.reset();
  CHECK(plugin.call<int>("total") == 0);
}

TEST_CASE("a saved state starts another load of the plugin, in a worker or in this process") {
  watched_host host;
  std::vector<std::uint8_t> saved;
  auto options = keeping();
  options.isolation = GENERATE(isolation::process, isolation::none);
  {
    auto plugin = host.self.load(counter, options);
    const int before = plugin.call<int>("total");  // in this process it may have been loaded before
    CHECK(plugin.call<int>("add", 41) == before + 41);
    plugin.call("add", 1 - before);
    saved = plugin.save_state();
  }
  options.state.initial = saved;
  auto plugin = host.self.load(counter, options);
  CHECK(plugin.call<int>("total") == 42);
  CHECK(plugin.describe().keeps_state);
  CHECK(failure_of([&] { host.self.load(other, options); }).outcome() == outcome::unavailable);
  options.state.initial.clear();
  CHECK(failure_of([&] { host.self.load(plugin_path("echo"), options); }).outcome() == outcome::rejected);
}

TEST_CASE("wrong use of states is told") {
  watched_host host;
  auto several = keeping();
  several.instances = 2;
  CHECK_THROWS_AS(host.self.load(counter, several), std::invalid_argument);
  auto spare = keeping();
  spare.supervision.spares = 1;
  CHECK_THROWS_AS(host.self.load(counter, spare), std::invalid_argument);
  load_options without;
  without.state.initial = {1};
  CHECK_THROWS_AS(host.self.load(counter, without), std::invalid_argument);
  auto plugin = host.self.load(counter);
  CHECK(failure_of([&] { plugin.save_state(); }).outcome() == outcome::rejected);
  auto kept = host.self.load(counter, keeping());
  kept.unload();
  CHECK(failure_of([&] { kept.save_state(); }).outcome() == outcome::unavailable);
}

TEST_CASE("a worker that dies while it saves or is asked to restore costs no more than its calls") {
  watched_host host;
  auto plugin = host.self.load(counter, untiring(keeping()));
  for (int i = 0; i < 30; ++i) {
    plugin.call("add", 1);
    const auto killed = plugin.workers();
    if (!killed.empty()) ::kill(killed.front().pid, SIGKILL);
    plugin.try_call("total");
  }
  CHECK(plugin.call<int>("total") <= 30);
  CHECK(plugin.status().state == state::running);
}

TEST_CASE("a group that starts again keeps its plugins' states") {
  watched_host host;
  auto group = host.self.group();
  auto plugin = group.load(counter, keeping(600s));
  auto failing = group.load(plugin_path("chaos"), {.supervision = {.backoff = {.first = 1ms}}});
  CHECK(plugin.call<int>("add", 4) == 4);
  CHECK(failing.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
  REQUIRE(host.saw(kind::ready, 4));
  CHECK(plugin.call<int>("total") == 4);
}

TEST_CASE("a reload in a group whose worker dies before it has taken over fails, and the old version goes on") {
  watched_host host;
  auto group = host.self.group();
  auto options = keeping(600s);
  options.supervision.drain.calls = 1min;
  auto plugin = group.load(counter, options);
  const pid_t old = plugin.workers().front().pid;
  REQUIRE(::kill(old, SIGSTOP) == 0);  // so that its call, for which the reload waits, goes on
  auto call = std::async(std::launch::async, [&] { return plugin.call<int>("add", 5); });
  REQUIRE(eventually([&] { return plugin.workers().front().outstanding >= 1; }));
  auto reload = std::async(std::launch::async, [&] {
    try {
      plugin.reload(newer);
    } catch (const call_error& error) {
      return error.outcome();
    }
    return outcome::ok;
  });
  REQUIRE(host.saw(kind::ready, 2));
  REQUIRE(eventually([&] { return plugin.status().serving == 0; }));  // calls wait for the new version
  REQUIRE(::kill(host.last(kind::ready).pid, SIGKILL) == 0);
  REQUIRE(host.saw(kind::exited));
  ::kill(old, SIGCONT);
  CHECK(reload.get() == outcome::unavailable);
  CHECK(call.get() == 5);
  CHECK(plugin.call<int>("version") == 1);
  CHECK(plugin.call<int>("total") == 5);
  CHECK(host.count(kind::restarting) == 0);
}

TEST_CASE("a reload whose old worker dies while its last call is waited for takes over all the same") {
  watched_host host;
  auto plugin = host.self.load(counter, untiring(keeping()));
  for (int i = 0; i < 10; ++i) {
    const pid_t old = plugin.workers().front().pid;
    REQUIRE(::kill(old, SIGSTOP) == 0);
    auto call = std::async(std::launch::async, [&] { return plugin.try_call("add", 1).outcome(); });
    REQUIRE(eventually([&] { return plugin.workers().front().outstanding >= 1; }));
    auto reload = std::async(std::launch::async, [&] { plugin.reload(newer); });
    REQUIRE(eventually([&] { return plugin.status().serving == 0; }));  // calls wait for the new version
    REQUIRE(::kill(old, SIGKILL) == 0);
    reload.get();
    const outcome ended = call.get();
    CHECK((ended == outcome::worker_lost || ended == outcome::ok));
    CHECK(plugin.call<int>("version") == 2);
  }
}

}  // namespace bulkhead::testing
