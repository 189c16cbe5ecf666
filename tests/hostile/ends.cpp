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

#ifdef BULKHEAD_SANITIZED
constexpr int slowness = 4;  // of a build with sanitizers
#else
constexpr int slowness = 1;
#endif

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
  watched_host host;
  auto neighbour = host.self.load(plugin_path("echo"));
  load_options options;
  options.supervision.heartbeat.interval = 0s;  // it would notice in the end
  // Answers two calls and breaks the rules, all in one write, and is gone.
  auto peer = host.self.launch(command("ready call signalled x:9401@c0c3940101c0c3c1 exit:0"), options);
  const pid_t pid = peer.workers().at(0).pid;
  std::atomic<std::thread::id> reader;
  auto handler = std::make_unique<slow_handler>([&] {
    if (std::this_thread::get_id() != reader) return;  // then the host's own thread, which must not wait, reads
    eventually([&] { return gone(pid); });
    for (int i = 0; i < 20; ++i)  // the host's own thread has its turns, and has seen the end after some of them
      neighbour.async_call<int>("add", std::tuple(1, 2), boost::asio::use_future).get();
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

TEST_CASE("a worker that is waited for no longer does not keep the plugin's state from its successor") {
  watched_host host;
  load_options options;
  options.deadline = 100ms;  // of saving, too
  options.state.keep = true;
  options.supervision.drain = {.calls = 1s * slowness, .shutdown = 0s, .undead_after = 1ms};
  auto peer = host.self.launch(command("x:9302a7'$/ready'9181a5'state'c3 deaf"), options);
  mailbox<outcome> ends;
  peer.async_call<reply>("attack", std::tuple(), outcome_to(ends), {.deadline = no_deadline});
  CHECK(peer.recycle());
  REQUIRE(host.saw(kind::ready, 2));
  const pid_t server = host.self.fork_server_pid();
  REQUIRE(::kill(server, SIGSTOP) == 0);  // it would tell of the program's end
  CHECK(host.saw(kind::undead));
  CHECK(eventually([&] { return peer.status().serving == 1; }));
  ::kill(server, SIGCONT);
  REQUIRE(ends.wait_for(1));
  CHECK(ends.values()[0] == outcome::worker_lost);
}

}  // namespace bulkhead::testing
