// Streams: items in each direction and in both, credit, and every way in which such a call can end.
#include "fixture.hpp"
#include <bulkhead/metrics.hpp>

#include <boost/asio/io_context.hpp>

#include <csignal>
#include <future>

namespace bulkhead::testing {
namespace {

// What the plugin says of how far it is.
struct told {
  std::string name;
  std::size_t number;
};
void listen(const plugin& to, mailbox<told>& into) {
  to.on_event([&](const std::string& name, const msgpack::object& value) {
    into.put({name, value.as<std::size_t>()});
  });
}
bool wait_for(mailbox<told>& box, const std::string& name, std::size_t number) {
  return box.wait([&](const auto& all) {
    return std::ranges::any_of(all, [&](const told& each) { return each.name == name && each.number == number; });
  });
}
// As it was given in the "stopped" event.
std::size_t stopped_at(mailbox<told>& box) {
  std::size_t number = 0;
  REQUIRE(box.wait([&](const auto& all) {
    const auto found = std::ranges::find(all, "stopped", &told::name);
    if (found == all.end()) return false;
    number = found->number;
    return true;
  }));
  return number;
}

load_options as(isolation how) {
  load_options options;
  options.isolation = how;
  return options;
}

method_metrics metrics_of(const plugin& target, const std::string& method) {
  for (const method_metrics& each : target.metrics().methods)
    if (each.method == method) return each;
  return {};
}

}  // namespace

TEST_CASE("results are streamed, and the method's own result comes last") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  auto call = streaming.open("count", 1000);
  for (int i = 0; i < 1000; ++i) REQUIRE(call.next<int>() == i);
  CHECK(!call.next<int>());
  CHECK(call.finish().as<int>() == 1000);
  CHECK(!call.next<int>());
  CHECK(call.finish().as<int>() == 1000);
  CHECK(streaming.call<int>("echo", 7) == 7);
}

TEST_CASE("arguments are streamed") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  auto call = streaming.open("sum");
  for (int i = 1; i <= 1000; ++i) REQUIRE(call.send(i));
  CHECK(call.finish().as<int>() == 500'500);
  CHECK(!call.send(1));
}

TEST_CASE("both directions at once, in turns and on two threads") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  auto turns = streaming.open("scale", 3);
  for (int i = 0; i < 200; ++i) {
    REQUIRE(turns.send(i));
    REQUIRE(turns.next<int>() == 3 * i);
  }
  turns.close();
  CHECK(!turns.next<int>());
  CHECK(turns.finish());

#ifdef BULKHEAD_SANITIZED
  constexpr int items = 30'000;
#else
  constexpr int items = 300'000;
#endif
  auto call = streaming.open("scale", 2);
  std::jthread sender([&] {
    for (int i = 0; i < items; ++i) call.send(i);
    call.close();
  });
  int next = 0;
  bool in_order = true;
  while (const auto item = call.next<int>()) in_order = in_order && *item == 2 * next++;
  CHECK(in_order);
  CHECK(next == items);
  CHECK(call.finish());
}

TEST_CASE("a million small items arrive in order") {
  host host;
  auto streaming = host.load(plugin_path("streaming"));
  auto call = streaming.with({.deadline = 100s}).open("count", 1'000'000);
  int next = 0;
  bool in_order = true;
  while (const auto item = call.next<int>()) in_order = in_order && *item == next++;
  CHECK(in_order);
  CHECK(next == 1'000'000);
  CHECK(call.finish().as<int>() == 1'000'000);
}

TEST_CASE("a reader that does not read holds up its plugin, at a window's worth of items") {
  mailbox<told> said;
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  listen(streaming, said);
  constexpr std::size_t size = 1021, packed = size + 3, fit = 10;
  auto call = streaming.with({.stream_window = fit * packed + packed / 2}).open("flood", size);
  REQUIRE(wait_for(said, "sending", fit));  // the one for which there is no room
  for (int i = 0; i < 3; ++i) REQUIRE(call.next_packed()->size() == packed);
  // Credit comes back by the half window: not yet. With the next three it does, for six.
  for (int i = 0; i < 3; ++i) REQUIRE(call.next_packed()->size() == packed);
  REQUIRE(wait_for(said, "sending", fit + 6));
  call.cancel();
  CHECK(stopped_at(said) == fit + 6);
  CHECK(call.finish().outcome() == outcome::cancelled);
  CHECK(streaming.call<int>("echo", 7) == 7);
}

