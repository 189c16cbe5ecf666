// Births and deaths: loading, ready, crash and replacement, unloading, shutdown, and that nothing is left behind.
#include "fixture.hpp"

#include <csignal>
#include <future>

#include <fcntl.h>
#include <sys/wait.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

struct recorded {
  mailbox<lifecycle_event> events;
  mailbox<log_record> logs;
  host_options options() {
    return {.on_log = [this](const log_record& record) { logs.put(record); },
            .on_lifecycle = [this](const lifecycle_event& event) { events.put(event); }};
  }
};

}  // namespace

TEST_CASE("a plugin's description names its methods with signatures and docs") {
  host host;
  const auto info = host.load(plugin_path("echo")).describe();
  CHECK(info.id == "echo");
  CHECK(info.version == "1.0.0");
  CHECK(info.license == "MIT");
  CHECK(info.abi == 1);
  REQUIRE(info.methods.size() == 3);
  CHECK(info.methods[1].name == "add");
  CHECK(info.methods[1].signature == "(int a, int b) -> int");
  CHECK(info.methods[1].doc == "The sum");
  CHECK(info.methods[1].idempotent);
}

TEST_CASE("a crash is one worker_lost with signal and method, and the next call has a fresh worker") {
  recorded seen;
  host host(seen.options());
  auto chaos = host.load(plugin_path("chaos"));
  const auto error = failure_of([&] { chaos.call("misbehave", "segfault"); });
  CHECK(error.outcome() == outcome::worker_lost);
  REQUIRE(error.report());
  CHECK(error.report()->reason == exit_reason::signalled);
  CHECK(error.report()->signal == SIGSEGV);
  CHECK(error.report()->method == "misbehave");
  CHECK(error.report()->phase == phase::call);
  CHECK(chaos.call<int>("echo", 1) == 1);
  REQUIRE(seen.events.wait([](const auto& events) {
    return std::count_if(events.begin(), events.end(),
                         [](const auto& event) { return event.kind == lifecycle_event::kind::exited; }) == 1;
  }));
}

TEST_CASE("calls queued behind the one that crashed are answered by another worker") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  mailbox<reply> ended;
  auto take = [&](boost::system::error_code, reply result) { ended.put(std::move(result)); };
  chaos.async_call<reply>("sleep_ms", std::tuple{50}, take);
  chaos.async_call<reply>("misbehave", std::tuple{"segfault"}, take);
  for (int i = 0; i < 20; ++i) chaos.async_call<reply>("echo", std::tuple{i}, take);
  REQUIRE(ended.wait_for(22));
  const auto all = ended.values();
  CHECK(std::count_if(all.begin(), all.end(), [](const reply& r) { return r.outcome() == outcome::worker_lost; }) == 1);
  CHECK(std::count_if(all.begin(), all.end(), [](const reply& r) { return r.outcome() == outcome::ok; }) == 21);
}

TEST_CASE("a worker that ignores cancellation is killed after the grace") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const pid_t pid = chaos.workers().at(0).pid;
  CHECK(failure_of([&] { chaos.with({.deadline = 50ms}).call("misbehave", "endless_loop"); }).outcome() ==
        outcome::timeout);
  CHECK(chaos.call<int>("echo", 1) == 1);
  CHECK(chaos.workers().at(0).pid != pid);
}

TEST_CASE("a plugin that can't start is unavailable with phase and reason") {
  host host;
  const std::vector<std::tuple<std::string, std::string, phase>> cases = {
      {"constructor", "segfault", phase::load}, {"create", "abort", phase::load}, {"init", "exit_3", phase::init}};
  for (const auto& [moment, kind, expected] : cases) {
    const auto error = failure_of([&] {
      host.load(plugin_path("chaos"), {.environment = {"BULKHEAD_CHAOS_AT=" + moment, "BULKHEAD_CHAOS=" + kind}});
    });
    CHECK(error.outcome() == outcome::unavailable);
    REQUIRE(error.report());
    CHECK(error.report()->phase == expected);
  }
}

#ifndef BULKHEAD_SANITIZED  // which takes more address space than any limit
TEST_CASE("a worker that dies of its limits before it can speak is reported in that phase") {
  host host;
  const auto error = failure_of([&] { host.load(plugin_path("echo"), {.memory_limit = 4096}); });
  CHECK(error.outcome() == outcome::unavailable);
  REQUIRE(error.report());
  CHECK(error.report()->phase == phase::limits);
}
#endif

TEST_CASE("a plugin that does not get ready in time is unavailable") {
  host host;
  const auto error = failure_of([&] {
    host.load(plugin_path("chaos"),
              {.start_timeout = 300ms, .environment = {"BULKHEAD_CHAOS_AT=init", "BULKHEAD_CHAOS=endless_loop"}});
  });
  CHECK(error.outcome() == outcome::unavailable);
  CHECK(error.report()->reason == exit_reason::start_timeout);
}

