// Which ends of a worker are followed by a restart, when, and when no more.
#include "stage.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;
using namespace bulkhead::supervision;
using state = supervisor_state;

namespace {
supervisor_settings with(restart_kind kind) {
  auto made = settings();
  made.rules.restart = kind;
  return made;
}
}  // namespace

TEST_CASE("a plugin starts with all its instances and spares, and serves as they get ready") {
  stage play(settings(2, 1));
  CHECK(play.tell(events::start{}) == script{"spawn 1@0", "spawn 2@1", "spawn 3@2"});
  CHECK(play.tell(events::start{}).empty());
  CHECK(play.tell(events::started{1, phase::spawn}).empty());
  CHECK(play.tell(events::ready{1}) == script{"serve 1@0"});
  CHECK(play.ready(2) == script{"serve 2@1"});
  CHECK(play.ready(3).empty());
  CHECK(play.tell(events::ready{3}).empty());
  CHECK(play.subject.serving() == 2);
  CHECK(play.subject.wake_at() == never);
  CHECK(play.subject.state() == state::running);
}

TEST_CASE("a crash is followed by a restart at once, the next ones later and later") {
  stage play;
  play.up();
  CHECK(play.crash(1) == script{"restarting 1 in 0 ms", "respawn 2@0", "degraded 0/1"});
  CHECK(play.ready(2) == script{"serve 2@0", "recovered"});
  const int delays[] = {100, 200, 400, 800};
  worker_id id = 2;
  for (const int delay : delays) {
    CHECK(play.crash(id) ==
          script{"restarting " + std::to_string(id) + " in " + std::to_string(delay) + " ms", "degraded 0/1"});
    CHECK(play.subject.wake_at() == play.now + delay * 1ms);
    CHECK(play.wait(delay * 1ms - 1ns).empty());
    ++id;
    CHECK(play.wait(1ns) == script{"respawn " + std::to_string(id) + "@0"});
    play.ready(id);
  }
}

TEST_CASE("a delay has jitter") {
  stage play(settings(), -1);
  play.up();
  play.crash(1);
  CHECK(play.crash(2) == script{"restarting 2 in 80 ms"});
}

TEST_CASE("after a minute of health the delays begin anew, not before") {
  stage play;
  play.up();
  play.crash(1);
  play.ready(2);
  play.wait(60s - 1ns);
  SECTION("not quite a minute") { CHECK(play.crash(2).front() == "restarting 2 in 100 ms"); }
  SECTION("a minute") {
    play.wait(1ns);
    CHECK(play.crash(2).front() == "restarting 2 in 0 ms");
  }
}

TEST_CASE("time without all workers ready is not health") {
  stage play(settings(2));
  play.up();
  play.crash(1);
  play.wait(2min);  // worker 3 is still waiting to be spawned
  CHECK(play.crash(2).front() == "restarting 2 in 100 ms");
}

TEST_CASE("the sixth failure in a minute gives the plugin up, with the last five exits") {
  stage play;
  play.up();
  const auto last = play.crash_until_given_up(1);
  CHECK(last == script{"fail_calls: more than 5 restarts in 60 s", "gave_up: more than 5 restarts in 60 s, 5 exits"});
  const auto* const event = play.last<actions::gave_up>();
  REQUIRE(event);
  CHECK(event->last_exits.front()->exit_code == 2);
  CHECK(event->last_exits.back()->exit_code == 6);
  CHECK(play.subject.workers().empty());
  CHECK(play.subject.failing_calls());
  CHECK(play.subject.wake_at() == never);
  CHECK(play.wait(24h).empty());
  CHECK(play.tell(events::start{}).empty());
}

TEST_CASE("failures that slide out of the window do not count") {
  stage play;
  play.up();
  worker_id id = 1;
  for (; id <= 20; ++id) {
    play.crash(id);
    REQUIRE(play.subject.state() == state::running);
    play.wait(12s);
    play.ready(id + 1);
  }
}

TEST_CASE("giving up drains the workers that are left") {
  auto made = settings(3, 1);
  made.rules.intensity.restarts = 0;
  stage play(made);
  play.tell(events::start{});
  play.ready(1);
  play.ready(2);
  CHECK(play.crash(2) == script{"fail_calls: more than 0 restarts in 60 s",
                                "gave_up: more than 0 restarts in 60 s, 1 exits", "kill 4", "kill 3", "drain 1"});
  CHECK(play.crash(4).empty());
  CHECK(play.crash(1).empty());
  CHECK(play.subject.workers().size() == 1);
}

TEST_CASE("which ends are followed by a restart") {
  const auto kind = GENERATE(restart_kind::permanent, restart_kind::transient, restart_kind::temporary);
  const auto how = GENERATE(exit_class::normal, exit_class::abnormal, exit_class::rejected);
  const bool pending = GENERATE(false, true);
  const bool expected = how != exit_class::rejected && kind != restart_kind::temporary &&
                        (kind == restart_kind::permanent || how == exit_class::abnormal || pending);
  CAPTURE(static_cast<int>(kind), static_cast<int>(how), pending);
  stage play(with(kind));
  play.up();
  const auto all = play.tell(stage::exit(1, how, pending));
  if (expected) {
    CHECK(all == script{"restarting 1 in 0 ms", "respawn 2@0", "degraded 0/1"});
  } else {
    CHECK(all == script{"fail_calls: its workers have ended, and none is to be started again", "ended"});
    CHECK(play.subject.state() == state::ended);
    CHECK(play.tell(events::reset{}) == script{"admit_calls", "spawn 2@0"});
  }
}

