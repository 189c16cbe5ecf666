// How workers end that break the rules while they do, or don't end at all, and what their plugin makes of it.
#include "watched_host.hpp"

#include <boost/asio/use_future.hpp>

#include <atomic>
#include <csignal>
#include <future>
#include <sstream>

namespace bulkhead::testing {
namespace {

using kind = enum lifecycle_event::kind;
using state = enum plugin_status::state;

std::vector<std::string> command(const std::string& steps) {
  std::vector<std::string> argv = {BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello"};
  std::istringstream words(steps);
  for (std::string word; words >> word;) argv.push_back(word);
  return argv;
}

// Holds up the thread that tells of the reply.
struct slow_handler final : reply_handler {
  std::function<void()> during;
  explicit slow_handler(std::function<void()> what) : during(std::move(what)) {}
  void complete(reply&&) override { during(); }
};

}  // namespace

TEST_CASE("a violation that is read only after its worker was found dead quarantines the plugin at once") {
  std::atomic<bool> late{false};  // whether it was: the host's own thread may have come to read first
  for (int attempts = 0; attempts < 20 && !late; ++attempts) {
    watched_host host;
    auto neighbour = host.self.load(plugin_path("echo"));
    load_options options;
    options.supervision.heartbeat.interval = 0s;  // it would notice in the end
    // Answers two calls and breaks the rules, all in one write, and is gone.
    auto peer = host.self.launch(command("ready call signalled x:9401@c0c3940101c0c3c1 exit:0"), options);
    const pid_t pid = peer.workers().at(0).pid;
    std::atomic<std::thread::id> reader;
    auto handler = std::make_unique<slow_handler>([&] {
      if (std::this_thread::get_id() != reader) return;  // the host's own thread must not wait
      eventually([&] { return gone(pid); });
      for (int i = 0; i < 20; ++i)  // the host's own thread has its turns, and has seen the end after some of them
        neighbour.async_call<int>("add", std::tuple(1, 2), boost::asio::use_future).get();
      late = true;
    });
    peer.async_call_packed("attack", pack_arguments(), {}, std::move(handler));
    auto second = std::async(std::launch::async, [&] {
      reader = std::this_thread::get_id();
      return peer.try_call("second").outcome();
    });
    REQUIRE(eventually([&] { return peer.workers().at(0).outstanding == 2; }));
    REQUIRE(::kill(pid, SIGUSR1) == 0);
    CHECK(second.get() == outcome::ok);
    REQUIRE(host.saw(kind::quarantined));
    CHECK(host.last(kind::exited).report->reason == exit_reason::protocol);
    CHECK(peer.status().state == state::quarantined);
  }
  CHECK(late);
}

TEST_CASE("a worker that is waited for no longer does not keep the plugin's state from its successor") {
  std::atomic<unsigned> served{0};  // calls at whose end there was the successor
  watched_host host;
  load_options options;
  options.state.keep = true;
  options.supervision.heartbeat.interval = 0s;
  options.supervision.drain = {.calls = 1ms, .shutdown = 0s, .undead_after = 1ms};
  // The pid of the worker that waits for its signal, so many before it.
  const auto waiting = [&](std::size_t before) {
    pid_t pid = -1;
    REQUIRE(host.logs.wait([&](const auto& all) {
      std::size_t found = 0;
      for (const log_record& each : all)
        if (each.text.find("line 0 with") != std::string::npos && found++ == before) pid = each.pid;
      return found > before;
    }));
    return pid;
  };
  auto launched = std::async(std::launch::async, [&] {
    return host.self.launch(command("stdout:1 signalled x:9302a7'$/ready'9181a5'state'c3 deaf"), options);
  });
  REQUIRE(::kill(waiting(0), SIGUSR1) == 0);
  auto peer = launched.get();
  // Whoever gives the calls up is held up by the end of the first: the second is in progress until then, and the worker has
  // not handed over what it has.
  for (int i = 0; i < 2; ++i)
    peer.async_call_packed("attack", pack_arguments(), {.deadline = no_deadline}, std::make_unique<slow_handler>([&] {
                             if (eventually([&] { return peer.status().serving == 1; })) ++served;
                           }));
  REQUIRE(eventually([&] { return peer.workers().at(0).outstanding == 2; }));
  CHECK(peer.recycle());
  const pid_t successor = waiting(1), server = host.self.fork_server_pid();
  REQUIRE(::kill(server, SIGSTOP) == 0);  // it would tell of the program's end
  CHECK(::kill(successor, SIGUSR1) == 0);
  CHECK(host.saw(kind::undead));
  CHECK(eventually([&] { return peer.status().serving == 1; }));
  ::kill(server, SIGCONT);
  CHECK(eventually([&] { return served == 2; }));
}

}  // namespace bulkhead::testing