TEST_CASE("files that are no plugins are refused with the reason") {
  host host;
  CHECK(failure_of([&] { host.load("/nonexistent/x.so"); }).outcome() == outcome::rejected);
  CHECK(failure_of([&] { host.load("/tmp"); }).outcome() == outcome::rejected);
  const auto script = failure_of([&] { host.load("/etc/passwd"); });
  CHECK(script.outcome() == outcome::rejected);
  CHECK(script.message().find("not an ELF file") != std::string::npos);
  const auto program = failure_of([&] { host.load("/bin/true"); });
  CHECK(program.message().find("no manifest") != std::string::npos);
}

TEST_CASE("calls after the host's shutdown are unavailable, and handlers of asynchronous ones are told so") {
  host host;
  const auto echo = host.load(plugin_path("echo"));
  host.shutdown();
  CHECK(failure_of([&] { echo.call("echo", 1); }).outcome() == outcome::unavailable);
  const auto ended = std::make_shared<std::promise<outcome>>();  // nobody waits for the thread that tells
  echo.async_call<reply>("echo", std::tuple{1}, [ended](boost::system::error_code, const reply& result) {
    ended->set_value(result.outcome());
  });
  auto told = ended->get_future();
  REQUIRE(told.wait_for(20s) == std::future_status::ready);
  CHECK(told.get() == outcome::unavailable);
}

TEST_CASE("a crash in destroy does not hold up unloading and is reported") {
  recorded seen;
  host host(seen.options());
  auto chaos =
      host.load(plugin_path("chaos"), {.environment = {"BULKHEAD_CHAOS_AT=destroy", "BULKHEAD_CHAOS=segfault"}});
  chaos.unload();
  REQUIRE(seen.events.wait([](const auto& events) { return !events.empty() && events.back().report; }));
  CHECK(seen.events.values().back().report->signal == SIGSEGV);
  CHECK(failure_of([&] { chaos.call("echo", 1); }).outcome() == outcome::unavailable);
}

TEST_CASE("a plugin is unloaded in good order when its last handle goes with a callback of its last call") {
  recorded seen;
  host host(seen.options());
  std::promise<void> scope_left;
  {
    functions lent;
    lent.add("wait", [left = scope_left.get_future().share()] { left.wait(); });
    const auto chaos = host.load(plugin_path("chaos"), {.functions = lent});
    chaos.async_call("call_host", std::tuple{"wait", std::tuple{}}, [](boost::system::error_code) {},
                     {.on_progress = [chaos](const msgpack::object&) {}});
  }
  scope_left.set_value();
  REQUIRE(seen.events.wait([](const auto& events) { return !events.empty() && events.back().report; }));
  CHECK(seen.events.values().back().report->reason == exit_reason::shut_down);
}

TEST_CASE("what the application's callbacks and completion handlers throw is logged, and the host goes on") {
  mailbox<log_record> logs;
  host host({.on_log =
                 [&](const log_record& record) {
                   logs.put(record);
                   throw 1;
                 },
             .on_lifecycle = [](const lifecycle_event&) { throw std::runtime_error("not this event"); }});
  auto chaos = host.load(plugin_path("chaos"));
  chaos.async_call("echo", std::tuple{1}, [](boost::system::error_code) { throw std::runtime_error("not this end"); });
  for (const std::string expected : {"threw: not this event", "threw: not this end"})
    CHECK(logs.wait([&](const auto& all) {
      return std::any_of(all.begin(), all.end(),
                         [&](const auto& each) { return each.text.find(expected) != std::string::npos; });
    }));
  CHECK(chaos.call<int>("echo", 2) == 2);
}

TEST_CASE("events go on though the application's handler throws with each, whatever it throws") {
  constexpr std::size_t many = 2000;  // more than may be sent before they are acknowledged
  recorded seen;
  mailbox<int> events;
  host host(seen.options());
  auto chaos = host.load(plugin_path("chaos"));
  chaos.on_event([&](const std::string&, const msgpack::object& value) {
    events.put(value.as<int>());
    throw 1;
  });
  CHECK(chaos.with({.deadline = 15s}).try_call("emit", "tick", 1, many).outcome() == outcome::ok);
  CHECK(events.wait_for(many));
  CHECK(seen.logs.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(), [](const auto& each) {
      return each.plugin == "chaos" && each.text.find("threw: what is no std::exception") != std::string::npos;
    });
  }));
}

TEST_CASE("stdout and stderr of a worker come as log lines") {
  recorded seen;
  host host(seen.options());
  auto chaos = host.load(plugin_path("chaos"));
  chaos.call("misbehave", "stderr_lines");
  REQUIRE(seen.logs.wait_for(1));
  CHECK(seen.logs.values()[0].plugin == "chaos");
}

