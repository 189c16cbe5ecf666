// Streams of valid messages with bits flipped, pieces missing and pieces twice.
#include "fixture.hpp"

namespace bulkhead::testing {

TEST_CASE("a stream with random faults ends in one outcome for its call and harms nobody else") {
  host host;
  auto neighbour = host.load(plugin_path("echo"));
  for (int seed = 1; seed <= 25; ++seed) {
    INFO("seed " << seed);
    load_options options;
    options.deadline = 10s;
    options.limits.frame_time = 200ms;
    auto peer = host.launch(
        {BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello", "ready", "call", "seed:" + std::to_string(seed), "close"},
        options);
    const auto got = peer.try_call("attack").outcome();
    CHECK((got == outcome::ok || got == outcome::plugin_error || got == outcome::protocol ||
           got == outcome::worker_lost || got == outcome::rejected || got == outcome::cancelled ||
           got == outcome::timeout || got == outcome::unavailable));
    CHECK(neighbour.call<int>("add", seed, 1) == seed + 1);
  }
}

}  // namespace bulkhead::testing
