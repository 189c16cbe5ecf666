// Calls: results, errors, deadlines, cancellation, progress, events, host functions, handles, every completion token.
#include "fixture.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <future>

#include <fcntl.h>

using namespace bulkhead;
using namespace bulkhead::testing;

TEST_CASE("a call's typed result comes back") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  CHECK(echo.call<int>("add", 2, 3) == 5);
  CHECK(echo.call<std::string>("echo", "hello") == "hello");
  CHECK(echo.call<std::vector<double>>("echo", std::vector<double>{1.5, 2}) == std::vector<double>{1.5, 2});
  CHECK(echo.call<std::size_t>("size", bytes(100'000)) == 100'000);
}

TEST_CASE("megabytes go there and back") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  bytes data(std::size_t{15} << 20);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::uint8_t>(i * 7);
  CHECK(echo.call<bytes>("echo", data) == data);
}

TEST_CASE("a call larger than the frame limit is rejected and harms nothing") {
  host host;
  auto echo = host.load(plugin_path("echo"), {.blobs = {.threshold = SIZE_MAX}});  // all of it in the message
  const auto error = failure_of([&] { echo.call("size", bytes(std::size_t{17} << 20)); });
  CHECK(error.outcome() == outcome::rejected);
  CHECK(error.message().find("bytes") != std::string::npos);
  CHECK(echo.call<int>("add", 1, 1) == 2);
}

TEST_CASE("wrong arguments are plugin errors that say what was expected") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  auto error = failure_of([&] { echo.call("add", "two", 3); });
  CHECK(error.outcome() == outcome::plugin_error);
  CHECK(error.message() == "add: argument 1 (a): expected int, got str");
  error = failure_of([&] { echo.call("add", 1); });
  CHECK(error.message() == "add: takes 2 arguments, got 1");
}

TEST_CASE("an unknown method is rejected with the list of those there are") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  const auto error = failure_of([&] { echo.call("nope"); });
  CHECK(error.outcome() == outcome::rejected);
  CHECK(error.message() == "no method 'nope' in plugin echo; it has: echo, add, size");
}

TEST_CASE("a result of another type than asked for is a clear error") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  const auto error = failure_of([&] { echo.call<int>("echo", "text"); });
  CHECK(error.message() == "the result: expected int, got str");
}

TEST_CASE("a call past its deadline is a timeout and the worker that heeds it lives on") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const auto pid = chaos.workers().at(0).pid;
  const auto before = std::chrono::steady_clock::now();
  const auto error = failure_of([&] { chaos.with({.deadline = 50ms}).call("sleep_ms", 20'000); });
  CHECK(error.outcome() == outcome::timeout);
  CHECK(std::chrono::steady_clock::now() - before < 5s);
  chaos.call("echo", 1);
  CHECK(chaos.workers().at(0).pid == pid);
}

TEST_CASE("a stop request cancels a synchronous call") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  std::stop_source stop;
  std::jthread canceller([&] { stop.request_stop(); });
  const auto error = failure_of([&] { chaos.with({.stop = stop.get_token()}).call("sleep_ms", 20'000); });
  CHECK(error.outcome() == outcome::cancelled);
}

TEST_CASE("a call that is cancelled ends all of the calls to the application that are made for it") {
  mailbox<int> begun;
  mailbox<outcome> ended;
  host host;
  std::promise<void> over;
  functions lent;
  lent.add("wait", [&, until_over = over.get_future().share()] {
    begun.put(1);
    until_over.wait();
  });
  auto chaos = host.load(plugin_path("chaos"), {.functions = lent});
  const pid_t pid = chaos.workers().at(0).pid;
  std::stop_source stop;
  chaos.async_call<reply>("call_host_at_once", std::tuple{"wait", std::tuple{}, 3}, outcome_to(ended),
                          {.stop = stop.get_token()});
  REQUIRE(begun.wait_for(3));
  stop.request_stop();
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values()[0] == outcome::cancelled);
  CHECK(chaos.call<int>("echo", 1) == 1);  // its threads have ended, for it serves one call at a time
  CHECK(chaos.workers().at(0).pid == pid);
  over.set_value();
}

TEST_CASE("progress arrives in order") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  mailbox<int> seen;
  chaos.with({.on_progress = [&](const msgpack::object& value) { seen.put(value.as<int>()); }}).call("progress", 5);
  REQUIRE(seen.wait_for(5));
  CHECK(seen.values() == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("when a synchronous call returns, all of its progress has been told, and none comes later") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.isolation = GENERATE(isolation::process, isolation::none)});
  for (int round = 0; round < 20; ++round) {
    std::vector<int> seen;
    const auto take = [&](const msgpack::object& value) { seen.push_back(value.as<int>()); };
    chaos.with({.on_progress = take}).call("progress", 50);
    REQUIRE(seen.size() == 50);
    CHECK(std::is_sorted(seen.begin(), seen.end()));
  }
}

TEST_CASE("a synchronous call waits for the report of progress that is being handled") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.isolation = GENERATE(isolation::process, isolation::none)});
  std::atomic<bool> handling{false};
  int handled = 0;
  const auto slow = [&](const msgpack::object&) {
    handling = true;
    std::this_thread::sleep_for(20ms);  // longer than the answer takes
    ++handled;
    handling = false;
  };
  chaos.with({.on_progress = slow}).call("progress", 3);
  CHECK_FALSE(handling);
  CHECK(handled == 3);
}

