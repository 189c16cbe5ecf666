// A host that the system refuses descriptors for a while: what it has to send waits, and nobody is lost for it.
#include "failing_new.hpp"
#include "faults.hpp"
#include "fixture.hpp"

#include <csignal>

#include <fcntl.h>

namespace bulkhead::testing {

TEST_CASE("a descriptor that the system does not take on now is sent later, in its turn and without haste") {
  for (const bool lanes : {true, false}) {
    load_options options;
    options.lanes.enabled = lanes;
    options.deadline = 20s;
    host host;
    auto plugin = host.load(plugin_path("chaos"), options);
    const pid_t pid = plugin.workers().at(0).pid;
    const unique_fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    mailbox<outcome> ends;
    refused_descriptors = 0;
    const auto begun = std::chrono::steady_clock::now();
    no_descriptors_sent = true;
    plugin.async_call<reply>("hold", std::tuple{pass_fd{null.get()}}, outcome_to(ends));
    plugin.async_call<reply>("echo", std::tuple{1}, outcome_to(ends));
    CHECK(eventually([] { return refused_descriptors >= 5; }));
    no_descriptors_sent = false;
    CHECK(refused_descriptors.load() <= 5 + (std::chrono::steady_clock::now() - begun) / 5ms);
    CHECK(ends.wait_for(2));
    CHECK(ends.values() == std::vector(2, outcome::ok));

    no_descriptors_sent = true;  // the caller, who reads by himself
    std::thread later([before = refused_descriptors.load()] {
      eventually([&] { return refused_descriptors >= before + 2; });
      no_descriptors_sent = false;
    });
    CHECK(plugin.try_call("hold", pass_fd{null.get()}).outcome() == outcome::ok);
    later.join();
    CHECK(plugin.workers().at(0).pid == pid);
  }
}

// The grace of a call that was given up is a second: longer than that it is kept back here.
TEST_CASE("a call whose descriptor the system does not take on until it has ended costs no worker its life") {
  host host;
  auto plugin = host.load(plugin_path("chaos"));
  const pid_t pid = plugin.workers().at(0).pid;
  const unique_fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  refused_descriptors = 0;
  no_descriptors_sent = true;
  CHECK(plugin.with({.deadline = 50ms}).try_call("hold", pass_fd{null.get()}).outcome() == outcome::timeout);
  CHECK(eventually([] { return refused_descriptors >= 200; }));
  no_descriptors_sent = false;
  CHECK(plugin.try_call("echo", 1).outcome() == outcome::ok);
  CHECK(plugin.workers().at(0).pid == pid);
}

namespace {

// Does not read while this lives.
struct stopped {
  explicit stopped(pid_t which) : pid(which) {
    ::kill(pid, SIGSTOP);
    REQUIRE(eventually([&] {
      std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
      std::string number, name, state;
      return stat >> number >> name >> state && state == "T";
    }));
  }
  ~stopped() { ::kill(pid, SIGCONT); }
  stopped(const stopped&) = delete;
  const pid_t pid;
};

std::uint64_t version_in(const plugin& of, const std::string& name = "table") {
  return of.call<std::uint64_t>("version", name);
}

}  // namespace

// Each version that is sent takes a descriptor of its own, and its memory is held until that has been read.
TEST_CASE("of the versions that a worker has not read yet one is on its way, and what comes next finds the newest") {
  host host;
  load_options options;
  options.deadline = 20s;
  auto plugin = host.load(plugin_path("blobs"), options);
  const pid_t pid = plugin.workers().at(0).pid;
  CHECK(version_in(plugin) == 0);
  std::uint64_t latest = 0;
  mailbox<std::uint64_t> found;
  {
    const stopped worker(pid);
    duplicates = 0;
    for (int i = 0; i < 20; ++i) latest = host.publish("table", bytes(1000, 1));
    CHECK(duplicates.load() == 1);
    host.publish("other", bytes(1000, 1));
    CHECK(duplicates.load() == 2);
    plugin.async_call<std::uint64_t>("version", std::tuple{"table"},
                                     [&](boost::system::error_code, std::uint64_t version) { found.put(version); });
  }
  REQUIRE(found.wait_for(1));
  CHECK(found.values().front() == latest);
  CHECK(duplicates.load() == 3);
  {
    const stopped worker(pid);
    for (int i = 0; i < 3; ++i) latest = host.publish("table", bytes(1000, 1));
    CHECK(host.unpublish("table"));
  }
  CHECK(version_in(plugin) == 0);
  latest = host.publish("table", bytes(1000, 1));
  CHECK(version_in(plugin) == latest);
  CHECK(plugin.workers().at(0).pid == pid);
}

TEST_CASE("what is published under many names waits for a worker that does not read, but for the first few") {
  host host;
  auto plugin = host.load(plugin_path("blobs"));
  const auto name = [](int i) { return "table " + std::to_string(i); };
  std::uint64_t latest = 0;
  {
    const stopped worker(plugin.workers().at(0).pid);
    duplicates = 0;
    for (int i = 0; i < 200; ++i) latest = host.publish(name(i), bytes(1000, 1));
    CHECK(duplicates.load() < 50);
  }
  CHECK(eventually([&] { return version_in(plugin, name(199)) == latest; }));
}

TEST_CASE("a host that has no descriptor to publish with loses no worker, which learns of the newest version later") {
  host host;
  auto plugin = host.load(plugin_path("blobs"));
  const pid_t pid = plugin.workers().at(0).pid;
  no_duplicates = true;
  host.publish("table", bytes(1000, 1));
  host.publish("gone", bytes(1000, 1));
  const auto latest = host.publish("table", bytes(1000, 2));
  CHECK(host.unpublish("gone"));
  CHECK(version_in(plugin) == 0);
  no_duplicates = false;
  CHECK(eventually([&] { return version_in(plugin) == latest; }));
  CHECK(version_in(plugin, "gone") == 0);
  CHECK(plugin.workers().at(0).pid == pid);
}

TEST_CASE("a host that runs out of memory while it publishes or withdraws tells its workers when there is some again") {
  host host;
  auto plugin = host.load(plugin_path("blobs"));
  const pid_t pid = plugin.workers().at(0).pid;
  const bytes table(1000, 1);
  std::uint64_t latest = 0;
  // Whether as many allocations were made.
  const auto starve = [](long at, auto&& step) {
    allocations = 0;
    failing_allocation = at;
    try {
      step();
    } catch (const std::exception&) {
    }
    failing_allocation = -1;
    return allocations > at;
  };
  for (long at = 0; starve(at, [&] { latest = host.publish("table", table); });) ++at;
  CHECK(eventually([&] { return version_in(plugin) == latest; }));
  for (long at = 0;; ++at) {
    latest = host.publish("table", table);
    CHECK(eventually([&] { return version_in(plugin) == latest; }));
    const bool met = starve(at, [&] { host.unpublish("table"); });
    CHECK(eventually([&] { return version_in(plugin) == 0; }));
    if (!met) break;
  }
  CHECK(plugin.workers().at(0).pid == pid);
}

}  // namespace bulkhead::testing
