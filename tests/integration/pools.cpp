// How calls find a worker: dispatch, the queue, what moves to another worker, what is repeated, what is refused.
#include "watched_host.hpp"

#include <csignal>
#include <future>

#include <sched.h>

namespace bulkhead::testing {

TEST_CASE("calls that were not begun move to another worker when theirs dies, the one that was begun is lost") {
  host host({.spawns = any_number_of_spawns});
  auto chaos = host.load(plugin_path("chaos"), untiring());
  const pid_t pid = chaos.workers().at(0).pid;
  mailbox<outcome> first, rest;
  chaos.async_call<reply>("sleep_ms", std::tuple{60'000}, outcome_to(first));
  for (int i = 0; i < 100; ++i) chaos.async_call<reply>("echo", std::tuple{i}, outcome_to(rest));
  REQUIRE(gets_into_call(chaos));
  ::kill(pid, SIGKILL);
  REQUIRE(rest.wait_for(100));
  REQUIRE(first.wait_for(1));
  CHECK(first.values()[0] == outcome::worker_lost);
  for (const outcome each : rest.values()) CHECK(each == outcome::ok);
}

TEST_CASE("a call of an idempotent method is repeated when its worker dies in it") {
  host host({.spawns = any_number_of_spawns});
  std::atomic<int> asked{0};
  load_options options = untiring();
  options.poison_limit = 3;
  options.functions.add("lucky", [&] { return ++asked == 3; });
  auto chaos = host.load(plugin_path("chaos"), options);
  CHECK(chaos.try_call("unlucky").outcome() == outcome::ok);
  CHECK(asked == 3);
}

TEST_CASE("what is repeated by itself is repeated so many times, also when no call is ever refused") {
  std::atomic<int> asked{0};
  mailbox<int> held, go_on;
  mailbox<outcome> ended;
  host host({.spawns = any_number_of_spawns});
  load_options options = untiring();
  options.functions.add("lucky", [&] { return ++asked > 100; });
  options.functions.add("hold", [&] {
    held.put(1);
    return go_on.wait_for(1);
  });
  auto chaos = host.load(plugin_path("chaos"), options);
  SECTION("an idempotent call that kills its workers") {
    CHECK(chaos.try_call("unlucky").outcome() == outcome::worker_lost);
    CHECK(asked == 3);
  }
  SECTION("a call whose workers die before they begin it") {
    constexpr unsigned calls = 30;  // each of them kills the worker that the others wait in
    const auto take = outcome_to(ended);
    chaos.async_call<reply>("call_host", std::tuple{"hold", std::tuple{}},
                            [](boost::system::error_code, const reply&) {});
    REQUIRE(held.wait_for(1));
    for (unsigned i = 0; i < calls; ++i) chaos.async_call<reply>("misbehave", std::tuple{"abort"}, take);
    go_on.put(1);
    REQUIRE(ended.wait_for(calls));
    const auto all = ended.values();
    const auto lost = std::count(all.begin(), all.end(), outcome::worker_lost);
    CHECK(lost >= 10);
    CHECK(lost < calls);
    CHECK(std::count(all.begin(), all.end(), outcome::not_sent) == calls - lost);
  }
}

TEST_CASE("a call that has killed three workers is refused, others are served") {
  watched_host host;
  load_options options = untiring();
  options.poison_limit = 3;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  for (int i = 0; i < 3; ++i) CHECK(chaos.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
  const auto refused = failure_of([&] { chaos.call("misbehave", "abort"); });
  CHECK(refused.outcome() == outcome::rejected);
  CHECK(refused.message().find("has killed 3 workers") != std::string::npos);
  REQUIRE(host.saw(lifecycle_event::kind::poisoned));
  CHECK(host.last(lifecycle_event::kind::poisoned).text == "misbehave");
  CHECK(chaos.try_call("misbehave", "exit_3").outcome() == outcome::worker_lost);  // not the same call
  CHECK(chaos.call<int>("echo", 1) == 1);
  chaos.reset();
  CHECK(chaos.try_call("misbehave", "abort").outcome() == outcome::worker_lost);
}

TEST_CASE("a call that was beside one that killed its worker is not blamed, though it is of the same method") {
  host host({.spawns = any_number_of_spawns});
  load_options options = untiring({.concurrency = 2});
  options.poison_limit = 1;
  auto parallel = host.load(plugin_path("parallel"), options);
  mailbox<outcome> ended;
  for (const bool deadly : {true, false}) parallel.async_call<reply>("beside", std::tuple{deadly}, outcome_to(ended));
  REQUIRE(ended.wait_for(2));
  CHECK(ended.values() == std::vector{outcome::worker_lost, outcome::worker_lost});
  CHECK(parallel.with({.deadline = 50ms}).try_call("beside", false).outcome() == outcome::timeout);
  CHECK(parallel.try_call("beside", true).outcome() == outcome::rejected);
}

TEST_CASE("a call that hangs until its worker is killed counts as one that has killed it") {
  watched_host host;
  load_options options = untiring();
  options.poison_limit = 1;
  auto chaos = host.self.load(plugin_path("chaos"), options);
  mailbox<outcome> late;
  std::stop_source stop;
  const auto take = outcome_to(late);
  chaos.async_call<reply>("misbehave", std::tuple{"ignore_cancel"}, take, {.stop = stop.get_token()});
  chaos.async_call<reply>("echo", std::tuple{1}, take, {.stop = stop.get_token()});  // behind it, and innocent
  REQUIRE(gets_into_call(chaos));
  stop.request_stop();
  REQUIRE(late.wait_for(2));
  CHECK(late.values() == std::vector{outcome::cancelled, outcome::cancelled});
  REQUIRE(host.saw(lifecycle_event::kind::poisoned));
  CHECK(host.last(lifecycle_event::kind::poisoned).text == "misbehave");
  CHECK(chaos.try_call("misbehave", "ignore_cancel").outcome() == outcome::rejected);
  CHECK(chaos.call<int>("echo", 1) == 1);
}

TEST_CASE("calls that wait while their like kills workers are refused with it, others are served") {
  host host({.spawns = any_number_of_spawns});
  load_options options{.instances = 2};  // and at most five restarts
  options.sent_ahead = 0;
  options.poison_limit = 3;
  auto chaos = host.load(plugin_path("chaos"), options);
  constexpr unsigned calls = 20;
  mailbox<outcome> deadly, harmless;
  for (unsigned i = 0; i < calls; ++i) {
    chaos.async_call<reply>("misbehave", std::tuple{"abort"}, outcome_to(deadly));
    chaos.async_call<reply>("echo", std::tuple{i}, outcome_to(harmless));
  }
  REQUIRE(deadly.wait_for(calls));
  REQUIRE(harmless.wait_for(calls));
  const auto dead = deadly.values();
  CHECK(std::count(dead.begin(), dead.end(), outcome::worker_lost) <=
        4);  // three, and one at the same time as the third
  CHECK(std::count(dead.begin(), dead.end(), outcome::rejected) >= calls - 4);
  const auto alive = harmless.values();
  CHECK(std::count(alive.begin(), alive.end(), outcome::ok) == calls);
  CHECK(chaos.status().state == plugin_status::state::running);
}

TEST_CASE("a call that waits for a worker ends by its deadline, by its caller, or as overloaded") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.queue_limit = 2, .sent_ahead = 0});
  mailbox<outcome> first, rest;
  chaos.async_call<reply>("sleep_ms", std::tuple{700}, outcome_to(first));
  SECTION("its deadline") {
    CHECK(chaos.with({.deadline = 20ms}).try_call("echo", 1).outcome() == outcome::timeout);
    chaos.async_call<reply>("echo", std::tuple{1}, outcome_to(rest), {.deadline = 20ms});
    REQUIRE(rest.wait_for(1));
    CHECK(rest.values()[0] == outcome::timeout);
  }
  SECTION("its caller") {
    std::stop_source stop;
    chaos.async_call<reply>("echo", std::tuple{1}, outcome_to(rest), {.stop = stop.get_token()});
    std::jthread other([&] {
      while (chaos.status().waiting < 2) std::this_thread::yield();
      stop.request_stop();
    });
    CHECK(chaos.with({.stop = stop.get_token()}).try_call("echo", 1).outcome() == outcome::cancelled);
    REQUIRE(rest.wait_for(1));
    CHECK(rest.values()[0] == outcome::cancelled);
  }
  SECTION("overloaded") {
    for (int i = 0; i < 2; ++i) chaos.async_call<reply>("echo", std::tuple{1}, outcome_to(rest));
    const auto refused = failure_of([&] { chaos.call("echo", 1); });
    CHECK(refused.outcome() == outcome::overloaded);
    CHECK(refused.message().find("2 calls wait") != std::string::npos);
    REQUIRE(rest.wait_for(2));
    CHECK(rest.values() == std::vector{outcome::ok, outcome::ok});
  }
  REQUIRE(first.wait_for(1));
  CHECK(first.values()[0] == outcome::ok);
  CHECK(chaos.status().waiting == 0);
}

TEST_CASE("calls that wait have a limit of bytes together") {
  mailbox<int> held, go_on;
  mailbox<outcome> rest;
  host host;
  load_options options;
  options.sent_ahead = 0;
  options.limits.queued_bytes = 100'000;
  options.blobs.memory = 0;
  options.functions.add("hold", [&] {
    held.put(1);
    return go_on.wait_for(1);
  });
  auto chaos = host.load(plugin_path("chaos"), options);
  const auto take = outcome_to(rest);
  chaos.async_call<reply>("call_host", std::tuple{"hold", std::tuple{}}, take);
  REQUIRE(held.wait_for(1));
  for (int i = 0; i < 2; ++i) chaos.async_call<reply>("echo", std::tuple{std::string(150'000, 'x')}, take);
  CHECK(chaos.status().waiting == 2);
  const std::string another(150'000, 'x');
  const auto refused = failure_of([&] { chaos.call("echo", another); });
  CHECK(refused.outcome() == outcome::overloaded);
  CHECK(refused.message().find("2 calls of") != std::string::npos);
  chaos.async_call<reply>("echo", std::tuple{another}, take);
  REQUIRE(rest.wait_for(1));
  CHECK(rest.values()[0] == outcome::overloaded);
  chaos.async_call<reply>("echo", std::tuple{1}, take);  // a small one may
  go_on.put(1);
  REQUIRE(rest.wait_for(5));
  const auto all = rest.values();
  CHECK(std::count(all.begin(), all.end(), outcome::ok) == 4);
}

TEST_CASE("a call that times out behind another one costs neither that one nor the worker") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const pid_t pid = chaos.workers().at(0).pid;
  mailbox<outcome> running, behind;
  chaos.async_call<reply>("sleep_ms", std::tuple{1300},  // longer than the grace
                          outcome_to(running));
  chaos.async_call<reply>("echo", std::tuple{1}, outcome_to(behind), {.deadline = 50ms});
  REQUIRE(running.wait_for(1));
  CHECK(running.values()[0] == outcome::ok);
  REQUIRE(behind.wait_for(1));
  CHECK(behind.values()[0] == outcome::timeout);
  CHECK(chaos.call<int>("echo", 2) == 2);
  CHECK(chaos.workers().at(0).pid == pid);
}

TEST_CASE("asynchronous calls that wait end each by its own deadline, in whichever order they came") {
  mailbox<std::pair<int, outcome>> ended;
  mailbox<outcome> running;
  host host;
  std::promise<void> busy;
  functions lent;
  lent.add("wait", [until = busy.get_future().share()] { until.wait(); });
  auto chaos = host.load(plugin_path("chaos"), {.functions = lent, .sent_ahead = 0});
  const auto call = [&](int which, std::chrono::nanoseconds deadline) {
    chaos.async_call<reply>("echo", std::tuple{which},
                            [&ended, which](boost::system::error_code, const reply& result) {
                              ended.put({which, result.outcome()});
                            },
                            {.deadline = deadline});
  };
  chaos.async_call<reply>("call_host", std::tuple{"wait", std::tuple{}}, outcome_to(running));
  call(1, 25s);
  call(2, 80ms);
  call(3, 20ms);
  CHECK(ended.wait_for(2));
  call(4, 20ms);
  CHECK(ended.wait_for(3));
  for (const auto& [which, how] : ended.values()) {
    CHECK(which != 1);
    CHECK(how == outcome::timeout);
  }
  CHECK(chaos.status().waiting == 1);
  busy.set_value();
  REQUIRE(ended.wait_for(4));
  CHECK(ended.values()[3] == std::pair(1, outcome::ok));
  CHECK(running.wait_for(1));
}

TEST_CASE("idle workers share calls: none waits behind a slow one while another is free") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.instances = 2});
  mailbox<outcome> slow;
  std::stop_source stop;
  chaos.async_call<reply>("sleep_ms", std::tuple{20'000}, outcome_to(slow), {.stop = stop.get_token()});
  for (int i = 0; i < 50; ++i) CHECK(chaos.with({.deadline = 10s}).call<int>("echo", i) == i);
  CHECK(slow.values().empty());
  stop.request_stop();
  REQUIRE(slow.wait_for(1));
}

TEST_CASE("a plugin has a worker for each CPU that its host may use, if asked") {
  cpu_set_t all, one;
  REQUIRE(::sched_getaffinity(0, sizeof all, &all) == 0);
  host host;
  const auto echo = host.load(plugin_path("echo"), {.instances = one_per_cpu});
  CHECK(echo.workers().size() == static_cast<std::size_t>(CPU_COUNT(&all)));
  CHECK(echo.status().instances == echo.workers().size());
  CPU_ZERO(&one);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &all)) ++cpu;
  CPU_SET(cpu, &one);
  ::sched_setaffinity(0, sizeof one, &one);
  const auto alone = host.load(plugin_path("echo"), {.instances = one_per_cpu});
  ::sched_setaffinity(0, sizeof all, &all);
  CHECK(alone.workers().size() == 1);
}

TEST_CASE("round robin takes workers in turn") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.instances = 3, .dispatch = {.kind = dispatch::kind::round_robin}});
  std::vector<std::string> went;
  for (int i = 0; i < 9; ++i) went.push_back(chaos.call<std::string>("name"));
  CHECK(std::set(went.begin(), went.end()).size() == 3);
  for (int i = 0; i < 6; ++i) CHECK(went[static_cast<std::size_t>(i)] == went[static_cast<std::size_t>(i + 3)]);
}