TEST_CASE("a worker has the descriptors and the environment it needs and no others") {
  const int leaked = ::open("/etc/passwd", O_RDONLY);  // without close-on-exec
  {
    host host;
    auto chaos = host.load(plugin_path("chaos"), {.environment = {"GRANTED=yes"}});
    CHECK(chaos.call<std::optional<std::string>>("environment", "GRANTED") == "yes");
    CHECK(chaos.call<std::optional<std::string>>("environment", "PATH") == std::nullopt);
    CHECK(chaos.call<std::optional<std::string>>("environment", "BULKHEAD_CHANNEL_FD") == std::nullopt);
    const auto open = chaos.call<std::vector<int>>("open_fds");
    CHECK(open.size() <= 6);  // stdin, stdout, stderr, channel, plugin, the channel's event descriptor
  }
  ::close(leaked);
}

TEST_CASE("a worker outlives the thread that loaded its plugin") {
  host host;
  plugin echo;
  std::thread([&] { echo = host.load(plugin_path("echo")); }).join();
  const pid_t worker = echo.workers().at(0).pid;
  for (int i = 0; i < 100; ++i) CHECK(echo.call<int>("add", i, 1) == i + 1);
  CHECK(echo.workers().at(0).pid == worker);
}

TEST_CASE("when a call tells of a worker's end, the application's own wait() finds nothing of it") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  CHECK(::waitpid(-1, nullptr, WNOHANG) == 0);  // the fork server lives; nothing else is there to wait for
  CHECK_THROWS_AS(chaos.call("misbehave", "segfault"), call_error);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == 0);
}

TEST_CASE("descriptors, threads and children are back at the baseline after a host and 50 crashes") {
  { host warm_up; }
  const auto descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  {
    host host({.spawns = any_number_of_spawns});
    auto chaos = host.load(plugin_path("chaos"), untiring());
    chaos.call("echo", 1);
    const auto alive = entries("/proc/self/fd");
    for (int i = 0; i < 50; ++i) {
      CHECK_THROWS_AS(chaos.call("misbehave", i % 2 ? "segfault" : "exit_0"), call_error);
      CHECK(chaos.call<int>("echo", i) == i);
    }
    CHECK(entries("/proc/self/fd") == alive);
  }
  CHECK(entries("/proc/self/fd") == descriptors);
  CHECK(entries("/proc/self/task") == threads);
  CHECK(::waitpid(-1, nullptr, WNOHANG | __WALL) == -1);
}

TEST_CASE("the fork server is started again at once when it dies, and living workers go on") {
  recorded seen;
  host host(seen.options());
  auto chaos = host.load(plugin_path("chaos"));
  const pid_t worker = chaos.workers().at(0).pid, first = host.fork_server_pid();
  ::kill(first, SIGKILL);
  REQUIRE(seen.events.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(), [](const auto& event) {
      return event.kind == lifecycle_event::kind::fork_server_died && event.text.find("SIGKILL") != std::string::npos;
    });
  }));  // though nothing is spawned
  CHECK(host.fork_server_pid() != first);
  CHECK(chaos.call<int>("echo", 1) == 1);
  CHECK(chaos.workers().at(0).pid == worker);
  CHECK_THROWS_AS(chaos.call("misbehave", "segfault"), call_error);
  CHECK(chaos.call<int>("echo", 2) == 2);
}

TEST_CASE("the fork server and workers may be reaped by others than the host") {
  struct ignored {
    void (*const before)(int) = ::signal(SIGCHLD, SIG_IGN);  // the kernel reaps at once
    ~ignored() { ::signal(SIGCHLD, before); }
  } const children;
  recorded seen;
  host host(seen.options());
  auto chaos = host.load(plugin_path("chaos"));
  ::kill(host.fork_server_pid(), SIGKILL);
  REQUIRE(seen.events.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(),
                       [](const auto& event) { return event.kind == lifecycle_event::kind::fork_server_died; });
  }));
  CHECK(failure_of([&] { chaos.call("misbehave", "_exit_0"); }).outcome() == outcome::worker_lost);
  CHECK(chaos.call<int>("echo", 1) == 1);
  CHECK(host.load(plugin_path("chaos")).call<int>("echo", 2) == 2);
  host.shutdown();
}

