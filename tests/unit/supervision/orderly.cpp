// Starts that take too long, hangs, ends in good order, workers that leave, recycling, spares.
#include "stage.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;
using namespace bulkhead::supervision;
using state = supervisor_state;

namespace {
supervisor_settings recycled(recycle_limits limits, std::size_t instances = 1) {
  auto made = settings(instances);
  made.rules.recycle = limits;
  made.memory_limit = 1000;
  return made;
}
supervisor_settings watched() {
  supervisor_settings made;
  made.instances = 1;
  return made;
}
}  // namespace

TEST_CASE("a worker that is not ready ten seconds after its spawn is killed, and has failed") {
  stage play;
  play.tell(events::start{});
  CHECK(play.wait(1h).empty());  // it waits for the host's budget: that does not count
  play.tell(events::started{1, phase::spawn});
  play.wait(9s);
  play.tell(events::started{1, phase::init});
  CHECK(play.subject.workers().at(0).reached == phase::init);
  CHECK(play.wait(1s - 1ns).empty());
  CHECK(play.wake() == script{"kill 1 start_timeout"});
  CHECK(play.tell(events::ready{1}).empty());  // too late
  CHECK(play.tell(stage::exit(1, exit_class::normal)) == script{"restarting 1 in 0 ms", "respawn 2@0"});
}

TEST_CASE("an idle worker that does not answer for five seconds is killed as hung") {
  stage play(watched());
  play.up();
  for (int i = 0; i < 3; ++i) {
    CHECK(play.subject.wake_at() == play.now + 1s);
    CHECK(play.wake() == script{"ping 1"});
    play.tell(events::answered{1});
  }
  for (int i = 0; i < 5; ++i) CHECK(play.wake() == script{"ping 1"});
  CHECK(play.wake() == script{"kill 1 hung", "degraded 0/1"});
  CHECK(play.subject.serving() == 0);
  CHECK(play.tell(events::answered{1}).empty());
  CHECK(play.crash(1) == script{"restarting 1 in 0 ms", "respawn 2@0"});
}

TEST_CASE("workers that got ready at different times are asked at the same time, each interval") {
  auto made = watched();
  made.instances = 3;
  stage play(made);
  play.tell(events::start{});
  for (worker_id id = 1; id <= 3; ++id) {
    play.ready(id);
    play.now += 200ms;
  }
  for (int i = 0; i < 3; ++i) {
    CHECK(play.wake() == script{"ping 1", "ping 2", "ping 3"});
    for (worker_id id = 1; id <= 3; ++id) play.tell(events::answered{id});
  }
}

TEST_CASE("a question that comes late leaves half an interval for its answer") {
  auto made = watched();
  made.rules.heartbeat.silence = made.rules.heartbeat.interval;
  stage play(made);
  play.up();
  const auto asked = play.now + 1999ms;
  CHECK(play.wait(1999ms) == script{"ping 1"});
  CHECK(play.subject.wake_at() >= asked + 500ms);
  CHECK(play.wake().at(0) == "kill 1 hung");
}

TEST_CASE("an answer in the last second saves a worker") {
  stage play(watched());
  play.up();
  for (int i = 0; i < 5; ++i) play.wake();
  play.tell(events::answered{1});
  for (int i = 0; i < 5; ++i) CHECK(play.wake() == script{"ping 1"});
}

TEST_CASE("a host that was stopped for a while does not take it for its workers' silence") {
  stage play(watched());
  play.up();
  play.wake();
  CHECK(play.wait(1h) == script{"ping 1"});
  CHECK(play.subject.wake_at() == play.now + 1s);
}

TEST_CASE("stop drains, then tells to shut down, then kills, then reports undead and waits no longer") {
  stage play;
  play.up();
  CHECK(play.tell(events::stop{.reason = "unloaded"}) == script{"fail_calls: unloaded", "drain 1"});
  CHECK(play.subject.state() == state::stopping);
  CHECK(play.wait(5s - 1ns).empty());
  CHECK(play.wake() == script{"shutdown 1"});
  CHECK(play.wait(1s - 1ns).empty());
  CHECK(play.wake() == script{"kill 1"});
  CHECK(play.wait(5s - 1ns).empty());
  CHECK(play.wake() == script{"undead 1", "stopped"});
  CHECK(play.subject.wake_at() == never);
  CHECK(play.subject.workers().at(0).state == supervisor::worker_state::undead);
  CHECK(play.crash(1).empty());
  CHECK(play.subject.workers().empty());
}