TEST_CASE("a worker that ends well before it was ever ready has failed") {
  stage play;
  play.tell(events::start{});
  CHECK(play.tell(stage::exit(1, exit_class::normal)) == script{"restarting 1 in 0 ms", "respawn 2@0"});
}

TEST_CASE("a place whose worker ended for good stays empty while others serve, spares go with the last") {
  stage play(settings(2, 1));
  play.up();
  CHECK(play.tell(stage::exit(1, exit_class::normal)) == script{"degraded 1/2"});
  CHECK(play.tell(stage::exit(2, exit_class::normal)) ==
        script{"fail_calls: its workers have ended, and none is to be started again", "ended", "drain 3"});
}

TEST_CASE("rejected loads never count") {
  stage play;
  play.tell(events::start{});
  for (worker_id id = 1; id <= 20; ++id) {
    play.tell(stage::exit(id, exit_class::rejected));
    REQUIRE(play.subject.state() == state::ended);
    play.tell(events::reset{});
  }
}

TEST_CASE("a violation quarantines at once, whatever the kind") {
  auto made = with(GENERATE(restart_kind::permanent, restart_kind::transient, restart_kind::temporary));
  made.instances = 2;
  made.rules.probe_after = 5min;
  stage play(made);
  play.up();
  CHECK(play.tell(stage::exit(1, exit_class::violation)) ==
        script{"fail_calls: a worker of it broke the rules, so it is quarantined", "quarantined", "drain 2"});
  CHECK(play.last<actions::quarantined>()->report->exit_code == 1);
  CHECK(play.tell(stage::exit(2, exit_class::violation)).empty());
  CHECK(play.subject.wake_at() == never);  // no probe
  CHECK(play.wait(24h).empty());
  CHECK(play.tell(events::start{}).empty());
  CHECK(play.tell(events::reset{}) == script{"admit_calls", "spawn 3@0", "spawn 4@1"});
}

TEST_CASE("a violation by a worker that drains quarantines too, also after the plugin was given up") {
  auto made = settings(2);
  made.rules.intensity.restarts = GENERATE(0, 5);
  stage play(made);
  play.up();
  if (made.rules.intensity.restarts == 0) play.crash(1);
  else play.tell(events::recycle{2});
  play.ready(3);
  CHECK(play.tell(stage::exit(2, exit_class::violation))[1] == "quarantined");
  CHECK(play.subject.state() == state::quarantined);
}

TEST_CASE("reset brings a given-up plugin back, with a new window and no delay") {
  stage play;
  play.up();
  play.crash_until_given_up(1);
  CHECK(play.tell(events::reset{}) == script{"admit_calls", "spawn 7@0"});
  CHECK(play.ready(7) == script{"serve 7@0", "recovered"});
  CHECK(play.crash(7) == script{"restarting 7 in 0 ms", "respawn 8@0", "degraded 0/1"});
  play.ready(8);
  play.crash_until_given_up(8);
  CHECK(play.subject.state() == state::gave_up);
}

TEST_CASE("reset of a running plugin ends its delays") {
  stage play;
  play.up();
  play.crash(1);
  play.crash(2);
  REQUIRE(play.subject.wake_at() == play.now + 100ms);
  CHECK(play.tell(events::reset{}) == script{"spawn 3@0"});
  play.ready(3);
  CHECK(play.tell(events::reset{}).empty());
}

TEST_CASE("a plugin that was given up is tried again, half open") {
  auto made = settings(2);
  made.rules.probe_after = 5min;
  made.rules.intensity.restarts = 0;
  stage play(made);
  play.up();
  play.crash(1);
  play.crash(2);
  REQUIRE(play.subject.state() == state::gave_up);
  CHECK(play.subject.wake_at() == play.now + 5min);
  CHECK(play.wake() == script{"respawn 3@0"});
  CHECK(play.subject.state() == state::half_open);
  CHECK(play.subject.failing_calls());
  SECTION("it fails before it is ready") {
    CHECK(play.crash(3).at(1) == "gave_up: the worker that tried it again ended, too, 2 exits");
    CHECK(play.subject.wake_at() == play.now + 5min);
    CHECK(play.wake() == script{"respawn 4@0"});
  }
  SECTION("it gets calls, and fails") {
    CHECK(play.ready(3) == script{"admit_calls", "serve 3@0"});
    play.wait(59s);
    CHECK(play.tell(stage::exit(3, exit_class::normal)).at(0).starts_with("fail_calls"));
    CHECK(play.subject.state() == state::gave_up);
  }
  SECTION("it leaves") {
    play.ready(3);
    CHECK(play.tell(events::leaving{3}).at(1) == "gave_up: the worker that tried it again left, 1 exits");
    CHECK(play.subject.state() == state::gave_up);
  }
  SECTION("it stays well for a minute: all are started") {
    play.ready(3);
    CHECK(play.wait(60s - 1ns).empty());
    CHECK(play.wake() == script{"spawn 4@1"});
    CHECK(play.subject.state() == state::running);
    CHECK(play.ready(4) == script{"serve 4@1", "recovered"});
  }
  SECTION("it is too slow to start") {
    play.tell(events::started{3, phase::spawn});
    CHECK(play.wake() == script{"kill 3 start_timeout"});
    play.crash(3);
    CHECK(play.subject.state() == state::gave_up);
  }
  SECTION("reset does not wait for it") {
    play.ready(3);
    CHECK(play.tell(events::reset{}) == script{"spawn 4@1"});
    CHECK(play.subject.wake_at() == never);
  }
}
