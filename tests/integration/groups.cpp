// Plugins of a group: how the failure of one reaches the others, in which order they come back, and what their calls
// see of it.
#include "watched_host.hpp"
#include <bulkhead/metrics.hpp>

#include <csignal>
#include <future>

namespace bulkhead::testing {
namespace {

using kind = enum lifecycle_event::kind;
using state = enum plugin_status::state;

load_options named(std::string name, load_options options = {}) {
  options.name = std::move(name);
  options.supervision.backoff.first = 1ms;
  return options;
}

struct trio {  // two that answer and, between them, one that can be made to fail
  plugin first, second, third;
  trio(plugin_group group, load_options options = {})
      : first(group.load(plugin_path("echo"), named("first", options))),
        second(group.load(plugin_path("chaos"), named("second", options))),
        third(group.load(plugin_path("echo"), named("third", options))) {}
};

// "ready third", …: what became of whom, in order, of these kinds.
std::vector<std::string> story(watched_host& host, const std::set<kind>& kinds) {
  std::vector<std::string> told;
  for (const auto& event : host.events.values())
    if (kinds.contains(event.kind)) told.push_back(std::string(to_string(event.kind)) + " " + event.plugin);
  return told;
}

using words = std::vector<std::string>;

}  // namespace

TEST_CASE("one for all: when a plugin fails its whole group starts again in order, and calls to it wait") {
  watched_host host;
  trio of(host.self.group({.strategy = restart_strategy::one_for_all}));
  const auto before = {pids(of.first), pids(of.second), pids(of.third)};
  CHECK(of.second.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
  CHECK(of.first.call<int>("add", 1, 2) == 3);
  CHECK(of.second.call<int>("echo", 4) == 4);
  CHECK(of.third.call<int>("add", 5, 6) == 11);
  CHECK(pids(of.first) != std::data(before)[0]);
  CHECK(pids(of.third) != std::data(before)[2]);
  REQUIRE(host.saw(kind::ready, 6));
  const words expected = {"ready first",     "ready second", "ready third",      "exited second",
                          "regrouped third", "exited third", "regrouped second", "regrouped first",
                          "exited first",    "ready first",  "ready second",     "ready third"};
  CHECK(story(host, {kind::ready, kind::exited, kind::regrouped}) == expected);
}

TEST_CASE("rest for one: those loaded before the plugin that fails go on, those after it start again") {
  watched_host host;
  trio of(host.self.group({.strategy = restart_strategy::rest_for_one}));
  const auto first = pids(of.first), third = pids(of.third);
  CHECK(of.second.try_call("misbehave", "exit_3").outcome() == outcome::worker_lost);
  CHECK(of.third.call<int>("add", 5, 6) == 11);
  CHECK(pids(of.first) == first);
  CHECK(pids(of.third) != third);
  const auto second = pids(of.second);
  REQUIRE(::kill(*pids(of.third).begin(), SIGKILL) == 0);
  REQUIRE(host.saw(kind::ready, 6));
  CHECK(of.third.call<int>("add", 5, 6) == 11);
  CHECK(pids(of.second) == second);
}

TEST_CASE("one for one: plugins of a group fail alone, each with its own limits, and are unloaded together") {
  watched_host host;
  auto group = host.self.group({.strategy = restart_strategy::one_for_one});
  trio of(group);
  const auto first = pids(of.first), third = pids(of.third);
  CHECK(of.second.try_call("misbehave", "garbage_on_channel").outcome() == outcome::protocol);
  CHECK(of.second.try_call("echo", 1).outcome() == outcome::unavailable);
  CHECK(pids(of.first) == first);
  CHECK(pids(of.third) == third);
  group.reset();
  CHECK(of.second.call<int>("echo", 1) == 1);
  group.unload();
  REQUIRE(host.saw(kind::exited, 4));
  CHECK(story(host, {kind::exited}) == words{"exited second", "exited third", "exited second", "exited first"});
}

TEST_CASE("calls in progress in a group's other plugins end before these are stopped") {
  watched_host host;
  auto group = host.self.group({.strategy = restart_strategy::one_for_all});
  auto slow = group.load(plugin_path("chaos"), named("slow"));
  auto failing = group.load(plugin_path("chaos"), named("failing"));
  auto call = std::async(std::launch::async, [&] { return slow.try_call("sleep_ms", 300).outcome(); });
  while (slow.workers().front().outstanding == 0) std::this_thread::yield();
  CHECK(failing.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
  CHECK(call.get() == outcome::ok);
  REQUIRE(host.saw(kind::ready, 4));
}

TEST_CASE("when a plugin of a group is given up the others are stopped, their calls say why, and reset starts all") {
  const bool by_group = GENERATE(true, false);  // or by the plugin that was stopped
  watched_host host;
  auto group = host.self.group({.strategy = restart_strategy::rest_for_one, .intensity = {.restarts = 0}});
  trio of(group);
  SECTION("too many failures") {
    CHECK(of.second.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
    REQUIRE(host.saw(kind::gave_up));
    CHECK(of.second.status().state == state::gave_up);
  }
  SECTION("a violation") {
    CHECK(of.second.try_call("misbehave", "garbage_on_channel").outcome() == outcome::protocol);
    REQUIRE(host.saw(kind::quarantined));
    CHECK(of.second.status().state == state::quarantined);
  }
  const auto refused = failure_of([&] { of.third.call<int>("add", 1, 2); });
  CHECK(refused.outcome() == outcome::unavailable);
  CHECK(refused.message().find("plugin second of its group") != std::string::npos);
  CHECK(refused.message().find("plugin_group::reset()") != std::string::npos);
  CHECK(of.third.status().state == state::stopped);
  CHECK(of.third.status().reason == refused.message());
  CHECK(of.first.call<int>("add", 1, 2) == 3);

  const auto first = pids(of.first);
  if (by_group) group.reset();
  else of.third.reset();
  CHECK(of.third.call<int>("add", 1, 2) == 3);
  CHECK(of.second.call<int>("echo", 1) == 1);
  CHECK(of.third.status().state == state::running);
  CHECK(pids(of.first) == first);
}

TEST_CASE(
    "while a group waits for its restart calls wait, and reset or the unloading of the failed one ends the wait") {
  watched_host host;
  auto group = host.self.group({.strategy = restart_strategy::rest_for_one});
  auto options = named("failing");
  options.supervision.backoff.first = 600s;
  auto failing = group.load(plugin_path("chaos"), options);
  auto next = group.load(plugin_path("echo"), named("next"));
  CHECK(failing.try_call("misbehave", "exit_3").outcome() == outcome::worker_lost);
  CHECK(next.call<int>("add", 1, 2) == 3);  // the first restart comes at once
  CHECK(failing.try_call("misbehave", "exit_3").outcome() == outcome::worker_lost);
  REQUIRE(host.saw(kind::exited, 4));
  CHECK(next.status().state == state::stopped);
  CHECK(next.status().reason.empty());
  auto waiting = std::async(std::launch::async, [&] { return next.call<int>("add", 3, 4); });
  while (next.status().waiting == 0) std::this_thread::yield();
  SECTION("reset") {
    group.reset();
    CHECK(failing.call<int>("echo", 1) == 1);
  }
  SECTION("unloading") { failing.unload(); }
  SECTION("unloading what they wait for") {
    next.unload();
    CHECK(failure_of([&] { waiting.get(); }).outcome() == outcome::unavailable);
    return;
  }
  CHECK(waiting.get() == 7);
}

TEST_CASE("a reload of one plugin leaves its group alone, and the new version is a member like the old one") {
  watched_host host;
  trio of(host.self.group({.strategy = restart_strategy::one_for_all}));
  const auto first = pids(of.first), second = pids(of.second);
  of.second.reload(plugin_path("chaos"));
  CHECK(pids(of.first) == first);
  CHECK(of.second.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
  CHECK(of.second.call<int>("echo", 1) == 1);
  CHECK(of.first.call<int>("add", 1, 2) == 3);
  CHECK(pids(of.first) != first);
}

TEST_CASE("a load or reload that fails is no restart, neither in a plugin's own account nor in its group's") {
  watched_host host;
  load_options options{.environment = {"BULKHEAD_CHAOS_AT=init", "BULKHEAD_CHAOS=segfault"}};
  options.supervision.intensity.restarts = 0;
  CHECK(failure_of([&] { host.self.load(plugin_path("chaos"), options); }).report()->signal == SIGSEGV);
  auto alone = host.self.load(plugin_path("echo"), options);
  CHECK(failure_of([&] { alone.reload(plugin_path("chaos")); }).report()->signal == SIGSEGV);
  CHECK(alone.metrics().restarts == 0);

  auto group = host.self.group({.intensity = {.restarts = 1}});
  auto member = group.load(plugin_path("echo"), named("member", options));
  for (int i = 0; i < 2; ++i) CHECK_THROWS_AS(member.reload(plugin_path("chaos")), call_error);
  CHECK(host.count(kind::restarting) == 0);
  REQUIRE(::kill(*pids(member).begin(), SIGKILL) == 0);
  CHECK(host.saw(kind::restarting));
  CHECK(member.call<int>("add", 1, 2) == 3);
  CHECK(host.count(kind::gave_up) == 0);
}

TEST_CASE("a plugin that can't be loaded into a group leaves the group as it was") {
  watched_host host;
  auto group = host.self.group();
  auto first = group.load(plugin_path("echo"), named("first"));
  const auto before = pids(first);
  CHECK(failure_of([&] { group.load(plugin_path("no_such")); }).outcome() == outcome::rejected);
  CHECK(failure_of([&] { group.launch({"/bin/false"}); }).outcome() == outcome::unavailable);
  CHECK_THROWS_AS(group.load(plugin_path("echo"), {.isolation = isolation::none}), std::invalid_argument);
  CHECK(first.call<int>("add", 1, 2) == 3);
  CHECK(pids(first) == before);
  auto second = group.load(plugin_path("chaos"), named("second"));
  CHECK(second.try_call("misbehave", "segfault").outcome() == outcome::worker_lost);
  CHECK(first.call<int>("add", 1, 2) == 3);
  CHECK(pids(first) != before);
}

}  // namespace bulkhead::testing
