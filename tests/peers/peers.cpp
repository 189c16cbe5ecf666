// Workers in other languages, run by the real host: the protocol is enough.
#include "fixture.hpp"
#include "page.hpp"
#include "watched_host.hpp"

#include <csignal>
#include <fstream>

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead::testing {
namespace {

std::vector<std::string> command(const std::string& language) {
  if (language == "node") return {BULKHEAD_NODE, BULKHEAD_PEERS "/node/worker.mjs"};
  return {"/usr/bin/python3", BULKHEAD_PEERS "/python/worker.py"};
}

load_options patient() { return {.start_timeout = 60s}; }

}  // namespace

TEST_CASE("a worker in another language serves calls") {
  const std::string language = GENERATE("python", "node");
  INFO(language);
  host host;
  auto peer = host.launch(command(language), patient());
  CHECK(peer.describe().id == language);
  CHECK(peer.describe().methods.size() >= 10);
  CHECK(peer.call<double>("mean", std::vector<double>{1.5, 2.5}) == 2.0);
  CHECK(peer.call<std::string>("upper", "gr\xc3\xbcn") == "GR\xc3\x9cN");
  CHECK(peer.call<int>("size", bytes(100'000)) == 100'000);
  CHECK(peer.call<std::vector<std::string>>("environment").empty());
  CHECK(peer.call<std::optional<int>>("deadline") == std::nullopt);
  const auto limited = peer.with(call_options{.deadline = 20s}).try_call("deadline");
  REQUIRE(limited);
  const int announced = limited.as<int>();
  CHECK(announced > 0);
  CHECK(announced <= 20'000);
}

TEST_CASE("errors of a worker in another language arrive with code, text and data") {
  const std::string language = GENERATE("python", "node");
  INFO(language);
  host host;
  auto peer = host.launch(command(language), patient());
  const auto failed = failure_of([&] { peer.call("mean", std::vector<double>{}); });
  CHECK(failed.outcome() == outcome::plugin_error);
  CHECK(failed.message() == "no numbers");
  CHECK(failure_of([&] { peer.call("no_such_method"); }).outcome() == outcome::rejected);
  CHECK(failure_of([&] { peer.call("upper", 1); }).outcome() == outcome::plugin_error);  // their language's own error
  CHECK(peer.call<double>("mean", std::vector<double>{4}) == 4.0);
}

TEST_CASE("events, progress and logs of a worker in another language arrive, beyond the first credit") {
  const std::string language = GENERATE("python", "node");
  INFO(language);
  mailbox<std::string> logs;
  mailbox<int> progress, events;
  host host({.on_log = [&](const log_record& record) { logs.put(record.text); }});
  {
    auto peer = host.launch(command(language), patient());
    peer.on_event([&](const std::string&, const msgpack::object& value) {
      events.put(value.as<std::map<std::string, int>>().at("i"));
    });
    call_options options;
    options.on_progress = [&](const msgpack::object& value) { progress.put(value.as<int>()); };
    CHECK(peer.with(options).try_call("report", 1500).as<int>() == 1500);
    REQUIRE(events.wait_for(1500));
    REQUIRE(progress.wait_for(1500));
    for (int i = 0; i < 1500; ++i) REQUIRE(events.values()[static_cast<std::size_t>(i)] == i);
    peer.call("log", 2, "disk is slow");
    CHECK(logs.wait([](const auto& seen) { return std::ranges::find(seen, "disk is slow") != seen.end(); }));
  }
  CHECK(logs.wait(
      [&](const auto& seen) { return std::ranges::find(seen, language + ": leaving in good order") != seen.end(); }));
}

TEST_CASE("a worker in another language calls the application") {
  const std::string language = GENERATE("python", "node");
  INFO(language);
  host host;
  auto options = patient();
  options.functions.add("twice", [](int x) { return 2 * x; });
  auto peer = host.launch(command(language), options);
  CHECK(peer.call<int>("relay", "twice", 21) == 42);
  const auto unknown = failure_of([&] { peer.call("relay", "unheard_of", 1); });
  CHECK(unknown.outcome() == outcome::rejected);
  CHECK(unknown.message().starts_with("the host said: "));
}

TEST_CASE("a worker in another language is told of a cancellation and lives on") {
  const std::string language = GENERATE("python", "node");
  INFO(language);
  host host;
  auto peer = host.launch(command(language), patient());
  const auto before = peer.workers().at(0).pid;
  std::stop_source stop;
  std::jthread canceller([&] { stop.request_stop(); });
  call_options options;
  options.stop = stop.get_token();
  CHECK(peer.with(options).try_call("until_cancelled").outcome() == outcome::cancelled);
  CHECK(peer.call<std::string>("upper", "on") == "ON");
  CHECK(peer.workers().at(0).pid == before);
}

TEST_CASE("a worker in another language that crashes or talks nonsense costs one error") {
  const std::string language = GENERATE("python", "node");
  INFO(language);
  host host;
  auto peer = host.launch(command(language), patient());
  CHECK(failure_of([&] { peer.call("crash"); }).outcome() == outcome::worker_lost);
  CHECK(peer.call<std::string>("upper", "again") == "AGAIN");
  CHECK(failure_of([&] { peer.call("garbage"); }).outcome() == outcome::protocol);
  CHECK(failure_of([&] { peer.call("upper", "again"); }).outcome() == outcome::unavailable);
  peer.reset();
  CHECK(peer.call<std::string>("upper", "again") == "AGAIN");
}

TEST_CASE("a worker in another language streams in both directions, by the credit of both") {
  host host;
  auto peer = host.launch(command("python"), patient());
  const auto pid = peer.workers().at(0).pid;
  call_options options;
  options.stream_window = 1000;
  auto call = peer.with(options).open("scale", 3);
  std::jthread sender([&] {
    for (int i = 0; i < 10'000; ++i) call.send(i);
    call.close();
  });
  for (int i = 0; i < 10'000; ++i) REQUIRE(call.next<int>() == 3 * i);
  CHECK(!call.next<int>());
  CHECK(call.finish().as<int>() == 10'000);
  auto cut_short = peer.with(options).open("scale", 3);
  REQUIRE(cut_short.send(1));
  REQUIRE(cut_short.next<int>() == 3);
  cut_short.cancel();
  CHECK(cut_short.finish().outcome() == outcome::cancelled);
  CHECK(peer.call<std::string>("upper", "on") == "ON");
  CHECK(peer.workers().at(0).pid == pid);
}

TEST_CASE("a descriptor handed to a worker in another language is the file itself") {
  host host;
  auto peer = host.launch(command("python"), patient());
  const unique_fd file(::memfd_create("content", MFD_CLOEXEC));
  REQUIRE(::write(file.get(), "passed on", 9) == 9);
  ::lseek(file.get(), 0, SEEK_SET);
  const auto content = peer.call<bytes>("read_handle", pass_fd{file.get()});
  CHECK(std::string(content.begin(), content.end()) == "passed on");
}

TEST_CASE("the application's own wait() and SIGCHLD do not see a program that was launched, and its end is known") {
  sigset_t child_ended, before;
  ::sigemptyset(&child_ended);
  ::sigaddset(&child_ended, SIGCHLD);
  ::pthread_sigmask(SIG_BLOCK, &child_ended, &before);
  {
    watched_host host;
    auto peer = host.self.launch(command("python"), patient());
    const pid_t pid = peer.workers().at(0).pid;
    const unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    ::kill(pid, SIGKILL);
    pollfd ended{pidfd.get(), POLLIN, 0};
    REQUIRE(::poll(&ended, 1, 60'000) == 1);
    siginfo_t info{};
    CHECK(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | __WALL) < 0);
    REQUIRE(host.saw(watched_host::kind::exited));
    const auto report = host.last(watched_host::kind::exited).report;
    CHECK(report->reason == exit_reason::signalled);
    CHECK(report->signal == SIGKILL);
    CHECK(report->cpu_time > 1ms);
    CHECK(report->peak_memory > 1 << 20);
    const auto failure = failure_of([&] { host.self.launch({"/bin/sh", "-c", "exit 3"}, patient()); });
    CHECK(failure.message().find("exited with status 3") != std::string::npos);
    siginfo_t told{};
    constexpr timespec now{};
    const int seen = ::sigtimedwait(&child_ended, &told, &now);
    INFO("SIGCHLD for " << told.si_pid << ", code " << told.si_code << ", status " << told.si_status);
    CHECK(seen < 0);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a program that outlives its fork server is looked after all the same") {
  watched_host host;
  auto peer = host.self.launch(command("python"), patient());
  const pid_t pid = peer.workers().at(0).pid;
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  pid_t parent = 0;
  for (std::string word; parent == 0 && status >> word;)
    if (word == "PPid:") status >> parent;
  REQUIRE(parent > 1);
  ::kill(parent, SIGKILL);
  CHECK(peer.call<std::string>("upper", "on") == "ON");
  ::kill(pid, SIGKILL);
  REQUIRE(host.saw(watched_host::kind::exited));
  CHECK(peer.call<std::string>("upper", "again") == "AGAIN");
}

TEST_CASE("the bytes that a host sends are those of the page") {
  host host;
  auto options = patient();
  options.deadline = no_deadline;
  auto peer = host.launch(command("python"), options);
  peer.call("mean", std::vector<int>{1, 2, 3});
  const auto sent = peer.call<bytes>("received");
  auto expected = vector_named("hello");  // but for its deadline, which is none here
  const auto limited = std::string("\xcd\x75\x30");
  const auto at = std::search(expected.begin(), expected.end(), limited.begin(), limited.end(),
                              [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); });
  REQUIRE(at != expected.end());
  *at = 0;
  expected.erase(at + 1, at + 3);
  REQUIRE(sent.size() > expected.size());
  CHECK(std::equal(expected.begin(), expected.end(), sent.begin()));
  auto call = vector_named("call");
  auto rest = std::vector<std::uint8_t>(sent.begin() + static_cast<std::ptrdiff_t>(expected.size()), sent.end());
  REQUIRE(rest.size() >= call.size());
  rest.resize(call.size());
  std::copy_n(rest.begin() + 3, 4, call.begin() + 3);  // the id is the host's choice
  CHECK(rest == call);
}

}  // namespace bulkhead::testing