TEST_CASE("a host that sends faster than its plugin receives waits") {
  mailbox<std::size_t> sent;
  host host;
  auto streaming = host.load(plugin_path("streaming"));
  auto call = streaming.open("hoard");
  constexpr std::size_t size = (64 << 10) - 3, fit = 16;  // in 1 MiB
  std::jthread sender([&] {
    for (std::size_t i = 0; call.send(bytes(size)); ++i) sent.put(i);
    sent.put(1000);
  });
  REQUIRE(sent.wait_for(fit));
  CHECK(call.next<int>() == 0);  // the plugin has taken one; it takes another when it is told to
  call.cancel();
  sender.join();
  const auto all = sent.values();
  CHECK(all.back() == 1000);
  CHECK(all.size() == fit + 1);
}

TEST_CASE("an item larger than the window is refused, and the error says so") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  constexpr std::size_t window = 1 << 20;
  SECTION("a result") {
    auto fits = streaming.open("large", window - 5);
    CHECK(fits.next<bytes>()->size() == window - 5);
    CHECK(fits.finish());
    auto call = streaming.open("large", window - 4);
    const auto error = failure_of([&] { call.next<bytes>(); });
    CHECK(error.outcome() == outcome::plugin_error);
    CHECK(error.message() == "large: an item of 1048577 bytes is larger than the stream's window of 1048576");
    auto larger = streaming.with({.stream_window = 2 * window}).open("large", window);
    CHECK(larger.next<bytes>()->size() == window);
  }
  SECTION("an argument") {
    auto call = streaming.open("first", 2);
    const auto error = failure_of([&] { call.send(std::string(window, 'x')); });
    CHECK(error.outcome() == outcome::rejected);
    CHECK(error.message() == "an item of 1048581 bytes is larger than the plugin's window of 1048576");
    CHECK(call.send("a"));
    CHECK(call.send("b"));
    CHECK(call.finish().as<std::vector<std::string>>() == std::vector<std::string>{"a", "b"});
  }
}

TEST_CASE("a window out of range is a misuse") {
  host host;
  auto streaming = host.load(plugin_path("streaming"));
  CHECK_THROWS_AS(streaming.with({.stream_window = 0}).open("count", 1), std::invalid_argument);
  CHECK_THROWS_AS(streaming.with({.stream_window = std::size_t{16} << 20}).open("count", 1), std::invalid_argument);
}

TEST_CASE("a cancelled stream wakes the plugin, be it sending or receiving") {
  mailbox<told> said;
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  const auto pid = streaming.workers().at(0).pid;
  listen(streaming, said);
  const bool sending = GENERATE(true, false);
  const bool by_token = GENERATE(true, false);
  std::stop_source stop;
  {
    auto call = sending ? streaming.with({.stop = stop.get_token()}).open("flood", 500'000)
                        : streaming.with({.stop = stop.get_token()}).open("wait");
    REQUIRE(wait_for(said, sending ? "sending" : "waiting", sending ? 2 : 0));
    std::optional<std::jthread> reader;
    if (!sending) reader.emplace([&] { CHECK(failure_of([&] { call.next<int>(); }).outcome() == outcome::cancelled); });
    if (by_token) stop.request_stop();
    else call.cancel();
    reader.reset();
    CHECK(failure_of([&] { call.next<int>(); }).outcome() == outcome::cancelled);
    CHECK(call.finish().outcome() == outcome::cancelled);
  }
  stopped_at(said);
  CHECK(streaming.call<int>("echo", 7) == 7);
  CHECK(streaming.workers().at(0).pid == pid);
}

TEST_CASE("what came of a call that has ended is not lost when it is cancelled then") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  const bool by_token = GENERATE(true, false);
  CHECK(eventually([&] {
    std::stop_source stop;
    auto call = streaming.with({.stop = stop.get_token()}).open("count", 3);
    REQUIRE(eventually([&] {
      const auto metrics = streaming.metrics();
      const auto count = std::ranges::find(metrics.methods, "count", &method_metrics::method);
      return count != metrics.methods.end() && count->in_flight == 0;
    }));
    if (by_token) stop.request_stop();
    else call.cancel();
    std::vector<int> items;
    try {
      while (const auto item = call.next<int>()) items.push_back(*item);
    } catch (const call_error&) {
    }
    const reply result = call.finish();
    if (result) CHECK(items == std::vector{0, 1, 2});
    return static_cast<bool>(result);  // otherwise the end was on its way still, and it was cancelled
  }));
}

