// Hostile workers at the default limits that fill the host's memory: with what waits for a handler, and with what they
// say of themselves. It costs the worker its life, and the host what docs/protocol.md says.
#include "fixture.hpp"

#include <fstream>
#include <future>
#include <sstream>

namespace bulkhead::testing {
namespace {

std::vector<std::string> command(const std::string& steps) {
  std::vector<std::string> argv = {BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello"};
  std::istringstream words(steps);
  for (std::string word; words >> word;) argv.push_back(word);
  return argv;
}

load_options patient() {
  load_options options;
  options.deadline = options.start_timeout = 60s;
  options.limits.frame_time = 60s;
  return options;
}

// The most that was ever resident, or is from here on when it is to begin anew.
std::size_t peak_kib(bool anew = false) {
  if (anew) std::ofstream("/proc/self/clear_refs") << 5;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6));
  return 0;
}

// A message of almost 16 MiB that ends in one value.
std::string large(const std::string& before, const std::string& header, const std::string& piece) {
  std::string pieces;
  for (int i = 0; i < 256; ++i) pieces += piece;
  return " x:" + before + header + "00ffff00 fill:" + pieces + "*65535";
}
const std::string bin = "c6", array = "dd", event = "9302a7'$/event'92a1'e'", progress = "9302aa'$/progress'92@";

}  // namespace

TEST_CASE("events and progress that wait for a handler take as many bytes as two messages may have, and no more") {
  host host;
  const auto neighbour = host.load(plugin_path("echo"));
  struct attack {
    std::string steps;
    outcome expected;
  };
  const std::vector<attack> attacks = {
      {large(event, bin, "00") + large(event, bin, "00") + " answer", outcome::ok},
      {large(event, bin, "00") + large(event, bin, "00") + " x:" + event + "c0 hold", outcome::protocol},
      {large(event, bin, "00") + large(progress, bin, "00") + " x:" + progress + "c0 hold", outcome::protocol},
  };
  for (const attack& each : attacks) {
    INFO("expected: " << to_string(each.expected));
    auto peer = host.launch(command("ready call" + each.steps), patient());
    std::promise<void> over;
    const auto wait = [until_over = over.get_future().share()] { until_over.wait(); };
    peer.on_event([wait](const auto&, const auto&) { wait(); });
    const auto calling = peer.with({.on_progress = [](const msgpack::object&) {}});  // behind the event
    CHECK(calling.try_call("attack").outcome() == each.expected);
    over.set_value();
    CHECK(neighbour.call<int>("add", 20, 22) == 42);
  }
}

TEST_CASE("a worker that describes itself without end never gets ready, and its description is not built") {
  host host;
  const auto neighbour = host.load(plugin_path("echo"));
  const std::vector<std::pair<std::string, std::string>> attacks = {
      {large("9302a7'$/ready'9181a7'methods'", array, "c0"), "more than 131072 elements"},
      {large("9302a7'$/ready'9181a8'requests'", array, "c0"), "more than 131072 elements"},
      {large("9302aa'$/deadline'", array, "c0"), "more than 131072 elements"},
      {" x:9302a7'$/ready'9181a7'methods'dc1001 fill:80*4097", "more than 4096 methods"},
      {" x:9302a7'$/ready'9181a8'requests'dc1001 fill:a0*4097", "more than 4096 requests"},
  };
  for (const auto& [steps, why] : attacks) {
    INFO("expected: " << why);
    [[maybe_unused]] const std::size_t before = peak_kib(true);
    const auto error = failure_of([&] { host.launch(command(steps.substr(1) + " hold"), patient()); });
    CHECK(error.outcome() == outcome::unavailable);
    CHECK_THAT(error.what(), Catch::Contains(why));
#ifndef BULKHEAD_SANITIZED
    CHECK(peak_kib() - before < 120 << 10);
#endif
    CHECK(neighbour.call<int>("add", 20, 22) == 42);
  }
}

}  // namespace bulkhead::testing