TEST_CASE("stop goes on as soon as it can, and ends with the last worker's exit") {
  stage play(settings(2, 1));
  play.up();
  CHECK(play.tell(events::stop{}) == script{"fail_calls: ", "drain 3", "drain 2", "drain 1"});
  CHECK(play.tell(events::drained{2}) == script{"shutdown 2"});
  CHECK(play.tell(events::drained{2}).empty());
  CHECK(play.tell(stage::exit(2, exit_class::normal)).empty());
  CHECK(play.tell(events::stop{}) == script{"fail_calls: "});
  CHECK(play.crash(3).empty());  // counts for nothing
  CHECK(play.tell(events::leaving{1}).empty());
  CHECK(play.tell(stage::exit(1, exit_class::normal)) == script{"stopped"});
  CHECK(play.tell(events::start{}) == script{"admit_calls", "spawn 4@0", "spawn 5@1", "spawn 6@2"});
}

TEST_CASE("stop kills what is not ready yet") {
  stage play(settings(2));
  play.tell(events::start{});
  play.tell(events::started{1, phase::load});
  CHECK(play.tell(events::stop{.calls_wait = true}) == script{"kill 2", "kill 1"});
  CHECK_FALSE(play.subject.failing_calls());
  CHECK(play.tell(events::stop{}) == script{"fail_calls: "});  // now they need wait no longer
  play.crash(1);
  CHECK(play.tell(stage::exit(2, exit_class::normal)) == script{"stopped"});
}

TEST_CASE("a plugin that was not started, was given up or ended can be stopped") {
  stage play;
  CHECK(play.tell(events::stop{}) == script{"fail_calls: ", "stopped"});
  play.up();
  play.crash_until_given_up(1);
  CHECK(play.tell(events::stop{}) == script{"fail_calls: ", "stopped"});
}

TEST_CASE("a violation while stopping quarantines when all have ended") {
  stage play(settings(2));
  play.up();
  play.tell(events::stop{.calls_wait = true});
  CHECK(play.tell(stage::exit(1, exit_class::violation)).empty());
  CHECK(play.tell(stage::exit(2, exit_class::normal)) ==
        script{"stopped", "fail_calls: a worker of it broke the rules, so it is quarantined", "quarantined"});
  CHECK(play.tell(events::start{}).empty());
}

TEST_CASE("a violation while stopping for good quarantines nothing") {
  stage play(settings(2));
  play.up();
  const bool before = GENERATE(true, false);  // it is known that it is for good
  play.tell(events::stop{.for_good = before});
  CHECK(play.tell(stage::exit(1, exit_class::violation)).empty());
  if (!before) play.tell(events::stop{.for_good = true});
  CHECK(play.tell(stage::exit(2, exit_class::normal)) == script{"stopped"});
  CHECK(play.subject.state() == state::stopped);
}

TEST_CASE("a killed worker whose end is never reported is replaced when it is undead") {
  stage play(watched());
  play.up();
  while (play.subject.serving()) play.wake();
  CHECK(play.wake() == script{"undead 1", "restarting 1 in 0 ms", "respawn 2@0"});
  CHECK(play.crash(1).empty());
}

TEST_CASE("as many undead workers are replaced as there are places, one more and the plugin is given up") {
  stage play(watched());
  play.up();
  while (play.subject.serving()) play.wake();
  CHECK(play.wake() == script{"undead 1", "restarting 1 in 0 ms", "respawn 2@0"});
  play.ready(2);
  while (play.subject.serving()) play.wake();
  CHECK(play.wake() == script{"undead 2", "fail_calls: 2 workers that were killed do not end",
                              "gave_up: 2 workers that were killed do not end, 0 exits"});
  CHECK(play.subject.state() == state::gave_up);
}

