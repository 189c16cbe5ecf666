// Hostile workers and streams: credit ignored, ends said twice, items of calls that are not. Each costs its own call, and
// no more of the host's memory than the stream's window.
#include "fixture.hpp"

#include <fstream>
#include <sstream>

namespace bulkhead::testing {
namespace {

struct attack {
  std::string name;
  std::string steps;  // after "hello ready call"
  outcome expected;
  std::size_t items = 0;  // that come through before it is noticed
};

constexpr std::size_t window = 64 << 10;

std::vector<std::string> command(const std::string& steps) {
  std::vector<std::string> argv = {BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello", "ready", "call"};
  std::istringstream words(steps);
  for (std::string word; words >> word;) argv.push_back(word);
  return argv;
}

std::size_t resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::stoul(line.substr(6));
  return 0;
}

const std::vector<attack> attacks = {
    {"items and an answer", "x:9302a6'$/item'92@07 x:9302a6'$/item'92@c0 answer", outcome::ok, 2},
    {"items, their end and an answer", "x:9302a6'$/item'92@07 x:9302a5'$/end'91@ answer", outcome::ok, 1},
    {"an item larger than the window", "x:9302a6'$/item'92@c600010000 fill:00*65536 hold", outcome::protocol},
    {"items of the next id", "x:9302a6'$/item'92+07 hold", outcome::protocol},
    {"items of another generation of the id", "x:9302a6'$/item'92~07 hold", outcome::protocol},
    {"items of the greeting", "x:9302a6'$/item'920007 hold", outcome::protocol},
    {"items after the answer", "answer x:9302a6'$/item'92@07 hold", outcome::ok},
    {"an item after the end", "x:9302a5'$/end'91@ x:9302a6'$/item'92@07 hold", outcome::protocol},
    {"an end and another", "x:9302a5'$/end'91@ x:9302a5'$/end'91@ hold", outcome::protocol},
    {"an end of a call that is not", "x:9302a5'$/end'91+ hold", outcome::protocol},
    {"credit of nothing", "x:9302a6'$/more'92@00 hold", outcome::protocol},
    {"credit of 4 GiB", "x:9302a6'$/more'92@ceffffffff hold", outcome::protocol},
    {"negative credit", "x:9302a6'$/more'92@ff hold", outcome::protocol},
    {"credit of 64 bits", "x:9302a6'$/more'92@cfffffffffffffffff hold", outcome::protocol},
    {"credit that is a text", "x:9302a6'$/more'92@a131 hold", outcome::protocol},
    {"credit beyond its window", "x:9302a6'$/more'92@64 x:9302a6'$/more'92@01 hold", outcome::protocol},
    {"credit for a call that is not", "x:9302a6'$/more'92+64 hold", outcome::protocol},
    {"an item without an id", "x:9302a6'$/item'9107 hold", outcome::protocol},
    {"an item without a value", "x:9302a6'$/item'91@ hold", outcome::protocol},
    {"an item with two values", "x:9302a6'$/item'93@0707 hold", outcome::protocol},
    {"an item whose id is negative", "x:9302a6'$/item'92ff07 hold", outcome::protocol},
    {"an item with a descriptor", "x:9302a6'$/item'92@d40100 hold", outcome::protocol},
    {"an end with a value", "x:9302a5'$/end'92@07 hold", outcome::protocol},
    {"items, then its death", "x:9302a6'$/item'92@07 exit:3", outcome::worker_lost, 1},
    {"half an item, then its death", "x:9302a6'$/item'92@c503fd exit:3", outcome::worker_lost},
    {"items, while it is told to stop", "x:9302a6'$/item'92@07 signal:11", outcome::worker_lost, 1},
};

}  // namespace

TEST_CASE("every attack on a stream costs its call one error of the right kind, and its neighbour nothing") {
  host host;
  auto neighbour = host.load(plugin_path("echo"));
  for (const attack& each : attacks) {
    INFO(each.name << ": " << each.steps);
    load_options options;
    options.deadline = 30s;
    auto peer = host.launch(command(each.steps), options);
    auto call = peer.with({.stream_window = window}).open("attack");
    std::size_t items = 0;
    outcome got = outcome::ok;
    try {
      while (each.items == 0 || items < each.items) {
        if (!call.next_packed()) break;
        ++items;
      }
    } catch (const call_error& error) {
      got = error.outcome();
    }
    if (got == outcome::ok) got = call.finish().outcome();
    CHECK(got == each.expected);
    CHECK(items == each.items);
    CHECK(neighbour.call<int>("add", 20, 22) == 42);
  }
}

TEST_CASE("an item with a descriptor costs a worker its life, though it may send some elsewhere") {
  host host;
  load_options options;
  options.deadline = 30s;
  options.policy = policy::program().allow_handles();
  auto peer = host.launch(command("with_fd:9302a6'$/item'92@d40100 hold"), options);
  auto call = peer.open("attack");
  const auto error = failure_of([&] { call.next_packed(); });
  CHECK(error.outcome() == outcome::protocol);
  CHECK(error.message().find("$/item: with descriptors") != std::string::npos);
}

TEST_CASE("a stream that is flooded costs a window of memory, and the worker its life") {
  const auto floods = GENERATE(values<std::string>({"65537", "20000000"}));
  host host;
  auto peer = host.launch(command("fill:9302a6'$/item'92@07*" + floods + " hold"));
  const auto before = resident_kib();
  auto call = peer.with({.stream_window = window}).open("attack");
  CHECK(!call.send(1));  // waits for the end, while nobody takes an item
  CHECK(resident_kib() < before + (16 << 10));
  std::size_t items = 0;
  const auto error = failure_of([&] {
    while (call.next_packed()) ++items;
  });
  CHECK(error.outcome() == outcome::protocol);
  CHECK(error.message().find("$/item: more items than it had credit for") != std::string::npos);
  CHECK(items == window);
}

TEST_CASE("what comes of a stream after it was cancelled is dropped, within its credit, no more than that") {
  host host;
  load_options options;
  options.deadline = 30s;
  auto peer = host.launch(command("cancelled x:9302a6'$/item'92@07 x:9302a5'$/end'91@ answer call answer"), options);
  const auto pid = peer.workers().at(0).pid;
  auto call = peer.open("attack");
  call.cancel();
  CHECK(call.finish().outcome() == outcome::cancelled);
  CHECK(peer.call<bool>("attack"));
  CHECK(peer.workers().at(0).pid == pid);

  // Few items, so that the rule is broken well within the grace of a cancelled call.
  for (const char* steps :
       {"cancelled fill:9302a6'$/item'92@07*1025 hold", "cancelled answer x:9302a6'$/item'92@07 hold"}) {
    mailbox<exit_reason> ends;
    bulkhead::host watched({.on_lifecycle = [&](const lifecycle_event& event) {
      if (event.report) ends.put(event.report->reason);
    }});
    auto attacker = watched.launch(command(steps), options);
    auto open = attacker.with({.stream_window = 1024}).open("attack");
    open.cancel();
    CHECK(open.finish().outcome() == outcome::cancelled);
    REQUIRE(ends.wait_for(1));
    CHECK(ends.values().front() == exit_reason::protocol);
  }
}

TEST_CASE("a worker that grants credit for a stream and reads nothing blocks nobody") {
  host host;
  load_options options;
  options.deadline = 30s;
  options.limits.queued_bytes = 1 << 20;
  auto neighbour = host.load(plugin_path("echo"));
  auto peer = host.launch(command("x:9302a6'$/more'92@ce01000000 deaf"), options);
  auto call = peer.open("attack");
  const bytes large(256 << 10);
  while (call.send(large)) continue;
  CHECK(call.finish().outcome() == outcome::overloaded);
  CHECK(neighbour.call<int>("add", 1, 2) == 3);
}

TEST_CASE("the end of a stream waits behind an item that fills the queue") {
  host host;
  load_options options;
  options.deadline = 20s;
  options.limits.queued_bytes = 64 << 10;
  auto peer = host.launch(command("x:9302a6'$/more'92@ce01000000 signalled heard:$/end answer"), options);
  auto call = peer.open("attack");
  REQUIRE(call.send(bytes(1 << 20)));  // far more than a socket takes
  call.close();
  REQUIRE(::kill(peer.workers().at(0).pid, SIGUSR1) == 0);
  CHECK(call.finish().outcome() == outcome::ok);
}

TEST_CASE("a worker that does not know streams answers an opened call") {
  host host;
  auto peer = host.launch(command("answer"));
  auto call = peer.open("attack");
  CHECK(!call.send(1));
  CHECK(!call.next<int>());
  CHECK(call.finish().as<bool>());
}

}  // namespace bulkhead::testing