TEST_CASE("events arrive, also more than the credit at once") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  mailbox<std::pair<std::string, int>> seen;
  chaos.on_event([&](const std::string& name, const msgpack::object& value) { seen.put({name, value.as<int>()}); });
  chaos.call("emit", "tick", 7, 5000);
  REQUIRE(seen.wait_for(5000));
  CHECK(seen.values()[4999] == std::pair<std::string, int>("tick", 7));
}

TEST_CASE("large events wait for a handler that lags behind, and all of them arrive") {
  host host;
  auto echo = host.load(plugin_path("echo"));
  load_options options;
  options.limits.frame = std::size_t{64} << 10;
  auto chaos = host.load(plugin_path("chaos"), options);
  mailbox<std::size_t> seen;
  chaos.on_event([&](const std::string&, const msgpack::object& value) {
    for (int i = 0; i < 5; ++i) echo.call<int>("add", i, 1);
    seen.put(value.via.bin.size);
  });
  chaos.call("emit", "large", bytes(60'000), 100);
  REQUIRE(seen.wait_for(100));
  CHECK(seen.values() == std::vector<std::size_t>(100, 60'000));
}

TEST_CASE("what a plugin sends beyond the frame limit costs it that message and no more") {
  mailbox<log_record> logs;
  host host({.on_log = [&](const log_record& record) { logs.put(record); }});
  load_options options;
  options.limits.frame = std::size_t{64} << 10;
  options.functions.add("size", [](const bytes& value) { return value.size(); });
  auto chaos = host.load(plugin_path("chaos"), options);
  const pid_t pid = chaos.workers().at(0).pid;
  const bytes large(100'000);  // it goes there as a blob, and comes back in the message
  mailbox<std::string> seen;
  chaos.on_event([&](const std::string& name, const msgpack::object&) { seen.put(name); });

  CHECK(failure_of([&] { chaos.call("emit", "large", large, 1); }).message() == "the host takes no more events");
  CHECK_THAT(failure_of([&] { chaos.call("call_host", "size", std::tuple{large}); }).message(),
             Catch::StartsWith("rejected: the call of 'size' has 1000") &&
                 Catch::EndsWith("more than the limit of 65536 for one message"));
  const auto failed = failure_of([&] { chaos.call("fail_with", "the reason", large); });
  CHECK(failed.message() == "the reason");
  CHECK(failed.data().empty());
  chaos.with({.on_progress = [&](const msgpack::object&) { seen.put("progress"); }}).call("report", large);
  REQUIRE(logs.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(), [](const log_record& each) {
      return each.text.find("dropped: a report of progress has 1000") != std::string::npos;
    });
  }));

  chaos.call("emit", "small", 1, 1);
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values() == std::vector<std::string>{"small"});
  CHECK(chaos.call<std::size_t>("call_host", "size", std::tuple{bytes(100)}) == 100);
  CHECK(chaos.workers().at(0).pid == pid);
}

TEST_CASE("a plugin calls the functions lent to it and no others") {
  host host;
  functions lent;
  lent.add("twice", [](int x) { return 2 * x; });
  lent.add("fails", [](int) -> int { throw std::runtime_error("not today"); });
  auto chaos = host.load(plugin_path("chaos"), {.functions = lent});
  CHECK(chaos.call<int>("call_host", "twice", std::tuple{21}) == 42);
  CHECK(failure_of([&] { chaos.call("call_host", "fails", std::tuple{1}); }).message() == "failed: not today");
  const auto missing = failure_of([&] { chaos.call("call_host", "secret", std::tuple{}); });
  CHECK(missing.message().find("lends no function 'secret'") != std::string::npos);
  const auto wrong = failure_of([&] { chaos.call("call_host", "twice", std::tuple{"x"}); });
  CHECK(wrong.message() == "rejected: twice: argument 1: expected int, got str");
}

TEST_CASE("a function that a plugin calls knows how long its call has, and calls that it makes end by then") {
  const auto where = GENERATE(isolation::process, isolation::none);
  using clock = std::chrono::steady_clock;
  mailbox<outcome> nested;  // written by handlers, so outlives the host
  std::atomic<bool> asked{false};
  host host;
  auto other = host.load(plugin_path("chaos"));
  functions lent;
  lent.add("seconds_left", [] {
    const auto until = current_deadline();
    return until == clock::time_point::max() ? -1.0 : std::chrono::duration<double>(until - clock::now()).count();
  });
  lent.add("ask_another", [&] {
    nested.put(failure_of([&] { other.call("sleep_ms", 60'000); }).outcome());
    if (where == isolation::process) asked.wait(false);  // so that its answer can't come just in time
  });
  auto chaos = host.load(plugin_path("chaos"), {.isolation = where, .functions = lent});

  const double left = chaos.with({.deadline = 20s}).call<double>("call_host", "seconds_left", std::tuple{});
  CHECK(left > 5);
  CHECK(left <= 20);
  CHECK(chaos.call<double>("call_host", "seconds_left", std::tuple{}) > 20);  // the default
  CHECK(chaos.with({.deadline = no_deadline}).call<double>("call_host", "seconds_left", std::tuple{}) == -1);
  CHECK(current_deadline() == clock::time_point::max());

  struct scope {
    std::atomic<bool>& over;
    ~scope() {
      over = true;
      over.notify_all();
    }
  } const releases{asked};
  const auto begun = clock::now();
  const auto asking = [&] { chaos.with({.deadline = 500ms}).call("call_host", "ask_another", std::tuple{}); };
  if (where == isolation::process) CHECK(failure_of(asking).outcome() == outcome::timeout);
  else asking();  // nothing ends a call in this process but itself
  REQUIRE(nested.wait_for(1));
  CHECK(nested.values()[0] == outcome::timeout);
  CHECK(clock::now() - begun < 25s);  // other's own deadline is 30 s
}

TEST_CASE("a passed descriptor is readable in the worker") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  REQUIRE(::write(pipe[1], "through", 7) == 7);
  ::close(pipe[1]);
  CHECK(chaos.call<std::string>("read_handle", pass_fd{pipe[0]}) == "through");
  ::close(pipe[0]);
}

TEST_CASE("an asynchronous answer from another thread of the plugin arrives") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  CHECK(chaos.call<int>("later", 10) == 10);
}

TEST_CASE("async_call completes a callback, a future and a coroutine") {
  host host;
  auto echo = host.load(plugin_path("echo"));

  mailbox<std::pair<boost::system::error_code, int>> called;
  echo.async_call<int>("add", std::tuple{1, 2}, [&](boost::system::error_code code, int sum) {
    called.put({code, sum});
  });
  REQUIRE(called.wait_for(1));
  CHECK(!called.values()[0].first);
  CHECK(called.values()[0].second == 3);

  CHECK(echo.async_call<int>("add", std::tuple{3, 4}, boost::asio::use_future).get() == 7);
  auto failed = echo.async_call<int>("nope", std::tuple{}, boost::asio::use_future);
  try {
    failed.get();
    FAIL("succeeded");
  } catch (const boost::system::system_error& error) {
    CHECK(error.code() == outcome::rejected);
  }

  boost::asio::io_context context;
  int sum = 0;
  boost::asio::co_spawn(
      context,
      [&]() -> boost::asio::awaitable<void> {
        sum = co_await echo.async_call<int>("add", std::tuple{20, 22}, boost::asio::use_awaitable);
      },
      boost::asio::detached);
  context.run();
  CHECK(sum == 42);
}

TEST_CASE("an asynchronous call times out and can be cancelled") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  mailbox<reply> ended;
  auto take = [&](boost::system::error_code, reply result) { ended.put(std::move(result)); };
  chaos.async_call<reply>("sleep_ms", std::tuple{20'000}, take, {.deadline = 30ms});
  REQUIRE(ended.wait_for(1));
  CHECK(ended.values()[0].outcome() == outcome::timeout);
  std::stop_source stop;
  chaos.async_call<reply>("sleep_ms", std::tuple{20'000}, take, {.stop = stop.get_token()});
  stop.request_stop();
  REQUIRE(ended.wait_for(2));
  CHECK(ended.values()[1].outcome() == outcome::cancelled);
}

TEST_CASE("more calls than the queue holds are overloaded, each at once, and the rest are answered") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.queue_limit = 192});
  mailbox<outcome> ended;
  for (int i = 0; i < 400; ++i)  // 64 are sent to the worker, 192 wait
    chaos.async_call<reply>("sleep_ms", std::tuple{i == 0 ? 300 : 0}, outcome_to(ended));
  REQUIRE(ended.wait_for(400));
  const auto all = ended.values();
  CHECK(std::count(all.begin(), all.end(), outcome::overloaded) == 144);
  CHECK(std::count(all.begin(), all.end(), outcome::ok) == 256);
}

TEST_CASE("a host runs on the embedder's executor") {
  boost::asio::io_context context;
  auto work = boost::asio::make_work_guard(context);
  std::jthread runner([&] { context.run(); });
  {
    host host(context.get_executor());
    auto echo = host.load(plugin_path("echo"));
    CHECK(echo.call<int>("add", 1, 2) == 3);
    CHECK(echo.async_call<int>("add", std::tuple{3, 4}, boost::asio::use_future).get() == 7);
  }
  work.reset();
}

TEST_CASE("synchronous calls work while nobody runs the embedder's executor") {
  boost::asio::io_context context;
  host host(context.get_executor());
  auto chaos = host.load(plugin_path("chaos"));
  CHECK(chaos.call<int>("echo", 5) == 5);
  CHECK(failure_of([&] { chaos.call("misbehave", "segfault"); }).outcome() == outcome::worker_lost);
  CHECK(chaos.call<int>("echo", 6) == 6);
}

TEST_CASE("the same plugin runs in-process with the same API") {
  host host;
  functions lent;
  lent.add("twice", [](int x) { return 2 * x; });
  auto chaos = host.load(plugin_path("chaos"), {.isolation = isolation::none, .functions = lent});
  CHECK(chaos.call<int>("pid") == ::getpid());
  CHECK(chaos.call<int>("call_host", "twice", std::tuple{4}) == 8);
  CHECK(chaos.call<int>("later", 3) == 3);
  CHECK(failure_of([&] { chaos.call("progress", "x"); }).outcome() == outcome::plugin_error);
  CHECK(failure_of([&] { chaos.with({.deadline = 20ms}).call("sleep_ms", 5'000); }).outcome() == outcome::timeout);
  CHECK(chaos.async_call<int>("echo", std::tuple{9}, boost::asio::use_future).get() == 9);
}