TEST_CASE("the replacement of a worker that leaves is ready before it drains") {
  stage play;
  play.up();
  play.wait(60s);
  CHECK(play.tell(events::leaving{1}) == script{"spawn 2@0"});
  CHECK(play.tell(events::leaving{1}).empty());
  CHECK(play.subject.serving() == 1);
  CHECK(play.ready(2) == script{"serve 2@0", "drain 1"});
  CHECK(play.tell(events::drained{1}) == script{"shutdown 1"});
  CHECK(play.tell(stage::exit(1, exit_class::abnormal, true)).empty());
}

TEST_CASE("a worker that leaves is waited for ten seconds, be there a replacement or not") {
  stage play;
  play.up();
  play.wait(60s);
  play.tell(events::leaving{1});
  CHECK(play.wait(10s - 1ns).empty());
  CHECK(play.wake() == script{"drain 1", "degraded 0/1"});
  CHECK(play.ready(2) == script{"serve 2@0", "recovered"});
}

TEST_CASE("a worker that leaves and goes at once is replaced once") {
  stage play;
  play.up();
  play.wait(60s);
  play.tell(events::leaving{1});
  CHECK(play.tell(stage::exit(1, exit_class::normal)) == script{"degraded 0/1"});
  CHECK(play.ready(2) == script{"serve 2@0", "recovered"});
}

TEST_CASE("workers that leave soon after they came count as restarts") {
  stage play;
  play.up();
  CHECK(play.tell(events::leaving{1}) == script{"restarting 1 in 0 ms", "respawn 2@0"});
  play.ready(2);
  CHECK(play.tell(events::leaving{2}) == script{"restarting 2 in 100 ms"});
  SECTION("it goes before its replacement's time has come") {
    CHECK(play.crash(2) == script{"degraded 0/1"});
    CHECK(play.wait(100ms) == script{"respawn 3@0"});
  }
  SECTION("it goes on until that has come") {
    CHECK(play.wait(100ms) == script{"respawn 3@0"});
    CHECK(play.ready(3) == script{"serve 3@0", "drain 2"});
  }
  SECTION("at last the plugin is given up") {
    for (worker_id id = 3; play.subject.state() == state::running; ++id) {
      play.wait(1s);
      play.ready(id);
      play.tell(events::leaving{id});
    }
    CHECK(play.subject.state() == state::gave_up);
  }
}

TEST_CASE("the failing replacement of a worker that leaves is a failure, a rejected one is not tried again") {
  stage play;
  play.up();
  play.wait(60s);
  play.tell(events::leaving{1});
  SECTION("failing") {
    CHECK(play.crash(2) == script{"restarting 2 in 0 ms", "respawn 3@0"});
    CHECK(play.ready(3) == script{"serve 3@0", "drain 1"});
  }
  SECTION("rejected") {
    CHECK(play.tell(stage::exit(2, exit_class::rejected)).empty());
    SECTION("until the worker is gone") {
      CHECK(play.tell(stage::exit(1, exit_class::normal)).at(0).starts_with("fail_calls"));
      CHECK(play.subject.state() == state::ended);
    }
    SECTION("unless reset") { CHECK(play.tell(events::reset{}) == script{"spawn 3@0"}); }
  }
}

TEST_CASE("a temporary worker that leaves is not replaced") {
  auto made = settings();
  made.rules.restart = restart_kind::temporary;
  stage play(made);
  play.up();
  CHECK(play.tell(events::leaving{1}).at(0) == "drain 1");
  CHECK(play.subject.state() == state::ended);
}

TEST_CASE("a recycled worker drains when its replacement is ready, one at a time in a pool") {
  stage play(settings(2));
  play.up();
  CHECK(play.tell(events::recycle{1}) == script{"spawn 3@0"});
  CHECK(play.tell(events::recycle{2}).empty());
  CHECK(play.subject.serving() == 2);
  CHECK(play.ready(3) == script{"serve 3@0", "drain 1"});
  CHECK(play.tell(stage::exit(1, exit_class::normal)) == script{"spawn 4@1"});
  CHECK(play.ready(4) == script{"serve 4@1", "drain 2"});
}

