// What a host counts: each call once and by its outcome, whichever way it took; workers and their ends; and the text
// for Prometheus.
#include "fixture.hpp"
#include <bulkhead/metrics.hpp>
#include <bulkhead/prometheus.hpp>

#include <boost/asio/use_future.hpp>

#include <fcntl.h>

using namespace bulkhead;
using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

method_metrics of(const plugin& target, const std::string& method) {
  for (const method_metrics& each : target.metrics().methods)
    if (each.method == method) return each;
  FAIL("no metrics of " << method);
  return {};
}

}  // namespace

TEST_CASE("each call counts once, by its method and outcome, with its time and bytes") {
  host host;
  const plugin chaos = host.load(plugin_path("chaos"), untiring());
  for (int i = 0; i < 5; ++i) chaos.call<std::string>("echo", std::string("12345678"));
  std::vector<std::future<std::string>> open;
  for (int i = 0; i < 7; ++i)
    open.push_back(chaos.async_call<std::string>("echo", std::tuple{std::string("x")}, boost::asio::use_future));
  for (auto& each : open) each.get();
  CHECK(chaos.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
  CHECK(chaos.with({.deadline = 50ms}).try_call("sleep_ms", 10'000).outcome() == outcome::timeout);

  const method_metrics echo = of(chaos, "echo");
  CHECK(echo.ended(outcome::ok) == 12);
  CHECK(echo.ended() == 12);
  CHECK(echo.in_flight == 0);
  CHECK(echo.latency.count() == 12);
  CHECK(echo.latency.sum > 0);
  CHECK(echo.argument_bytes == 5 * 10 + 7 * 3);  // an array of one text
  CHECK(echo.result_bytes == 5 * 9 + 7 * 2);
  CHECK(of(chaos, "misbehave").ended(outcome::worker_lost) == 1);
  const method_metrics slept = of(chaos, "sleep_ms");
  CHECK(slept.ended(outcome::timeout) == 1);
  CHECK(slept.latency.sum >= 0.05);
  CHECK(slept.latency.sum < 5);
}

TEST_CASE("names that the plugin does not describe count together") {
  host host;
  const plugin echo = host.load(plugin_path("echo"));
  const std::size_t before = echo.metrics().methods.size();
  for (int i = 0; i < 300; ++i) CHECK(echo.try_call("bogus" + std::to_string(i)).outcome() == outcome::rejected);
  CHECK(echo.metrics().methods.size() == before);
  CHECK(of(echo, "other").ended(outcome::rejected) == 300);
}

TEST_CASE("workers count by what they are at, and by how they end") {
  mailbox<lifecycle_event> events;
  host host({.on_lifecycle = [&](const lifecycle_event& event) { events.put(event); }});
  const plugin chaos = host.load(plugin_path("chaos"), untiring({.name = "named", .instances = 2}));
  plugin_metrics now = chaos.metrics();
  CHECK(now.plugin == "named");
  CHECK(now.idle == 2);
  CHECK(now.started == 2);
  CHECK(now.restarts == 0);
  CHECK(now.resident_bytes > 100'000);

  CHECK_FALSE(chaos.try_call("misbehave", "abort"));
  const auto back = [](const std::vector<lifecycle_event>& all) {
    return std::count_if(all.begin(), all.end(),
                         [](const auto& each) { return each.kind == lifecycle_event::kind::ready; }) >= 3;
  };
  REQUIRE(events.wait(back));
  now = chaos.metrics();
  CHECK(now.started == 3);
  CHECK(now.restarts == 1);
  CHECK(now.exited(exit_reason::signalled) == 1);
  CHECK(now.exited(exit_reason::shut_down) == 0);

  chaos.reload(plugin_path("chaos"));
  chaos.unload();
  now = chaos.metrics();
  CHECK(now.started == 5);
  CHECK(now.restarts == 1);
  CHECK(now.exited(exit_reason::shut_down) == 4);
  CHECK(now.idle + now.busy + now.starting + now.draining == 0);
}

TEST_CASE("a call in a worker is in flight until its end, and its worker busy") {
  host host;
  const plugin chaos = host.load(plugin_path("chaos"));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  unique_fd read_end(ends[0]), write_end(ends[1]);
  auto reading =
      chaos.async_call<std::string>("read_handle", std::tuple{pass_fd{read_end.get()}}, boost::asio::use_future);
  CHECK(of(chaos, "read_handle").in_flight == 1);
  CHECK(chaos.metrics().busy == 1);
  write_end.reset();
  CHECK(reading.get().empty());
  CHECK(of(chaos, "read_handle").in_flight == 0);
}

TEST_CASE("a plugin in this process is counted, too") {
  host host;
  const plugin echo = host.load(plugin_path("echo"), {.isolation = isolation::none});
  CHECK(echo.call<int>("add", 1, 2) == 3);
  CHECK(echo.async_call<int>("add", std::tuple{1, 2}, boost::asio::use_future).get() == 3);
  CHECK(of(echo, "add").ended(outcome::ok) == 2);
}

TEST_CASE("the text for Prometheus has each number under its labels, plugins of one name added up") {
  host host;
  const plugin first = host.load(plugin_path("echo")), second = host.load(plugin_path("echo"));
  first.call("add", 1, 2);
  second.call("add", 1, 2);
  const auto metrics = host.metrics();
  CHECK(metrics.size() == 2);
  const std::string text = to_prometheus_text(metrics);
  CHECK_THAT(text, Contains("# TYPE bulkhead_calls_total counter\n"));
  CHECK_THAT(text, Contains("bulkhead_calls_total{plugin=\"echo\",method=\"add\",outcome=\"ok\"} 2\n"));
  CHECK_THAT(text, Contains("bulkhead_call_duration_seconds_count{plugin=\"echo\",method=\"add\"} 2\n"));
  CHECK_THAT(text, Contains("bulkhead_call_duration_seconds_bucket{plugin=\"echo\",method=\"add\",le=\"+Inf\"} 2\n"));
  CHECK_THAT(text, Contains("bulkhead_workers{plugin=\"echo\",state=\"idle\"} 2\n"));
  CHECK_THAT(text, Contains("bulkhead_plugin_up{plugin=\"echo\"} 1\n"));
}
