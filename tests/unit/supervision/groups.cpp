// How a failure of one plugin reaches the others of its group: every transition, with no process at all.
#include "../../../host/src/supervision/group_supervisor.hpp"
#include "../../../host/src/supervision/supervisor.hpp"
#include "stage.hpp"

#include <catch2/catch.hpp>

namespace bulkhead::supervision {
namespace {

using state = group_supervisor::state;

// A group whose members are called a, b, c …; what comes out is written as text.
struct group_stage {
  explicit group_stage(restart_strategy strategy, std::size_t members = 3) : group(strategy) {
    for (std::size_t i = 0; i < members; ++i) group.add(std::string(1, static_cast<char>('a' + i)));
  }

  static std::string text(const group_supervisor::action_list& list) {
    std::string out;
    for (const auto& each : list) {
      if (!out.empty()) out += ", ";
      if (const auto* stop = std::get_if<group_supervisor::stop>(&each))
        out += (stop->calls_wait ? "stop " : "shut ") + name(stop->member) +
               (stop->reason.empty() ? "" : ": " + stop->reason);
      else if (const auto* start = std::get_if<group_supervisor::start>(&each)) out += "start " + name(start->member);
      else out += "reset " + name(std::get<group_supervisor::reset>(each).member);
    }
    return out;
  }
  static std::string name(std::size_t member) { return std::string(1, static_cast<char>('a' + member)); }

  std::string failed(std::size_t member, std::chrono::milliseconds delay = 0ms) {
    return text(group.failed(member, now + delay, now));
  }
  std::string stopped(std::size_t member) { return text(group.stopped(member, now)); }
  std::string whole(std::size_t member) { return text(group.whole(member, now)); }
  std::string gave_up(std::size_t member) { return text(group.out(member, true, "was given up", now)); }
  std::string ended(std::size_t member) { return text(group.out(member, false, "has ended", now)); }
  std::string removed(std::size_t member) { return text(group.removed(member, now)); }
  std::string replaced(std::size_t member) { return text(group.replaced(member, now)); }
  std::string reset() { return text(group.reset_all(now)); }
  std::string tick(std::chrono::milliseconds later) { return text(group.tick(now += later)); }

  group_supervisor group;
  time_point now{std::chrono::hours(1)};
};

}  // namespace

TEST_CASE("one for all: all are stopped in reverse order and started in order, one at a time") {
  group_stage stage(restart_strategy::one_for_all);
  CHECK(stage.failed(1) == "stop c");
  CHECK(stage.stopped(2) == "stop b");
  CHECK(stage.stopped(1) == "stop a");
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.whole(0) == "start b");
  CHECK(stage.whole(1) == "start c");
  CHECK(stage.whole(2).empty());
  for (std::size_t i : {0, 1, 2}) CHECK(stage.group.state_of(i) == state::running);
}

TEST_CASE("rest for one: those loaded before the one that failed are left alone") {
  group_stage stage(restart_strategy::rest_for_one);
  CHECK(stage.failed(1) == "stop c");
  CHECK(stage.stopped(2) == "stop b");
  CHECK(stage.stopped(1) == "start b");
  CHECK(stage.whole(1) == "start c");
  CHECK(stage.whole(2).empty());
  CHECK(stage.group.state_of(0) == state::running);
  CHECK(stage.failed(2) == "stop c");
}

TEST_CASE("a group's restart waits for the delay, the longest when several fail") {
  group_stage stage(restart_strategy::rest_for_one, 2);
  CHECK(stage.failed(0, 100ms) == "stop b");
  CHECK(stage.group.wake_at() == never);  // it waits for b
  CHECK(stage.stopped(1) == "stop a");
  CHECK(stage.stopped(0).empty());
  CHECK(stage.group.wake_at() == stage.now + 100ms);
  CHECK(stage.tick(99ms).empty());
  CHECK(stage.tick(1ms) == "start a");
  CHECK(stage.failed(0, 400ms) == "stop a");
  CHECK(stage.stopped(0).empty());
  CHECK(stage.group.wake_at() == stage.now + 400ms);
  CHECK(stage.tick(400ms) == "start a");
}

TEST_CASE("a failure during a group's restart starts it over, with all that it reaches") {
  group_stage stage(restart_strategy::one_for_all);
  stage.failed(2);
  stage.stopped(2);
  stage.stopped(1);
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.whole(0) == "start b");
  CHECK(stage.failed(1) == "stop b");  // c does not run
  CHECK(stage.stopped(1) == "stop a");
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.whole(0) == "start b");
  CHECK(stage.whole(1) == "start c");

  SECTION("one before those that restart joins them") {
    group_stage later(restart_strategy::rest_for_one);
    CHECK(later.failed(2) == "stop c");
    CHECK(later.failed(0).empty());  // c still stops
    CHECK(later.stopped(2) == "stop b");
    CHECK(later.stopped(1) == "stop a");
    CHECK(later.stopped(0) == "start a");
  }
}

TEST_CASE("what depends on a plugin that is given up is stopped, and its calls fail, until reset") {
  group_stage stage(restart_strategy::rest_for_one);
  CHECK(stage.gave_up(1) == "shut c: plugin b of its group was given up");
  CHECK(stage.stopped(2).empty());
  CHECK(stage.group.state_of(0) == state::running);
  CHECK(stage.failed(0) == "stop a");  // neither b nor c comes back with it
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.whole(0).empty());
  CHECK(stage.reset() == "reset a, reset b, reset c, start b");
  CHECK(stage.whole(1) == "start c");
  CHECK(stage.whole(2).empty());
}