TEST_CASE("recycling never counts as a restart") {
  stage play;
  play.up();
  for (worker_id id = 1; id <= 20; ++id) {
    REQUIRE(play.tell(events::recycle{id}) == script{"spawn " + std::to_string(id + 1) + "@0"});
    play.ready(id + 1);
    play.tell(stage::exit(id, exit_class::abnormal));
  }
  CHECK(play.crash(21).at(0) == "restarting 21 in 0 ms");
}

TEST_CASE("a replacement that fails leaves the recycled worker in its place, to be tried later") {
  stage play;
  play.up();
  play.tell(events::recycle{1});
  CHECK(play.tell(stage::exit(2, GENERATE(exit_class::abnormal, exit_class::rejected))).empty());
  CHECK(play.subject.serving() == 1);
  CHECK(play.wait(60s - 1ns).empty());
  CHECK(play.wake() == script{"spawn 3@0"});
  SECTION("and one that is there when the old one crashes takes over") {
    CHECK(play.crash(1) == script{"degraded 0/1"});
    CHECK(play.ready(3) == script{"serve 3@0", "recovered"});
  }
  SECTION("a recycled worker may leave meanwhile") {
    CHECK(play.tell(events::leaving{1}).empty());
    CHECK(play.ready(3) == script{"serve 3@0", "drain 1"});
  }
}

TEST_CASE("a worker is recycled on calls served, age, or memory, with jitter") {
  const double jitter = GENERATE(-1, 0, 1);
  const auto share = static_cast<std::size_t>(10 + jitter);  // tenths
  SECTION("calls") {
    stage play(recycled({.calls = 1000}), jitter);
    play.up();
    CHECK(play.tell(events::usage{1, share * 100 - 1, 0}).empty());
    CHECK(play.tell(events::usage{1, share * 100, 0}) == script{"spawn 2@0"});
  }
  SECTION("age") {
    stage play(recycled({.age = 10h}), jitter);
    play.up();
    CHECK(play.subject.wake_at() == play.now + share * 1h);
    CHECK(play.wake() == script{"spawn 2@0"});
    CHECK(play.subject.wake_at() == never);
  }
  SECTION("memory: above 80 % of its limit") {
    stage play(recycled({}), jitter);
    play.up();
    CHECK(play.tell(events::usage{1, 0, share * 80 - 1}).empty());
    CHECK(play.tell(events::usage{1, 0, share * 80 + 1}) == script{"spawn 2@0", "soon_heavy"});
  }
}

TEST_CASE("workers that are heavy from their start are recycled for that once in healthy_after, which is told once") {
  stage play(recycled({.calls = 1000}));
  const events::usage first{1, 0, 900}, second{2, 0, 900}, third{3, 0, 900};
  play.up();
  CHECK(play.tell(first) == script{"spawn 2@0", "soon_heavy"});
  CHECK(play.ready(2) == script{"serve 2@0", "drain 1"});
  play.tell(stage::exit(1, exit_class::normal));
  CHECK_FALSE(play.subject.worn(second));
  play.wait(60s - 1ns);
  CHECK(play.tell(second).empty());
  SECTION("again and again") {
    play.wait(1ns);
    CHECK(play.tell(second) == script{"spawn 3@0"});
    play.ready(3);
    play.tell(stage::exit(2, exit_class::normal));
    play.wait(60s - 1ns);
    CHECK(play.tell(third).empty());
    play.wait(1ns);
    CHECK(play.tell(third) == script{"spawn 4@0"});
  }
  SECTION("one that is well for longer is forgiven") {
    play.wait(2min);
    CHECK(play.tell(second) == script{"spawn 3@0"});
    play.ready(3);
    play.tell(stage::exit(2, exit_class::normal));
    CHECK(play.tell(third) == script{"spawn 4@0"});
  }
  SECTION("calls served, or a request, are no less a reason") {
    CHECK(play.tell(events::usage{2, 1000, 900}) == script{"spawn 3@0"});
    play.ready(3);
    play.tell(stage::exit(2, exit_class::normal));
    CHECK(play.tell(events::recycle{3}) == script{"spawn 4@0"});
  }
}

