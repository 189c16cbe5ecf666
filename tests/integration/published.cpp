// Values that the application publishes to its plugins: host::publish() and what plugins see of it.
#include "fixture.hpp"

#include <numeric>
#include <sstream>

namespace bulkhead::testing {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

// kB of published memory that a process has to itself, in proportion, and how many mappings of it there are.
struct share {
  double kb = 0;
  int mappings = 0;
};
share published_share(const std::string& process) {
  std::ifstream smaps("/proc/" + process + "/smaps");
  share found;
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.find('-') < 17 && line.find(" r") != std::string::npos) {
      inside = line.find("memfd:bulkhead-published") != std::string::npos;
      found.mappings += inside;
    }
    if (inside && line.starts_with("Pss:")) found.kb += std::stod(line.substr(4));
  }
  return found;
}

using version_and_sum = std::pair<std::uint64_t, std::uint64_t>;

}  // namespace

TEST_CASE("plugins find what is published, and its versions") {
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"));
  CHECK(plugin.call<std::uint64_t>("version", "table") == 0);
  const auto first = host.publish("table", bytes(100'000, 1));
  CHECK(plugin.call<std::uint64_t>("version", "table") == first);
  CHECK(plugin.call<std::uint64_t>("sum_published", "table") == 100'000);
  plugin.call("hold", "table");

  const auto second =
      host.publish("table", 1000, [](std::span<std::uint8_t> to) { std::fill(to.begin(), to.end(), 2); });
  CHECK(second > first);
  CHECK(plugin.call<std::uint64_t>("sum_published", "table") == 2000);
  CHECK(plugin.call<version_and_sum>("held") == version_and_sum(first, 100'000));  // as long as it is held

  host.publish("words", std::map<std::string, int>{{"one", 1}, {"two", 2}});
  CHECK(plugin.call<int>("look_up", "two") == 2);
  host.publish("empty", bytes_view());
  CHECK(plugin.call<std::uint64_t>("version", "empty") > second);

  CHECK(host.unpublish("table"));
  CHECK_FALSE(host.unpublish("table"));
  CHECK(plugin.call<std::uint64_t>("version", "table") == 0);
  CHECK(plugin.call<version_and_sum>("held") == version_and_sum(first, 100'000));
  CHECK_THROWS_WITH(host.publish("", bytes(1)), Catch::Contains("a name has 1 to 255 bytes"));
}

TEST_CASE("a worker knows what is published before its plugin is initialised, and a busy one learns of a new version") {
  mailbox<int> reading;
  bulkhead::host host;
  const auto first = host.publish("table", bytes(10, 1));
  for (int i = 0; i < 20; ++i) host.publish("other " + std::to_string(i), bytes(10, 1));
  auto plugin = host.load(plugin_path("blobs"), untiring());
  plugin.on_event([&](const std::string&, const msgpack::object&) { reading.put(0); });
  CHECK(plugin.call<std::uint64_t>("version_at_init") == first);
  const auto second = host.publish("table", bytes(10, 2));
  CHECK(plugin.try_call("die").outcome() == outcome::worker_lost);
  CHECK(plugin.call<std::uint64_t>("version_at_init") == second);

  std::thread publisher([&] {
    if (reading.wait_for(1)) host.publish("table", bytes(10, 3));
  });
  const reply seen = plugin.with({.deadline = 20s}).try_call("await_version", second + 1);
  publisher.join();
  CHECK(seen);
}

// More descriptors than either side keeps while their messages are still to come.
TEST_CASE("a worker knows all of very many values, whether they were published before it began or while it was busy") {
  mailbox<int> reading;
  bulkhead::host host;
  constexpr std::size_t many = 200;
  for (std::size_t i = 0; i < many; ++i) host.publish("before " + std::to_string(i), bytes(10 + i, 1));
  auto plugin = host.load(plugin_path("blobs"), untiring());
  plugin.on_event([&](const std::string&, const msgpack::object&) { reading.put(0); });
  for (std::size_t i = 0; i < many; ++i)
    CHECK(plugin.call<std::uint64_t>("sum_published", "before " + std::to_string(i)) == 10 + i);

  std::uint64_t last = 0;
  std::thread publisher([&] {
    if (!reading.wait_for(1)) return;
    for (std::size_t i = 0; i < many; ++i) last = host.publish("while " + std::to_string(i), bytes(10 + i, 1));
    host.publish("table", bytes(10, 3));
  });
  const reply seen = plugin.with({.deadline = 20s}).try_call("await_version", many + 1);
  publisher.join();
  CHECK(seen);
  CHECK(last == 2 * many);
  for (std::size_t i = 0; i < many; ++i)
    CHECK(plugin.call<std::uint64_t>("sum_published", "while " + std::to_string(i)) == 10 + i);
}

#ifndef BULKHEAD_SANITIZED  // address space is not limited there
TEST_CASE("a worker reads more than its memory limit of what was published before it started") {
  bulkhead::host host;
  load_options options;
  options.memory_limit = 160 * mib;
  options.blobs.memory = 16 * mib;
  const auto version = host.publish("table", 192 * mib, [](std::span<std::uint8_t> to) { to.back() = 1; });
  auto plugin = host.load(plugin_path("blobs"), options);
  CHECK(plugin.call<std::uint64_t>("version", "table") == version);
}
#endif

TEST_CASE("a plugin reads what it may") {
  bulkhead::host host;
  host.publish("table", bytes(10, 1));
  load_options options;
  options.published = {"words"};
  auto some = host.load(plugin_path("blobs"), options);
  options.isolation = isolation::none;
  auto here = host.load(plugin_path("blobs"), options);
  host.publish("words", std::map<std::string, int>{{"one", 1}});
  host.publish("more", bytes(10, 1));
  for (const auto& each : {some, here}) {
    CHECK(each.call<int>("look_up", "one") == 1);
    CHECK(each.call<std::uint64_t>("version", "table") == 0);
    CHECK(each.call<std::uint64_t>("version", "more") == 0);
  }
}

TEST_CASE("what is published can't be changed") {
  bulkhead::host host;
  host.publish("table", bytes(10, 5));
  auto plugin = host.load(plugin_path("blobs"), untiring());
  const reply result = plugin.try_call("overwrite");
  CHECK(result.outcome() == outcome::worker_lost);
  REQUIRE(result.report());
  CHECK(result.report()->signal == SIGSEGV);
  CHECK(plugin.call<std::uint64_t>("sum_published", "table") == 50);
}

TEST_CASE("a table costs its memory once, however many workers read it, and nothing when it is gone") {
  const std::size_t descriptors = entries("/proc/self/fd");
  {
    bulkhead::host host;
    host.publish("table", 64 * mib, [](std::span<std::uint8_t> to) { std::fill(to.begin(), to.end(), 1); });
    load_options options;
    options.instances = 4;
    options.dispatch.kind = dispatch::kind::round_robin;
    auto plugin = host.load(plugin_path("blobs"), options);
    const std::size_t before = entries("/proc/self/fd");
    for (int i = 0; i < 4; ++i) CHECK(plugin.call<std::uint64_t>("sum_published", "table") == 64 * mib);
    double kb = published_share("self").kb;
    const auto workers = plugin.workers();
    REQUIRE(workers.size() == 4);
    for (const auto& each : workers) {
      const share found = published_share(std::to_string(each.pid));
      CHECK(found.mappings == 1);
      CHECK(found.kb > 15 * 1024);
      kb += found.kb;
    }
    CHECK(kb > 63 * 1024);
    CHECK(kb < 66 * 1024);

    for (int i = 0; i < 50; ++i) host.publish("table", bytes(1000, 1));  // nobody holds the old ones
    host.unpublish("table");
    CHECK(eventually([&] {
      return std::all_of(workers.begin(), workers.end(),
                         [](const auto& each) { return published_share(std::to_string(each.pid)).mappings == 0; });
    }));
    CHECK(published_share("self").mappings == 0);
    CHECK(entries("/proc/self/fd") == before - 1);  // the table's own
  }
  CHECK(entries("/proc/self/fd") == descriptors);
}

}  // namespace bulkhead::testing