TEST_CASE("a stream that is let go of is cancelled") {
  mailbox<told> said;
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  listen(streaming, said);
  {
    auto call = streaming.open("flood", 500'000);
    REQUIRE(wait_for(said, "sending", 2));
  }
  CHECK(stopped_at(said) == 2);
  CHECK(streaming.call<int>("echo", 7) == 7);
}

TEST_CASE("a stream that waits for a worker may be let go of by what its own stop brings about") {
  load_options options;
  options.dispatch.kind = dispatch::kind::custom;
  options.dispatch.choose = [](const std::vector<candidate>& free, std::string_view, call_key) { return free.size(); };
  host host;
  const auto streaming = host.load(plugin_path("streaming"), options);
  std::stop_source stop;
  streaming_call call;
  bool let_go = false;
  {
    const std::shared_ptr<void> with_the_call(nullptr, [&](void*) {
      call = streaming_call();
      let_go = true;
    });
    call_options how;
    how.stop = stop.get_token();
    how.on_progress = [with_the_call](const msgpack::object&) {};
    call = streaming.with(std::move(how)).open("count", 1);
  }
  REQUIRE_FALSE(let_go);
  stop.request_stop();
  CHECK(let_go);
}

TEST_CASE("a plugin that has enough ends the stream while the host still sends") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  auto call = streaming.open("first", 3);
  const std::string item(1000, 'x');
  while (call.send(item)) continue;
  CHECK(call.finish().as<std::vector<std::string>>().size() == 3);
  CHECK(streaming.call<int>("echo", 7) == 7);
}

TEST_CASE("a method that ends its results early goes on") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  auto call = streaming.open("ends_early", false);
  CHECK(call.next<int>() == 1);
  CHECK(!call.next<int>());
  CHECK(call.finish().as<int>() == 7);
  auto again = streaming.open("ends_early", true);
  CHECK(again.finish().message() == "ends_early: an item was sent after the end of its stream");
}

TEST_CASE("results that came before a failure are given out first") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), untiring(as(isolation::process)));
  const bool dies = GENERATE(false, true);
  auto call = streaming.open(dies ? "die_after" : "fail_after", 100);
  for (int i = 0; i < 100; ++i) REQUIRE(call.next<int>() == i);
  const auto error = failure_of([&] { call.next<int>(); });
  CHECK(error.outcome() == (dies ? outcome::worker_lost : outcome::plugin_error));
  if (dies) CHECK(error.report()->signal == SIGABRT);
  else CHECK(error.message() == "that was all");
  CHECK(call.finish().outcome() == error.outcome());
}

TEST_CASE("a worker killed in mid-stream ends both directions with worker_lost") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), untiring());
  auto call = streaming.open("scale", 2);
  REQUIRE(call.send(1));
  REQUIRE(call.next<int>() == 2);
  std::jthread sender([&] {
    while (call.send(3)) continue;
  });
  ::kill(streaming.workers().at(0).pid, SIGKILL);
  const auto error = failure_of([&] {
    while (call.next<int>()) continue;
  });
  CHECK(error.outcome() == outcome::worker_lost);
  sender.join();
  CHECK(call.finish().outcome() == outcome::worker_lost);
}