TEST_CASE("equal keys go to the same worker, different keys to different ones") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.instances = 4, .dispatch = {.kind = dispatch::kind::sticky}});
  std::set<std::string> used;
  for (int key = 0; key < 40; ++key) {
    const auto there = chaos.with({.key = key}).call<std::string>("name");
    for (int i = 0; i < 3; ++i) CHECK(chaos.with({.key = key}).call<std::string>("name") == there);
    used.insert(there);
  }
  CHECK(used.size() == 4);
  CHECK(chaos.with({.key = "session 7"}).call<std::string>("name") ==
        chaos.with({.key = std::string("session 7")}).call<std::string>("name"));
}

TEST_CASE("an embedder's own dispatch chooses, or lets a call wait") {
  host host;
  std::atomic<int> refusals{3};
  load_options options;
  options.instances = 3;
  options.dispatch.kind = dispatch::kind::custom;
  options.dispatch.choose = [&](const std::vector<candidate>& free, std::string_view method, call_key) -> std::size_t {
    if (method == "echo" && refusals-- > 0) return free.size();
    for (std::size_t i = 0; i < free.size(); ++i)
      if (free[i].place == 2) return i;
    return free.size();
  };
  auto chaos = host.load(plugin_path("chaos"), options);
  std::set<std::string> used;
  for (int i = 0; i < 5; ++i) used.insert(chaos.call<std::string>("name"));
  CHECK(used.size() == 1);
  CHECK(chaos.with({.deadline = 50ms}).try_call("echo", 1).outcome() == outcome::timeout);  // nobody asks again
  refusals = 0;
  CHECK(chaos.call<int>("echo", 2) == 2);
  load_options without;
  without.dispatch.kind = dispatch::kind::custom;
  CHECK_THROWS_WITH(host.load(plugin_path("chaos"), without), Catch::Contains("takes a function"));
}

