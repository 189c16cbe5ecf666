// The defaults that bulkhead/supervision.hpp and bulkhead.toml(5) state: whoever changes one has to change it here as well.
#include <bulkhead/host.hpp>

#include <catch2/catch.hpp>

using namespace bulkhead;
using namespace std::chrono_literals;

TEST_CASE("workers are restarted, drained, recycled and found hung by the documented defaults") {
  const supervision_options rules;
  CHECK(rules.restart == restart_kind::transient);
  CHECK(rules.intensity.restarts == 5);
  CHECK(rules.intensity.period == 60s);
  CHECK(rules.backoff.first == 100ms);
  CHECK(rules.backoff.longest == 10s);
  CHECK(rules.backoff.jitter == 0.2);
  CHECK(rules.backoff.healthy_after == 60s);
  CHECK(rules.drain.calls == 5s);
  CHECK(rules.drain.shutdown == 1s);
  CHECK(rules.drain.undead_after == 5s);
  CHECK(rules.recycle.calls == 0);
  CHECK(rules.recycle.age == 0s);
  CHECK(rules.recycle.memory == 0.8);
  CHECK(rules.recycle.jitter == 0.1);
  CHECK(rules.heartbeat.interval == 1s);
  CHECK(rules.heartbeat.silence == 5s);
  CHECK(rules.spares == 0);
  CHECK(rules.probe_after == 0s);
}

TEST_CASE("calls, starts and dispatch go by the documented defaults") {
  const load_options options;
  CHECK(options.instances == 1);
  CHECK(options.deadline == 30s);
  CHECK(options.start_timeout == 10s);
  CHECK(options.dispatch.kind == dispatch::kind::least_loaded);
  CHECK(options.poison_limit == 3);
  CHECK_FALSE(options.state.keep);
}

TEST_CASE("all plugins of a host share the documented budget of spawns, and the plugins of a group one of restarts") {
  const spawn_limits spawns = host_options{}.spawns;
  CHECK(spawns.at_once == 4);
  CHECK(spawns.restarts.restarts == 50);
  CHECK(spawns.restarts.period == 10s);
  const group_options group;
  CHECK(group.strategy == restart_strategy::one_for_all);
  CHECK(group.intensity.restarts == 5);
  CHECK(group.intensity.period == 60s);
}