TEST_CASE("a deadline in mid-stream ends it on both sides") {
  mailbox<told> said;
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  const auto pid = streaming.workers().at(0).pid;
  listen(streaming, said);
  const auto before = std::chrono::steady_clock::now();
  SECTION("while the plugin waits for arguments, and the host for results") {
    auto call = streaming.with({.deadline = 100ms}).open("wait");
    CHECK(failure_of([&] { call.next<int>(); }).outcome() == outcome::timeout);
    CHECK(call.finish().outcome() == outcome::timeout);
  }
  SECTION("while the plugin waits for credit") {
    auto call = streaming.with({.deadline = 1s}).open("flood", 500'000);  // both items have come by then
    stopped_at(said);
    std::size_t taken = 0;
    const auto error = failure_of([&] {
      while (call.next_packed()) ++taken;
    });
    CHECK(error.outcome() == outcome::timeout);
    CHECK(taken == 2);
  }
  SECTION("while the host waits to send") {
    auto call = streaming.with({.deadline = 100ms}).open("flood", 500'000);
    CHECK(!call.send(1));
    CHECK(call.finish().outcome() == outcome::timeout);
  }
  CHECK(std::chrono::steady_clock::now() - before < 10s);
  stopped_at(said);
  CHECK(streaming.call<int>("echo", 7) == 7);
  CHECK(streaming.workers().at(0).pid == pid);
}

// The host's event loop is held up meanwhile, so that it finds the answer after the deadline, and before it looks at the
// time.
TEST_CASE("an answer does not make a call ok of whose deadline its stream has told already") {
  boost::asio::io_context context;
  host host(context.get_executor());
  auto streaming = host.load(plugin_path("streaming"));
  const auto deadline = std::chrono::steady_clock::now() + 300ms;
  auto call = streaming.with({.deadline = 300ms}).open("first", 1);
  REQUIRE(call.send(std::string("one")));
  while (std::chrono::steady_clock::now() < deadline + 50ms) std::this_thread::yield();
  SECTION("to one who sends") { CHECK(!call.send(std::string("two"))); }
  SECTION("to one who takes") {
    CHECK(failure_of([&] { call.next<int>(); }).outcome() == outcome::timeout);
  }
  while (context.poll_one() > 0) continue;
  CHECK(call.finish().outcome() == outcome::timeout);
  CHECK(eventually([&] {  // it counts when the host has found the answer, too
    context.poll();
    return metrics_of(streaming, "first").ended(outcome::timeout) == 1;
  }));
}

TEST_CASE("a stream counts once, by the outcome that its caller sees") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  auto late = streaming.with({.deadline = 100ms}).open("wait");
  CHECK(failure_of([&] { late.next<int>(); }).outcome() == outcome::timeout);
  auto unwanted = streaming.open("wait");
  unwanted.cancel();
  CHECK(unwanted.finish().outcome() == outcome::cancelled);
  REQUIRE(eventually([&] { return metrics_of(streaming, "wait").ended() == 2; }));
  CHECK(streaming.call<int>("echo", 7) == 7);  // what the plugin answers to the two has come by then
  CHECK(metrics_of(streaming, "wait").ended() == 2);
  CHECK(metrics_of(streaming, "wait").ended(outcome::timeout) == 1);
  CHECK(metrics_of(streaming, "wait").ended(outcome::cancelled) == 1);
}

TEST_CASE("a plugin is unloaded in mid-stream") {
  mailbox<told> said;
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  listen(streaming, said);
  auto call = streaming.open("wait");
  REQUIRE(wait_for(said, "waiting", 0));
  streaming.unload();
  CHECK(!call.finish());
  CHECK(streaming.open("count", 1).finish().outcome() != outcome::ok);
}

TEST_CASE("streams on several workers do not disturb each other") {
  host host;
  load_options options;
  options.instances = 3;
  auto streaming = host.load(plugin_path("streaming"), options);
  std::vector<std::future<bool>> all;
  for (int k = 0; k < 12; ++k)
    all.push_back(std::async(std::launch::async, [&, k] {
      auto call = streaming.open("scale", k);
      std::jthread sender([&] {
        for (int i = 0; i < 5000; ++i) call.send(i);
        call.close();
      });
      for (int i = 0; i < 5000; ++i)
        if (call.next<int>() != i * k) return false;
      return !call.next<int>() && call.finish().outcome() == outcome::ok;
    }));
  for (auto& each : all) CHECK(each.get());
}

TEST_CASE("a stream whose worker dies before its first item has moved goes to another worker") {
  mailbox<told> said;
  host host;
  auto streaming = host.load(plugin_path("streaming"), untiring());
  listen(streaming, said);
  auto first = streaming.open("wait");
  REQUIRE(wait_for(said, "waiting", 0));
  auto second = streaming.open("scale", 5);  // behind the first, in the same worker
  second.close();
  auto third = streaming.open("sum");
  std::jthread sender([&] {
    for (int i = 1; i <= 10; ++i) third.send(i);
    third.close();
  });
  const auto pid = streaming.workers().at(0).pid;
  ::kill(pid, SIGKILL);
  CHECK(first.finish().outcome() == outcome::worker_lost);
  CHECK(!second.next<int>());
  CHECK(second.finish());
  CHECK(third.finish().as<int>() == 55);
  CHECK(streaming.workers().at(0).pid != pid);
}

TEST_CASE("an idempotent method is repeated only while none of its items has moved") {
  host host;
  auto options = untiring();
  options.poison_limit = 3;
  auto streaming = host.load(plugin_path("streaming"), options);
  auto untouched = streaming.open("die_before", 0);
  const auto lost = untouched.finish();
  CHECK(lost.outcome() == outcome::worker_lost);
  auto after = streaming.open("die_before", 1);
  CHECK(after.next<int>() == 1);
  CHECK(after.finish().outcome() == outcome::worker_lost);
  // Three workers died of the first and one of the second; the calls that are poison now show it.
  CHECK(streaming.open("die_before", 0).finish().outcome() == outcome::rejected);
  CHECK(streaming.open("die_before", 1).finish().outcome() == outcome::worker_lost);
}

TEST_CASE("misuse of a stream gives one clear error") {
  host host;
  auto streaming = host.load(plugin_path("streaming"), as(GENERATE(isolation::process, isolation::none)));
  CHECK(failure_of([&] { streaming.call("count", 1); }).message() ==
        "count: it streams, so the call has to be opened as a stream (plugin::open)");
  CHECK(streaming.open("keep", false).finish());
  CHECK(streaming.open("keep", true).finish().message() == "keep: a stream was used after the method had returned");
  auto wrong = streaming.open("sum");
  wrong.send("one");
  CHECK(wrong.finish().message() == "sum: item 1: expected int, got str");
  auto mistaken = streaming.open("count", 2);
  CHECK(failure_of([&] { mistaken.next<std::string>(); }).message() == "item 1: expected str, got int");
  CHECK(mistaken.next<int>() == 1);
  mistaken.close();
  CHECK_THROWS_AS(mistaken.send(1), std::logic_error);
  // A method that does not stream has no items, and takes none.
  auto plain = streaming.open("echo", 9);
  CHECK(!plain.send(1));
  CHECK(!plain.next<int>());
  CHECK(plain.finish().as<int>() == 9);
  CHECK(streaming.open("nope").finish().outcome() == outcome::rejected);
  CHECK_THROWS_AS(streaming_call().next<int>(), std::logic_error);
}

TEST_CASE("the signature of a method shows its streams") {
  host host;
  auto streaming = host.load(plugin_path("streaming"));
  std::map<std::string, std::string> signatures;
  for (const auto& each : streaming.describe().methods) signatures[each.name] = each.signature;
  CHECK(signatures["count"] == "(int) -> int, stream<int>");
  CHECK(signatures["sum"] == "(stream<int>) -> int");
  CHECK(signatures["scale"] == "(int factor, stream<int>) -> stream<int>");
}

TEST_CASE("a stream flows while nobody runs the embedder's executor") {
  boost::asio::io_context context;
  host host(context.get_executor());
  auto streaming = host.load(plugin_path("streaming"));
  auto call = streaming.open("scale", 3);
  for (int i = 0; i < 100; ++i) {
    REQUIRE(call.send(i));
    REQUIRE(call.next<int>() == 3 * i);
  }
  CHECK(call.finish());
  auto late = streaming.with({.deadline = 50ms}).open("sum");
  CHECK(failure_of([&] { late.next<int>(); }).outcome() == outcome::timeout);
}

}  // namespace bulkhead::testing