TEST_CASE("an embedder's dispatch that throws lets calls wait, and the log says so") {
  mailbox<std::string> logs;
  host host({.on_log = [&](const log_record& record) { logs.put(record.text); }});
  std::atomic<bool> throws{true};
  load_options options;
  options.dispatch.kind = dispatch::kind::custom;
  options.dispatch.choose = [&](const std::vector<candidate>&, std::string_view, call_key) -> std::size_t {
    if (throws) throw std::runtime_error("no choice");
    return 0;
  };
  auto chaos = host.load(plugin_path("chaos"), options);
  CHECK(chaos.with({.deadline = 20ms}).try_call("echo", 1).outcome() == outcome::timeout);
  CHECK(logs.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(),
                       [](const auto& text) { return text.find("choose() threw: no choice") != std::string::npos; });
  }));
  mailbox<outcome> waited;
  for (int i = 0; i < 2; ++i) chaos.async_call<reply>("echo", std::tuple{i}, outcome_to(waited));
  CHECK(chaos.status().waiting == 2);
  throws = false;
  CHECK(chaos.call<int>("echo", 2) == 2);
  REQUIRE(waited.wait_for(2));
  CHECK(waited.values() == std::vector{outcome::ok, outcome::ok});
}

TEST_CASE("a thread-safe plugin runs as many calls at once as it may, another runs one") {
  host host;
  auto parallel = host.load(plugin_path("parallel"), {.concurrency = 3});
  CHECK(parallel.describe().concurrency == 3);
  mailbox<int> met;
  for (int i = 0; i < 3; ++i)
    parallel.async_call<int>("meet", std::tuple{3}, [&](boost::system::error_code, int most) { met.put(most); });
  REQUIRE(met.wait_for(3));
  CHECK(met.values() == std::vector{3, 3, 3});
  CHECK(parallel.with({.deadline = 100ms}).try_call("meet", 4).outcome() == outcome::timeout);
  CHECK(host.load(plugin_path("chaos"), {.concurrency = 3}).describe().concurrency == 1);
  mailbox<int> sums;
  for (int i = 0; i < 900; ++i)
    parallel.async_call<int>("add", std::tuple{i, 1}, [&, i](boost::system::error_code, int sum) { sums.put(sum - i); },
                             {.deadline = 60s});
  for (int i = 0; i < 200; ++i) CHECK(parallel.call<int>("add", i, 2) == i + 2);
  REQUIRE(sums.wait_for(900));
  CHECK(sums.values() == std::vector(900, 1));
}

