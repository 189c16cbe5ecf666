// Hostile workers: each attack costs its own call one error of the right kind; a neighbour in the same host goes on
// answering, and nothing is left behind. BULKHEAD_HOSTILE_REPEATS=N runs the whole table N times.
#include "fixture.hpp"

#include <future>
#include <optional>
#include <sstream>
#include <thread>

#include <sys/wait.h>

namespace bulkhead::testing {
namespace {

struct attack {
  std::string name;
  std::string steps;  // after "hello ready call", or all of them for an attack at start
  outcome expected;
  std::optional<outcome> or_else{};  // where the time of the worker's end decides
};

#ifdef BULKHEAD_SANITIZED
constexpr int slowness = 8;  // of a build with sanitizers
#else
constexpr int slowness = 1;
#endif

load_options impatient() {
  load_options options;
  options.deadline = 30s;
  options.start_timeout = 500ms * slowness;
  options.limits.frame = 1 << 20;
  options.limits.frame_time = 400ms * slowness;  // enough for the large ones also on a busy machine
  return options;
}

std::vector<std::string> command(const std::string& steps) {
  std::vector<std::string> argv = {BULKHEAD_TEST_PROGRAMS "/hostile_peer"};
  std::istringstream words(steps);
  for (std::string word; words >> word;) argv.push_back(word);
  return argv;
}

template <class F>
outcome outcome_of(F call) {
  try {
    call();
    return outcome::ok;
  } catch (const call_error& error) {
    return error.outcome();
  }
}

// Before it is ready, whatever it does makes it unavailable.
const std::vector<attack> at_start = {
    {"bytes that are no message before hello", "x:00 hold", outcome::unavailable},
    {"text before hello", "x:'GET / HTTP/1.1' hold", outcome::unavailable},
    {"the byte that is never used", "x:c1 hold", outcome::unavailable},
    {"never answering hello", "hold", outcome::unavailable},
    {"deaf from the beginning", "deaf", outcome::unavailable},
    {"an answer to a call never made", "x:940105c0c0 hold", outcome::unavailable},
    {"hello answered twice", "hello x:9401@c0c0 hold", outcome::unavailable},
    {"hello refused", "greeted x:9401@82a4'code'a8'rejected'a7'message'a2'no'c0 hold", outcome::unavailable},
    {"half a message, then silence", "hello x:9302a7'$/re' hold", outcome::unavailable},
    {"never ready", "hello hold", outcome::unavailable},
    // The call is its own, or comes after its end and finds no worker.
    {"ready twice", "hello ready ready hold", outcome::protocol, outcome::unavailable},
    {"ready without a description", "hello x:9302a7'$/ready'90 hold", outcome::unavailable},
    {"leaving, with a reason of the wrong type", "hello x:9302a9'$/leaving'9107 exit:3", outcome::unavailable},
    {"leaving, with control characters as reason", "hello x:9302a9'$/leaving'91a41b5b324a exit:3",
     outcome::unavailable},
    {"exiting at once", "exit:0", outcome::unavailable},
    {"exiting with the channel held by a daemon", "daemon", outcome::unavailable},
    {"closing the channel and living on", "hello close deaf", outcome::unavailable},
    {"a description of 4,096 methods",
     "hello x:9302a7'$/ready'9181a7'methods'dc1000 fill:81a4'name'a1'm'*4096 call answer", outcome::ok},
    {"a description of wrong types", "hello x:9302a7'$/ready'9183a2'id'90a7'methods'c3a8'requests'07 call answer",
     outcome::ok},
    {"a description that is a number", "hello x:9302a7'$/ready'9107 call answer", outcome::ok},
    {"a description with terminal controls", "hello x:9302a7'$/ready'9181a2'id'a41b5b324a call answer", outcome::ok},
};

const std::vector<attack> in_call = {
    // Envelopes
    {"an empty array", "x:90", outcome::protocol},
    {"an array of 2", "x:920101", outcome::protocol},
    {"an array of 5", "x:950101c0c0c0", outcome::protocol},
    {"a map", "x:8101c0", outcome::protocol},
    {"a number", "x:2a", outcome::protocol},
    {"an array with a long header", "x:dc000401@c0c3", outcome::protocol},
    {"message type 3", "x:9403@c0c3", outcome::protocol},
    {"message type -1", "x:94ff@c0c3", outcome::protocol},
    {"a message type in text", "x:94a131@c0c3", outcome::protocol},
    {"an answer without a result", "x:9301@c0", outcome::protocol},
    {"a notification with an id", "x:9402a1'n'90c0", outcome::protocol},
    {"a method that is a number", "x:93020790", outcome::protocol},
    {"a method that is nil", "x:9302c090", outcome::protocol},
    {"params that are a map", "x:9302a1'n'80", outcome::protocol},
    {"params that are text", "x:9302a1'n'a1'x'", outcome::protocol},
    {"the byte that is never used within", "x:9401@c0c1", outcome::protocol},
    {"noise", "x:ffffffffffffffff", outcome::protocol},
    {"zeros", "fill:00*100000", outcome::protocol},
    {"text", "fill:'hello'*1000", outcome::protocol},
    // Ids
    {"the id plus one", "x:9401+c0c3", outcome::protocol},
    {"the id of another generation", "x:9401~c0c3", outcome::protocol},
    {"a negative id", "x:9401ffc0c3", outcome::protocol},
    {"an id of 64 bits", "x:9401cf0000000000000001c0c3", outcome::protocol},
    {"a signed id", "x:9401d200000001c0c3", outcome::protocol},
    {"an id in text", "x:9401a131c0c3", outcome::protocol},
    {"no id", "x:9401c0c0c3", outcome::protocol},
    {"the highest id", "x:9401ceffffffffc0c3", outcome::protocol},
    {"the hello's id again", "x:940100c0c3", outcome::protocol},
    // Sizes
    {"4 GiB of bytes promised", "x:9401@c0c6ffffffff", outcome::protocol},
    {"4 GiB of text promised", "x:9401@c0dbffffffff", outcome::protocol},
    {"4 billion elements promised", "x:9401@c0ddffffffff", outcome::protocol},
    {"8 billion map entries promised", "x:9401@c0dfffffffff", outcome::protocol},
    {"4 GiB of extension promised", "x:9401@c0c9ffffffff05", outcome::protocol},
    {"65,535 elements in each of many arrays", "x:9401@c0 fill:dcffff*60", outcome::protocol},
    {"100,000 nested arrays", "x:9401@c0 fill:91*100000", outcome::protocol},
    {"100,000 nested maps", "x:9401@c0 fill:8101*100000", outcome::protocol},
    {"one byte more than a frame may have", "x:9401@c0c600100000", outcome::protocol},
    {"a message that trickles in", "x:9401@c0c60000f000 trickle:00", outcome::protocol},
    {"half a message, then silence", "x:9401@c0", outcome::protocol},
    {"a descriptor in a message", "x:9401@c0d40100", outcome::protocol},
    {"a descriptor in an event", "with_fd:9302a7'$/event'92a1'e'd40100 hold", outcome::protocol},
    {"a descriptor in a request", "with_fd:940001a5'twice'91d40100 hold", outcome::protocol},
    // Answers
    {"an answer, then another", "answer answer", outcome::ok},
    {"an answer, then an error for it", "answer x:9401@a1'e'c0", outcome::ok},
    {"an answer, then noise", "answer x:c1c1c1", outcome::ok},
    {"an error that is a number", "x:9401@07c0", outcome::plugin_error},
    {"an error that is a map of the wrong kind", "x:9401@81a4'code'07c0", outcome::plugin_error},
    {"an error that claims to be ok", "x:9401@81a4'code'a2'ok'c0", outcome::plugin_error},
    {"an error with a code nobody knows", "x:9401@81a4'code'a3'abc'c0", outcome::plugin_error},
    {"an error and a result", "x:9401@a1'e'c3", outcome::plugin_error},
    {"an error of 900 kB", "x:9401@db000dbba0 fill:'e'*900000 x:c0", outcome::plugin_error},
    {"an error in invalid UTF-8", "x:9401@a3fffefdc0", outcome::plugin_error},
    {"a result of the wrong type", "x:9401@c0a3'abc'", outcome::plugin_error},
    {"a result that is not a number", "x:9401@c0cb7ff8000000000000", outcome::plugin_error},
    {"a result that is a timestamp", "x:9401@c0d6ff00000000", outcome::plugin_error},
    // Notifications
    {"more events than credit", "fill:9302a7'$/event'92a1'e'c0*5000", outcome::protocol},
    {"progress of calls that are not", "x:9302aa'$/progress'92ceffffffffc0 answer", outcome::ok},
    {"progress without a call", "x:9302aa'$/progress'90", outcome::protocol},
    {"an event without a name", "x:9302a7'$/event'920107", outcome::protocol},
    {"ready again", "x:9302a7'$/ready'9180", outcome::protocol},
    {"a log line of the wrong types", "x:9302a5'$/log'92a1'x'07", outcome::protocol},
    {"a level that is no level", "x:9302a5'$/log'92cd7fffa1'x' answer", outcome::ok},
    {"200,000 log lines", "fill:9302a5'$/log'9201a5'hello'*200000 answer", outcome::ok},
    {"a flood on stdout", "stdout:100000 answer", outcome::ok},
    {"notifications from the future", "fill:9302a7'$/later'91c0*1000 answer", outcome::ok},
    {"a cancellation of what was never asked", "fill:9302a8'$/cancel'91cd1234*100 answer", outcome::ok},
    // Requests
    {"a request for a function nobody lent", "x:940001a4'open'90 answer", outcome::ok},
    {"10,000 requests at once", "fill:940001a1'f'90*10000 answer", outcome::ok},
    {"requests under reserved names", "x:940001a7'$/hello'90 x:940002aa'$/shutdown'90 answer", outcome::ok},
    {"requests with the wrong arguments", "x:940001a5'twice'91a1'x' x:940002a5'twice'90 answer", outcome::ok},
    // Descriptors
    {"descriptors nobody asked for", "fds:10 fds:200 fds:250 answer", outcome::ok},
    // The process
    {"exit 0", "exit:0", outcome::worker_lost},
    {"exit 7", "exit:7", outcome::worker_lost},
    {"exit in the middle of an answer", "x:9401@c0c600001000 exit:0", outcome::worker_lost},
    {"an answer and exit", "answer exit:0", outcome::ok},
    {"SIGSEGV to itself", "signal:11", outcome::worker_lost},
    {"SIGKILL to itself", "signal:9", outcome::worker_lost},
    {"SIGTERM to itself", "signal:15", outcome::worker_lost},
    {"the channel closed and life goes on", "close deaf", outcome::worker_lost},
    {"half-closed for writing", "shut_write deaf", outcome::worker_lost},
    {"half-closed for reading, then an answer", "shut_read answer", outcome::ok},
    {"a daemon that keeps the channel", "daemon", outcome::worker_lost},
    {"SIGKILL to its parent", "kill:parent answer", outcome::ok},
    {"SIGKILL to all it can reach", "kill:all answer", outcome::ok},
    {"SIGSTOP to itself", "stop answer", outcome::ok},  // pid 1 of its namespace: nothing happens
};

}  // namespace

TEST_CASE("every attack of a worker costs it one error of the right kind, and its neighbour nothing") {
  const char* repeats = std::getenv("BULKHEAD_HOSTILE_REPEATS");
  CHECK(at_start.size() + in_call.size() >= 64);
  std::thread([] {}).join();  // ThreadSanitizer's own thread begins with the first
  for (int round = 0; round < (repeats ? std::atoi(repeats) : 1); ++round) {
    const auto fds = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    {
      host host;
      auto neighbour = host.load(plugin_path("echo"));
      for (const bool starting : {true, false})
        for (const attack& each : starting ? at_start : in_call) {
          INFO(each.name << ": " << each.steps);
          auto options = impatient();
          options.functions.add("twice", [](int x) { return 2 * x; });
          outcome got = outcome::unavailable;
          try {
            auto peer = host.launch(command((starting ? "" : "hello ready call ") + each.steps), options);
            std::promise<void> over;
            peer.on_event(
                [wait = over.get_future().share()](const auto&, const auto&) { wait.wait(); });  // no credit meanwhile
            got = outcome_of([&] { peer.call<bool>("attack"); });
            over.set_value();
            CHECK(neighbour.call<int>("add", 1, 2) == 3);
          } catch (const call_error& error) {
            got = error.outcome();
          }
          CAPTURE(got);
          CHECK((got == each.expected || got == each.or_else));
          siginfo_t left{};  // nobody of it is left to be reaped
          CHECK((::waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && left.si_pid == 0));
          CHECK(neighbour.call<int>("add", 20, 22) == 42);
        }
    }
    CHECK(entries("/proc/self/fd") == fds);
    CHECK(entries("/proc/self/task") == threads);
    CHECK(::waitpid(-1, nullptr, WNOHANG | __WALL) == -1);
    CHECK(errno == ECHILD);
  }
}

TEST_CASE("a worker that stops reading blocks nobody: calls are overloaded, and end at their deadlines") {
  host host;
  auto options = impatient();
  options.deadline = 500ms;
  options.limits.queued_bytes = 1 << 20;
  auto neighbour = host.load(plugin_path("echo"));
  using ending = std::pair<outcome, std::chrono::nanoseconds>;
  const auto longest = [&] {
    auto peer = host.launch(command("hello ready deaf"), options);
    mailbox<ending> endings;
    for (int i = 0; i < 40; ++i)
      peer.async_call<reply>("attack", std::tuple(bytes(100'000)),
                             [&, began = std::chrono::steady_clock::now()](boost::system::error_code, const reply& r) {
                               endings.put({r.outcome(), std::chrono::steady_clock::now() - began});
                             });
    CHECK(neighbour.call<int>("add", 1, 2) == 3);
    REQUIRE(endings.wait_for(40));
    std::chrono::nanoseconds most{0};
    std::size_t overloaded = 0;
    for (const auto& [how, when] : endings.values()) {
      if (how == outcome::overloaded) {
        ++overloaded;
        continue;
      }
      CHECK(how == outcome::timeout);
      CHECK(when >= options.deadline);
      most = std::max(most, when);
    }
    CHECK(overloaded > 0);
    CHECK(overloaded < 40);
    return most;
  };
  const auto late = 1000ms;  // half of the grace past the deadline
  CHECK(least_time(late, longest) < late);
}

TEST_CASE("what the host alone can say of a call is plugin_error in a worker's answer, and the call is made once") {
  host host;
  const std::string code = GENERATE(as<std::string>(), "a8'not_sent'", "ab'worker_lost'", "a8'protocol'",
                                    "ab'unavailable'", "aa'overloaded'");
  INFO(code);
  const std::string refuse = "call x:9401@82a4'code'" + code + "a7'message'a3'why'c0 ";
  // A call that is made again gets the next one's answer.
  auto peer = host.launch(command("hello ready " + refuse + "call answer " + refuse + "call answer hold"), impatient());
  const reply first = peer.try_call("attack");
  CHECK(first.outcome() == outcome::plugin_error);
  CHECK(first.message().find("why") != std::string::npos);
  CHECK(peer.call<bool>("attack"));
  mailbox<outcome> ends;
  peer.async_call<reply>("attack", std::tuple(), outcome_to(ends));
  REQUIRE(ends.wait_for(1));
  CHECK(ends.values().front() == outcome::plugin_error);
  CHECK(peer.call<bool>("attack"));
}

TEST_CASE("an answer that comes after the deadline is dropped, none at all within the grace ends the worker") {
  host host;
  auto options = impatient();
  options.deadline = 100ms;
  {
    auto peer = host.launch(command("hello ready call cancelled answer call answer"), options);
    const auto pid = peer.workers().at(0).pid;
    CHECK(failure_of([&] { peer.call("attack"); }).outcome() == outcome::timeout);
    CHECK(peer.with({.deadline = 30s}).call<bool>("attack"));
    CHECK(peer.workers().at(0).pid == pid);
  }
  mailbox<exit_reason> ends;
  bulkhead::host watched({.on_lifecycle = [&](const lifecycle_event& event) {
    if (event.report) ends.put(event.report->reason);
  }});
  auto peer = watched.launch(command("hello ready call cancelled hold"), options);
  CHECK(failure_of([&] { peer.call("attack"); }).outcome() == outcome::timeout);
  REQUIRE(ends.wait_for(1));
  CHECK(ends.values()[0] == exit_reason::hung);
}

TEST_CASE("a worker that is granted handles and abuses it costs one error and no descriptor") {
  host host;
  auto neighbour = host.load(plugin_path("echo"));
  const auto fds = entries("/proc/self/fd");
  const std::vector<attack> attacks = {
      {"descriptors that no message refers to", "fds:10 answer", outcome::protocol},
      {"more descriptors than a message may carry", "fds:200 answer", outcome::protocol},
      {"a result that refers to a descriptor that was not sent", "x:9401@c0d40100", outcome::protocol},
      {"an event that does", "x:9302a7'$/event'92a1'e'd40100 hold", outcome::protocol},
      {"a request that does", "x:940001a5'taken'91d40100 hold", outcome::protocol},
      {"an event that refers to one twice", "with_fd:9302a7'$/event'92a1'e'92d40100d40100 hold", outcome::protocol},
      {"an event whose descriptor is another's", "with_fd:9302a7'$/event'92a1'e'd401ff answer", outcome::ok},
      {"a request whose descriptor is another's", "with_fd:940001a5'taken'91d401ff answer", outcome::ok},
      {"a request with a descriptor for a number", "with_fd:940001a5'twice'91d40100 answer", outcome::ok},
      {"a descriptor for a function nobody lent", "with_fd:940001a4'open'91d40100 answer", outcome::ok},
      {"a descriptor in progress", "with_fd:9302aa'$/progress'92@d40100 answer", outcome::ok},
      {"a descriptor in what is no event", "with_fd:9302a7'$/later'91d40100 answer", outcome::ok},
      {"descriptors in many events", "fill:9302a7'$/event'92a1'e'c0*500 with_fd:9302a7'$/event'92a1'e'd40100 answer",
       outcome::ok},
  };
  for (const attack& each : attacks) {
    INFO(each.name);
    auto options = impatient();
    options.policy = policy::program().allow_handles();
    options.functions.add("twice", [](int x) { return 2 * x; });
    options.functions.add("taken", [](unique_fd) {});
    auto peer = host.launch(command("hello ready call " + each.steps), options);
    CHECK(outcome_of([&] { peer.call<bool>("attack"); }) == each.expected);
    peer.unload();
    CHECK(neighbour.call<int>("add", 20, 22) == 42);
  }
  // They are closed by a thread that may block, in its own time.
  eventually([&] { return entries("/proc/self/fd") == fds; });
  CHECK(entries("/proc/self/fd") == fds);
}

}  // namespace bulkhead::testing