TEST_CASE("a fork server that dies again and again is given up, until the host is reset") {
  recorded seen;
  host host(seen.options());
  auto chaos = host.load(plugin_path("chaos"));
  for (unsigned deaths = 1; deaths <= 3; ++deaths) {
    ::kill(host.fork_server_pid(), SIGKILL);
    REQUIRE(seen.events.wait([&](const auto& all) {
      return std::count_if(all.begin(), all.end(), [](const auto& event) {
               return event.kind == lifecycle_event::kind::fork_server_died ||
                      event.kind == lifecycle_event::kind::fork_server_gave_up;
             }) == deaths;
    }));
  }
  CHECK(seen.events.values().back().kind == lifecycle_event::kind::fork_server_gave_up);
  CHECK(chaos.call<int>("echo", 1) == 1);  // living workers go on
  CHECK_THROWS_WITH(host.load(plugin_path("chaos")),
                    Catch::Contains("died 3 times within a minute") && Catch::Contains("host::reset()"));
  CHECK_THROWS_WITH(host.examine(), Catch::Contains("host::reset()"));
  host.reset();
  CHECK(host.load(plugin_path("chaos")).call<int>("echo", 2) == 2);
}

TEST_CASE("a fork server that hangs is replaced, and holds up neither calls nor the host's end") {
  recorded seen;
  {
    host host(seen.options());
    auto chaos = host.load(plugin_path("chaos"));
    ::kill(host.fork_server_pid(), SIGSTOP);
    auto waiting = std::async(std::launch::async, [&] { return host.load(plugin_path("chaos")).call<int>("echo", 1); });
    for (int i = 0; i < 100; ++i) CHECK(chaos.call<int>("echo", i) == i);
    CHECK(waiting.get() == 1);
    ::kill(host.fork_server_pid(), SIGSTOP);
  }
  const auto all = seen.events.values();
  CHECK(std::any_of(all.begin(), all.end(), [](const auto& event) {
    return event.kind == lifecycle_event::kind::fork_server_died &&
           event.text.find("did not answer") != std::string::npos;
  }));
}

TEST_CASE("while a fork server hangs, the ends of workers hold up no other plugin") {
  recorded seen;
  host host(seen.options());
  const auto neighbour = host.load(plugin_path("echo"));
  const auto restarted = host.load(plugin_path("chaos"));
  const auto ended = host.load(plugin_path("chaos"), {.supervision = {.restart = restart_kind::temporary}});
  const auto saw = [&](enum lifecycle_event::kind kind, std::ptrdiff_t times) {
    return seen.events.wait([&](const auto& all) {
      return std::count_if(all.begin(), all.end(), [&](const auto& event) { return event.kind == kind; }) >= times;
    });
  };
  const pid_t server = host.fork_server_pid();
  ::kill(server, SIGSTOP);
  ::kill(restarted.workers().at(0).pid, SIGKILL);
  REQUIRE(saw(lifecycle_event::kind::restarting, 1));  // so the next one is asked for
  ::kill(ended.workers().at(0).pid, SIGKILL);
  REQUIRE(saw(lifecycle_event::kind::exited, 2));
  mailbox<int> sums;
  neighbour.async_call<int>("add", std::tuple{20, 22}, [&](boost::system::error_code, int sum) { sums.put(sum); });
  REQUIRE(sums.wait_for(1));
  const auto all = seen.events.values();
  CHECK(std::none_of(all.begin(), all.end(), [](const auto& event) {
    return event.kind == lifecycle_event::kind::fork_server_died;  // for not answering
  }));
  ::kill(server, SIGCONT);
  CHECK(restarted.call<int>("echo", 1) == 1);
}

TEST_CASE("no worker outlives its host, however busy") {
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    host* forgotten = new host;
    auto chaos = forgotten->load(plugin_path("chaos"), {.instances = 3});
    for (int i = 0; i < 3; ++i)
      chaos.async_call("misbehave", std::tuple{i ? "endless_loop" : "deadlock"}, [](boost::system::error_code) {});
    for (const auto& worker : chaos.workers()) {
      const pid_t pid = worker.pid;
      [[maybe_unused]] const auto n = ::write(pipe[1], &pid, sizeof pid);
    }
    ::pause();
  }
  std::vector<pid_t> workers(3);
  const std::size_t all = 3 * sizeof(pid_t);
  for (std::size_t had = 0; had < all;) {
    const ssize_t n = ::read(pipe[0], reinterpret_cast<char*>(workers.data()) + had, all - had);
    REQUIRE(n > 0);
    had += static_cast<std::size_t>(n);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  for (const pid_t pid : workers) {
    REQUIRE(pid > 0);
    CHECK(eventually([&] { return gone(pid); }));
  }
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST_CASE("a missing worker program is an error that names where it was looked for") {
  CHECK_THROWS_WITH(host({.worker_path = "/nonexistent/bulkhead-worker"}),
                    Catch::Contains("/nonexistent/bulkhead-worker") && Catch::Contains("host_options::worker_path"));
}

TEST_CASE("letting go of a plugin whose worker is still talking hangs nobody") {
  recorded seen;
  host host(seen.options());
  for (int i = 0; i < 40; ++i) {
    auto chaos = host.load(plugin_path("chaos"));
    chaos.try_call("misbehave", "stderr_lines");  // its lines are on their way while the handle goes
  }
  CHECK(seen.logs.wait_for(1));
}