TEST_CASE("a plugin that is given up while its group restarts takes the waiting ones down") {
  group_stage stage(restart_strategy::one_for_all);
  stage.failed(0);
  stage.stopped(2);
  stage.stopped(1);
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.gave_up(0) == "shut c: plugin a of its group was given up, shut b: plugin a of its group was given up");
  CHECK(stage.stopped(1).empty());
  CHECK(stage.stopped(2).empty());
  SECTION("reset while one of them still stops") {
    group_stage again(restart_strategy::one_for_all, 2);
    CHECK(again.gave_up(0) == "shut b: plugin a of its group was given up");
    CHECK(again.reset() == "reset a, reset b");
    CHECK(again.stopped(1) == "start a");
    CHECK(again.whole(0) == "start b");
  }
}

TEST_CASE("a plugin that ends as it may leaves its group alone, unless the group waits for it") {
  group_stage stage(restart_strategy::one_for_all);
  CHECK(stage.ended(1).empty());
  CHECK(stage.failed(0) == "stop c");
  CHECK(stage.stopped(2) == "stop a");
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.ended(0) == "shut c: plugin a of its group has ended");
}

TEST_CASE("an unloaded member is waited for by nobody") {
  group_stage stage(restart_strategy::one_for_all);
  CHECK(stage.failed(0) == "stop c");
  CHECK(stage.removed(2) == "stop b");
  CHECK(stage.stopped(1) == "stop a");
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.removed(0) == "start b");
  CHECK(stage.whole(1).empty());
  CHECK(stage.reset() == "reset b");
  CHECK(stage.gave_up(2).empty());
}

TEST_CASE("the delay of a member that is unloaded, or has a new version, is waited for no longer") {
  group_stage stage(restart_strategy::rest_for_one, 2);
  CHECK(stage.failed(0, 100ms) == "stop b");
  CHECK(stage.stopped(1) == "stop a");
  CHECK(stage.stopped(0).empty());
  SECTION("unloaded") { CHECK(stage.removed(0) == "start b"); }
  SECTION("a new version") {
    CHECK(stage.replaced(0) == "stop a");
    CHECK(stage.stopped(0) == "start a");
  }
}

TEST_CASE("a new version of a member takes part in the restart that it came into") {
  group_stage stage(restart_strategy::one_for_all);
  CHECK(stage.replaced(1).empty());
  CHECK(stage.failed(0) == "stop c");
  CHECK(stage.stopped(2) == "stop b");
  CHECK(stage.replaced(1) == "stop b");
  CHECK(stage.stopped(1) == "stop a");
  CHECK(stage.stopped(0) == "start a");
  CHECK(stage.whole(0) == "start b");
  CHECK(stage.replaced(1) == "stop b");
  CHECK(stage.stopped(1) == "start b");
  CHECK(stage.whole(1) == "start c");

  SECTION("a good version of one that was given up runs; those it took down wait for reset") {
    group_stage given_up(restart_strategy::rest_for_one, 2);
    given_up.gave_up(0);
    given_up.stopped(1);
    CHECK(given_up.replaced(0).empty());
    CHECK(given_up.group.state_of(0) == state::running);
    CHECK(given_up.group.held(1) == "plugin a of its group was given up");
    CHECK(given_up.reset() == "reset a, reset b, start b");
  }
}

TEST_CASE(
    "a supervisor in a group asks it for restarts, counts them in its window, and lets calls wait after a reset") {
  restart_window window({1, 60s});
  auto with_group = settings(2);
  with_group.coupled = true;
  supervisor member(
      with_group, [] { return 0.0; }, &window);
  const time_point now{std::chrono::hours(1)};
  const auto send = [&](const event& what) {
    std::string out;
    for (const action& each : member.handle(what, now)) out += (out.empty() ? "" : ", ") + text(each);
    return out;
  };
  send(events::start{});
  for (worker_id id : {1, 2}) send(events::started{id, phase::spawn});
  CHECK_FALSE(member.whole());
  for (worker_id id : {1, 2}) send(events::ready{id});
  CHECK(member.whole());
  CHECK(send(events::exited{1, exit_class::abnormal}) == "restarting 1 in 0 ms, restart_group, degraded 1/2");
  CHECK_FALSE(member.whole());
  CHECK(send(events::stop{.calls_wait = true}) == "drain 2");
  send(events::drained{2});
  CHECK(send(events::exited{2, exit_class::normal}) == "stopped");
  send(events::start{});
  CHECK(send(events::exited{3, exit_class::abnormal}).find("gave_up: more than 1 restarts in 60 s") !=
        std::string::npos);
  CHECK(member.failing_calls());
  CHECK(send(events::reset{.start = false}) == "admit_calls");
  CHECK(member.state() == supervisor_state::stopped);
}

TEST_CASE("what a group starts again is restarted, what starts after a reset is not") {
  stage play(settings(2));
  play.up();
  const auto stop = [&](worker_id first) {
    play.tell(events::stop{.calls_wait = true});
    for (const worker_id id : {first, first + 1}) play.tell(stage::exit(id, exit_class::normal));
    REQUIRE(play.subject.state() == supervisor_state::stopped);
  };
  stop(1);
  CHECK(play.tell(events::start{}) == script{"respawn 3@0", "respawn 4@1"});
  for (const worker_id id : {3, 4}) play.ready(id);
  stop(3);
  play.tell(events::reset{.start = false});
  CHECK(play.tell(events::start{}) == script{"spawn 5@0", "spawn 6@1"});
}

}  // namespace bulkhead::supervision