TEST_CASE("usage that changes nothing is known beforehand") {
  stage play(recycled({.calls = 1000}));
  play.tell(events::start{});
  const events::usage worn{1, 1000, 0};
  CHECK_FALSE(play.subject.worn(worn));  // it is not ready
  play.ready(1);
  CHECK_FALSE(play.subject.worn({1, 999, 799}));
  CHECK_FALSE(play.subject.worn({2, 1000, 1000}));
  CHECK(play.subject.worn({1, 0, 1000}));
  CHECK(play.subject.worn(worn));
  CHECK_FALSE(play.tell(worn).empty());
  CHECK_FALSE(play.subject.worn(worn));
}

TEST_CASE("an answer that no other worker is looked at for keeps its worker alive") {
  supervisor_settings with = settings();
  with.rules.heartbeat.interval = 1s;
  with.rules.heartbeat.silence = 3s;
  stage play(with);
  play.up();
  for (int i = 0; i < 10; ++i) {
    CHECK(play.wake() == script{"ping 1"});
    play.subject.answered(1);
  }
  play.subject.answered(2);  // there is none
}

TEST_CASE("by default a worker is recycled for its memory only, and not without a limit of it") {
  stage play;
  play.up();
  CHECK(play.tell(events::usage{1, ~std::uint64_t{0}, ~std::size_t{0}}).empty());
  CHECK(play.subject.wake_at() == never);
}

TEST_CASE("a spare takes the place of a worker that fails, at once, the restart fills the spare's") {
  stage play(settings(2, 1));
  play.up();
  CHECK(play.crash(1) == script{"restarting 1 in 0 ms", "serve 3@0", "respawn 4@2"});
  CHECK(play.crash(2).front() == "restarting 2 in 100 ms");
  CHECK(play.subject.serving() == 1);
  CHECK(play.ready(4) == script{"serve 4@1", "recovered"});  // it was to be a spare
  CHECK(play.wait(100ms) == script{"respawn 5@2"});
}

TEST_CASE("a spare serves while a hung worker is being killed") {
  auto made = watched();
  made.rules.spares = 1;
  stage play(made);
  play.up();
  for (int i = 0; i < 5; ++i) {
    play.wake();
    play.tell(events::answered{2});
  }
  CHECK(play.wake() == script{"kill 1 hung", "ping 2", "serve 2@0"});
  CHECK(play.crash(1) == script{"restarting 1 in 0 ms", "respawn 3@1"});
}

TEST_CASE("degraded is told once, recovered when all serve") {
  stage play(settings(3));
  play.up();
  CHECK(play.crash(1).back() == "degraded 2/3");
  CHECK(play.crash(2) == script{"restarting 2 in 100 ms"});
  CHECK(play.ready(4) == script{"serve 4@0"});
  play.wait(100ms);
  CHECK(play.ready(5) == script{"serve 5@1", "recovered"});
}

TEST_CASE("what comes from workers that are gone, or in the wrong state, is ignored") {
  stage play;
  play.up();
  for (const worker_id id : {worker_id{0}, worker_id{99}}) {
    CHECK(play.tell(events::started{id, phase::load}).empty());
    CHECK(play.tell(events::ready{id}).empty());
    CHECK(play.tell(events::drained{id}).empty());
    CHECK(play.tell(events::leaving{id}).empty());
    CHECK(play.tell(events::answered{id}).empty());
    CHECK(play.tell(events::usage{id, 1, 1}).empty());
    CHECK(play.tell(events::recycle{id}).empty());
    CHECK(play.crash(id).empty());
  }
  CHECK(play.tell(events::started{1, phase::load}).empty());
  CHECK(play.tell(events::drained{1}).empty());
  CHECK(play.subject.workers().at(0).reached == phase::ready);
}

TEST_CASE("limits of none at all and of forever are taken at their word") {
  auto made = settings();
  made.rules.drain = {.calls = 0ns, .shutdown = 0ns, .undead_after = std::chrono::nanoseconds::max()};
  made.start_limit = std::chrono::nanoseconds::max();
  stage play(made);
  play.up();
  CHECK(play.tell(events::stop{.calls_wait = true}) == script{"drain 1", "shutdown 1", "kill 1"});
  CHECK(play.subject.wake_at() == never);
}
