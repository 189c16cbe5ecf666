// isolation::none: what a plugin in this process has in common with one in a worker.
#include "fixture.hpp"

#include <boost/asio/use_future.hpp>

#include <cstdlib>
#include <future>

#include <sys/socket.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

load_options here(functions lent = {}) {
  load_options options;
  options.isolation = isolation::none;
  options.functions = std::move(lent);
  return options;
}

// Something that a lent function waits for.
class gate {
 public:
  ~gate() { open(); }
  void open() {
    if (!std::exchange(opened_, true)) promise_.set_value();
  }
  void wait() const { future_.wait(); }

 private:
  std::promise<void> promise_;
  const std::shared_future<void> future_ = promise_.get_future().share();
  bool opened_ = false;
};

// A plugin in this process that is in a call, until that is let go of.
struct occupied {
  explicit occupied(load_options options) {
    options.functions.add("wait", [this] {
      inside.put(1);
      release.wait();
    });
    chaos = host.load(plugin_path("chaos"), options);
    running =
        std::async(std::launch::async, [this] { return chaos.try_call("call_host", "wait", std::tuple{}).outcome(); });
    REQUIRE(inside.wait_for(1));
  }
  mailbox<int> inside;
  std::future<outcome> running;
  bulkhead::host host;
  plugin chaos;
  gate release;
};

}  // namespace

TEST_CASE("a plugin in this process that has been unloaded is unavailable to calls of every kind") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), here());
  CHECK(chaos.call<int>("echo", 1) == 1);
  chaos.unload();
  CHECK(chaos.status().state == plugin_status::state::unloaded);
  CHECK(failure_of([&] { chaos.call("echo", 1); }).outcome() == outcome::unavailable);
  CHECK(chaos.open("echo", 1).finish().outcome() == outcome::unavailable);
  mailbox<outcome> ended;
  chaos.async_call<reply>("echo", std::tuple{1}, outcome_to(ended));
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values()[0] == outcome::unavailable);
  chaos.unload();
}

TEST_CASE("a plugin that is still being made in this process when its host is shut down is unavailable") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  unique_fd mine(ends[0]);
  const unique_fd the_plugins(ends[1]);
  REQUIRE(::setenv("BULKHEAD_TEST_GATE", std::to_string(the_plugins.get()).c_str(), 1) == 0);
  host host;
  auto load = std::async(std::launch::async, [&] {
    try {
      host.load(plugin_path("gated"), here());
    } catch (const call_error& error) {
      return error.outcome();
    }
    return outcome::ok;
  });
  char byte = 0;
  REQUIRE(::recv(mine.get(), &byte, 1, 0) == 1);
  host.shutdown();
  mine.reset();
  CHECK(load.get() == outcome::unavailable);
  ::unsetenv("BULKHEAD_TEST_GATE");
}

TEST_CASE("calls that still wait for their turn in this process when the plugin is unloaded end with unavailable") {
  std::future<outcome> waiting;
  std::future<void> unloading;
  auto options = here();
  options.supervision.drain.calls = 0s;
  occupied at(options);
  plugin& chaos = at.chaos;
  waiting = std::async(std::launch::async, [&] { return chaos.try_call("echo", 1).outcome(); });
  auto streaming = chaos.open("echo", 2);
  while (chaos.workers().at(0).outstanding < 3) std::this_thread::yield();

  unloading = std::async(std::launch::async, [&] { chaos.unload(); });
  CHECK(streaming.finish().outcome() == outcome::cancelled);  // which it is when the time to drain is over
  at.release.open();
  CHECK(at.running.get() == outcome::ok);
  CHECK(waiting.get() == outcome::unavailable);
  unloading.get();
}

TEST_CASE("a stream that is cancelled while it waits for its turn in this process never begins") {
  mailbox<int> begun;
  functions lent;
  lent.add("begin", [&] { begun.put(1); });
  occupied at(here(lent));
  plugin& chaos = at.chaos;
  auto streaming = chaos.open("call_host", "begin", std::tuple{});
  while (chaos.workers().at(0).outstanding < 2) std::this_thread::yield();
  streaming.cancel();
  CHECK(streaming.finish().outcome() == outcome::cancelled);
  at.release.open();
  CHECK(at.running.get() == outcome::ok);
  chaos.unload();  // waits for all that has begun
  CHECK(begun.values().empty());
}

TEST_CASE("calls on many threads race with the end of a plugin in this process, and each has an outcome") {
  host host;
  for (int round = 0; round < 20; ++round) {
    auto chaos = host.load(plugin_path("chaos"), here());
    std::atomic<int> wrong{0};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&] {
        outcome last = outcome::ok;
        while (last == outcome::ok) last = chaos.try_call("echo", 1).outcome();
        if (last != outcome::unavailable) ++wrong;
      });
    chaos.unload();
    threads.clear();
    CHECK(wrong == 0);
  }
}

TEST_CASE("a function lent to a plugin in this process can't use the plugin that waits for it, and is told so") {
  host host;
  plugin chaos;
  std::vector<call_error> errors;
  functions lent;
  lent.add("again", [&] {
    errors.push_back(failure_of([&] { chaos.call("echo", 1); }));
    errors.push_back(failure_of([&] { chaos.unload(); }));
  });
  chaos = host.load(plugin_path("chaos"), here(lent));
  chaos.call("call_host", "again", std::tuple{});
  REQUIRE(errors.size() == 2);
  for (const call_error& each : errors) {
    CHECK(each.outcome() == outcome::rejected);
    CHECK(each.message().find("one call at a time") != std::string::npos);
  }
  CHECK(chaos.call<int>("echo", 2) == 2);
}

TEST_CASE("events of a plugin in this process are handled one at a time and in order") {
  mailbox<int> seen;
  std::atomic<int> inside{0};
  std::atomic<bool> overlapped{false};
  host host;
  auto chaos = host.load(plugin_path("chaos"), here());
  chaos.on_event([&](const std::string&, const msgpack::object& value) {
    if (++inside > 1) overlapped = true;
    std::this_thread::yield();
    seen.put(value.as<int>());
    --inside;
  });
  constexpr int many = 500;
  for (int i = 0; i < many; ++i) chaos.call("emit", "tick", i, 1);
  REQUIRE(seen.wait_for(many));
  const auto all = seen.values();
  CHECK(std::is_sorted(all.begin(), all.end()));
  CHECK_FALSE(overlapped);
}

TEST_CASE("what handlers of a plugin in this process throw is logged, and what comes next is handled") {
  mailbox<log_record> logs;
  mailbox<int> events;
  host host({.on_log = [&](const log_record& record) { logs.put(record); }});
  auto chaos = host.load(plugin_path("chaos"), here());
  chaos.on_event([&](const std::string&, const msgpack::object& value) {
    events.put(value.as<int>());
    if (value.as<int>() == 1) throw std::runtime_error("not this event");
    if (value.as<int>() == 2) throw 2;
  });
  for (int i = 1; i <= 3; ++i) chaos.call("emit", "tick", i, 1);
  CHECK(events.wait_for(3));
  const auto refusing = [](const msgpack::object&) { throw std::runtime_error("no progress"); };
  CHECK(chaos.with({.on_progress = refusing}).call<int>("progress", 2) == 2);
  REQUIRE(logs.wait_for(4));
  std::string text;
  for (const log_record& each : logs.values()) text += each.text + "\n";
  for (const char* expected : {"threw: not this event", "threw: what is no std::exception", "threw: no progress"})
    CHECK(text.find(expected) != std::string::npos);
}