TEST_CASE(
    "when one of several calls kills its worker, all that had begun are lost, and the report names the right one") {
  host host({.spawns = any_number_of_spawns});
  auto parallel = host.load(plugin_path("parallel"), untiring({.concurrency = 4}));
  mailbox<reply> ended;
  for (const char* method : {"overflow", "wait", "wait", "wait"})
    parallel.async_call<reply>(method, std::tuple{},
                               [&](boost::system::error_code, const reply& result) { ended.put(result); });
  REQUIRE(ended.wait_for(4));
  for (const reply& died : ended.values()) {
    CHECK(died.outcome() == outcome::worker_lost);
    REQUIRE(died.report());
    CHECK(died.report()->method == "overflow");
    CHECK(died.report()->signal == SIGABRT);
  }
  CHECK(parallel.call<int>("add", 1, 2) == 3);
}

TEST_CASE("a worker that says it must go is replaced first, and no call is lost") {
  watched_host host;
  auto parallel = host.self.load(plugin_path("parallel"));
  const pid_t before = parallel.workers().at(0).pid;
  CHECK(parallel.call<int>("leave") == 1);
  for (int i = 0; i < 100; ++i) CHECK(parallel.call<int>("add", i, 1) == i + 1);
  REQUIRE(host.saw(lifecycle_event::kind::exited));
  std::vector<pid_t> ready;
  for (const auto& event : host.events.values()) {
    if (event.kind == lifecycle_event::kind::ready) ready.push_back(event.pid);
    if (event.kind != lifecycle_event::kind::exited) continue;
    CHECK(event.pid == before);
    CHECK(event.report->reason == exit_reason::shut_down);
    CHECK(event.report->message == "enough is enough");
    CHECK(ready.size() == 2);  // the new one came first
  }
  CHECK(parallel.workers().at(0).pid != before);
}

}  // namespace bulkhead::testing
