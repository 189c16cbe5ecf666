// What the application's thread does where no memory is to be had at all: letting go of a blob takes none, whatever else fails
// on a blob's way leaves all memory for blobs there, on the worker's side, too, and a handler may throw.
#include "closer.hpp"
#include "failing_new.hpp"
#include "fixture.hpp"

#include <boost/asio/io_context.hpp>

#include <unistd.h>

namespace bulkhead::testing {
namespace {

struct starved {
  explicit starved(long from, bool for_good = false) {
    allocations = 0;
    all_after = for_good;
    failing_allocation = from;
  }
  ~starved() { failing_allocation = -1; }
  starved(const starved&) = delete;
};

constexpr std::size_t mib = std::size_t{1} << 20;

std::size_t blob_mappings(const std::string& process = "self") {
  return mappings("bulkhead-arguments", process) + mappings("bulkhead-results", process);
}

}  // namespace

TEST_CASE("blobs are let go of without any memory, and what they lay in is given back all the same") {
  bulkhead::host host;
  load_options options;
  options.blobs.idle = 10ms;
  auto plugin = host.load(plugin_path("blobs"), options);
  const std::string worker = std::to_string(plugin.workers().at(0).pid);
  const auto let_go = [&](std::size_t count) {
    std::vector<shared_blob> all;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(plugin.make_blob(4096));
      all.push_back(plugin.call<shared_blob>("keep", 4096));
    }
    const starved now(0, true);
    for (shared_blob& each : all) each.release();
  };
  let_go(1);
  let_go(300);  // more than the worker is told of at once
  // What could not be noted is noted the next time.
  plugin.make_blob(4096).release();
  plugin.call<shared_blob>("keep", 4096).release();
  CHECK(eventually([&] { return blob_mappings() == 0 && blob_mappings(worker) == 0; }));
}

TEST_CASE("each allocation on a blob's way fails once, and all memory for blobs is there afterwards") {
  bulkhead::host host;
  load_options options = untiring();
  options.deadline = 20s;
  options.blobs.memory = 2 * mib;
  options.blobs.idle = 10ms;
  auto plugin = host.load(plugin_path("blobs"), options);
  const auto make = [&](std::size_t size) {
    shared_blob made = plugin.make_blob(size);
    std::fill(made.writable().begin(), made.writable().end(), 1);
    return made;
  };
  const auto play = [&] {
    shared_blob in = make(mib);
    plugin.call<std::uint64_t>("sum", in);
    in.release();
    in = make(2 * mib);  // for which the first one's memory has to go
    plugin.call<std::uint64_t>("sum", in);
  };
  const auto all_there = [&] {
    try {
      make(mib).release();
      make(2 * mib).release();
      return true;
    } catch (const call_error& e) {  // a worker that is still ending may hold one
      if (e.outcome() != outcome::overloaded) throw;
      return false;
    }
  };
  play();
  long place = 0;
  for (bool met = true; met; ++place) {
    INFO("allocation " << place);
    try {
      const starved now(place);
      play();
    } catch (const std::exception&) {  // bad_alloc, or call_error when a worker's message could not be read
    }
    met = allocations > place;
    plugin.reset();  // to its host, a worker whose answer could not be kept has broken the rules
    REQUIRE(eventually(all_there));
    REQUIRE(eventually([] { return blob_mappings() == 0; }));
  }
  CHECK(place > 10);
  CHECK(plugin.call<std::uint64_t>("sum", make(mib)) == mib);
  const std::string worker = std::to_string(plugin.workers().at(0).pid);
  CHECK(eventually([&] { return blob_mappings(worker) == 0; }));
}

TEST_CASE("a handler that throws where there is no memory ends nothing but itself") {
  struct thrown {  // until it has been dealt with
    ~thrown() { failing_allocation = -1; }
  };
  boost::asio::io_context context;
  bulkhead::host host(context.get_executor());
  auto plugin = host.load(plugin_path("blobs"));
  int handled = 0;
  plugin.on_event([&](const std::string&, const msgpack::object&) {
    ++handled;
    allocations = 0;
    all_after = true;
    failing_allocation = 0;
    throw thrown{};
  });
  shared_blob in = plugin.make_blob(1);
  in.writable()[0] = 1;
  for (int calls = 1; calls <= 2; ++calls) {
    CHECK(plugin.call<bool>("await_one", in));
    while (handled < calls && context.run_one_for(20s) > 0) continue;
    CHECK(handled == calls);
  }
}

TEST_CASE("descriptors of a worker's that there is no memory to pass on are closed where they are") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const unique_fd read_end(ends[0]);
  std::vector<unique_fd> written;
  written.emplace_back(ends[1]);
  closer closer;
  {
    const starved now(0, true);
    closer.take(std::move(written));
  }
  char none = 0;
  CHECK(::read(read_end.get(), &none, 1) == 0);
}

}  // namespace bulkhead::testing
