// Bytes in bulk, through the public API: blobs that the application makes, those that come as results, and long arguments
// and results of other types, which go by shared memory on their own.
#include "fixture.hpp"

#include <boost/asio/use_future.hpp>

#include <atomic>
#include <numeric>

namespace bulkhead::testing {
namespace {

constexpr std::size_t kib = 1024, mib = 1024 * kib;

std::uint64_t sum_of(bytes_view data) { return std::accumulate(data.begin(), data.end(), std::uint64_t{0}); }

std::size_t shared_mappings() { return mappings("bulkhead-arguments") + mappings("bulkhead-results"); }

bytes numbered(std::size_t size) {
  bytes made(size);
  for (std::size_t i = 0; i < size; ++i) made[i] = static_cast<std::uint8_t>(i * 7 + (i >> 12));
  return made;
}

}  // namespace

struct picture {
  std::string name;
  bytes pixels;
  MSGPACK_DEFINE_MAP(name, pixels)
};

TEST_CASE("a blob is read by the plugin where the application writes it") {
  mailbox<std::string> events;
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"));
  plugin.on_event([&](const std::string& name, const msgpack::object&) { events.put(name); });

  shared_blob in = plugin.make_blob(3 * mib);
  CHECK(in.size() == 3 * mib);
  const bytes contents = numbered(3 * mib);
  std::copy(contents.begin(), contents.end(), in.writable().begin());
  CHECK(plugin.call<std::uint64_t>("sum", in) == sum_of(contents));
  CHECK(plugin.call<std::uint64_t>("sum_of_bytes", in) == sum_of(contents));  // any parameter of bytes will do

  in.writable()[0] = 0;
  std::thread writer([&] {
    if (events.wait_for(1)) std::atomic_ref(in.writable()[0]).store(1);
  });
  const bool seen = plugin.with({.deadline = 20s}).call<bool>("await_one", in);
  writer.join();
  CHECK(seen);
}

TEST_CASE("a result blob lies where the plugin wrote it") {
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"));
  auto blob = plugin.call<shared_blob>("keep", 2 * mib);
  CHECK(sum_of(blob) == 2 * mib);
  const bytes copied = blob.copy();
  plugin.call("scribble");  // as the docs say, the worker still can
  CHECK(blob.view()[0] == 2);
  CHECK(copied[0] == 1);
  CHECK_THROWS_WITH(blob.writable(), Catch::Contains("is a result: copy() it"));

  shared_blob in = plugin.make_blob(mib);
  std::fill(in.writable().begin(), in.writable().end(), 3);
  for (int i = 0; i < 100; ++i) {  // far more than there is memory for, if it were not used again
    auto out = plugin.call<shared_blob>("invert", in);
    REQUIRE(out.size() == mib);
    REQUIRE(out.view()[mib - 1] == 0xfc);
  }
  CHECK(mappings("bulkhead-results") <= 3);
  // A result as an argument of the next call: copied, since no worker may write into what another reads.
  CHECK(plugin.call<std::uint64_t>("sum", plugin.call<shared_blob>("invert", in)) == mib * 0xfc);
}

TEST_CASE("long arguments and results go by shared memory on their own") {
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"));
  REQUIRE(shared_mappings() == 0);

  SECTION("bytes, larger than a message can be") {
    const bytes data = numbered(40 * mib);
    CHECK(plugin.call<std::uint64_t>("sum", data) == sum_of(data));
    CHECK(plugin.call<std::uint64_t>("sum", bytes_view(data)) == sum_of(data));
    CHECK(plugin.call<bytes>("invert", data).size() == data.size());
    CHECK(plugin.call<bytes>("fill", 40 * mib, 9) == bytes(40 * mib, 9));
    CHECK(mappings("bulkhead-arguments") > 0);
    CHECK(mappings("bulkhead-results") > 0);
  }
  SECTION("texts stay texts, and bytes bytes") {
    CHECK(plugin.call<std::size_t>("length", std::string(mib, 'y')) == mib);
    CHECK(plugin.call<std::string>("text", mib) == std::string(mib, 'x'));
    CHECK(plugin.call<std::vector<std::string>>(
              "kinds", std::tuple(std::string(100 * kib, 'y'), std::vector<char>(70 * kib), 5)) ==
          std::vector<std::string>{"str", "bin", "int"});
  }
  SECTION("wherever they are in a structure") {
    std::map<std::string, picture> pictures;
    for (int i = 0; i < 3; ++i)
      pictures["number " + std::to_string(i)] = {std::string(static_cast<std::size_t>(i) * 100 * kib, 'n'),
                                                 numbered(100 * kib + static_cast<std::size_t>(i))};
    const auto back = plugin.call<std::map<std::string, picture>>("pictures", pictures);
    REQUIRE(back.size() == 3);
    for (const auto& [name, each] : back) {
      CHECK(each.name == pictures[name].name);
      CHECK(bytes(each.pixels.rbegin(), each.pixels.rend()) == pictures[name].pixels);
    }
    CHECK(mappings("bulkhead-results") > 0);
  }
  SECTION("answered later, and asked for asynchronously") {
    CHECK(plugin.call<bytes>("later", 100 * kib) == bytes(100 * kib, 7));
    auto future = plugin.async_call<bytes>("invert", std::tuple(bytes(mib, 1)), boost::asio::use_future);
    CHECK(future.get() == bytes(mib, 0xfe));
    auto blob = plugin.async_call<shared_blob>("invert", std::tuple(bytes(mib, 1)), boost::asio::use_future).get();
    CHECK(blob.view()[0] == 0xfe);
  }
  SECTION("but short ones do not") {
    CHECK(plugin.call<bytes>("invert", bytes(64 * kib - 1)).size() == 64 * kib - 1);
    CHECK(mappings("bulkhead-arguments") == 0);
    CHECK(plugin.call<bytes>("fill", 64 * kib - 1, 1).size() == 64 * kib - 1);
    CHECK(plugin.try_call("fill", 1000, 1).blob().size() == 1000);  // a blob of the reply's own
  }
  SECTION("the untyped result has all its bytes") {
    const reply done = plugin.try_call("fill", mib, 4);
    CHECK(done.raw().size() == mib + 5);
    CHECK(done.size() > mib);
    CHECK(ipc::unpack(done.raw()).get().via.bin.size == mib);
  }
}

TEST_CASE("a plugin that knows nothing of blobs sees plain bytes") {
  bulkhead::host host;
  auto plugin = host.load(plugin_path("plain_bytes"));
  const bytes data = numbered(mib);
  bytes twice = data;
  twice.insert(twice.end(), data.begin(), data.end());
  CHECK(plugin.call<bytes>("twice", data) == twice);
  CHECK(plugin.call<shared_blob>("twice", data).copy() == twice);
  CHECK(mappings("bulkhead-results") > 0);
  const auto failure = failure_of([&] { plugin.call<bytes>("lie"); });
  CHECK(failure.outcome() == outcome::plugin_error);
  CHECK_THAT(failure.message(), Catch::Contains("a blob that does not exist"));
}

TEST_CASE("a blob that was released is not used again") {
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"));
  shared_blob blob = plugin.make_blob(100);
  const std::span<std::uint8_t> bytes = blob.writable();
  std::fill(bytes.begin(), bytes.end(), 1);
  blob.release();
  CHECK_FALSE(blob);
  CHECK_THROWS_WITH(blob.view(), Catch::Contains("view(): the blob was released before"));
  CHECK_THROWS_WITH(blob.writable(), Catch::Contains("released before"));
  CHECK_THROWS_WITH(blob.release(), Catch::Contains("release(): the blob was released before"));
  CHECK_THROWS_WITH(plugin.call("sum", blob), Catch::Contains("released before"));
  CHECK_THROWS_WITH(shared_blob().view(), Catch::Contains("plugin::make_blob() makes one"));
  shared_blob from = plugin.make_blob(1);
  const shared_blob to = std::move(from);
  CHECK(to.size() == 1);
  CHECK_FALSE(from);
}

TEST_CASE("blobs outlive workers, plugins and hosts") {
  shared_blob argument, result;
  {
    bulkhead::host host;
    auto plugin = host.load(plugin_path("blobs"), untiring());
    argument = plugin.make_blob(mib);
    std::fill(argument.writable().begin(), argument.writable().end(), 5);
    result = plugin.call<shared_blob>("invert", argument);
    CHECK(plugin.try_call("die").outcome() == outcome::worker_lost);
    CHECK(sum_of(result) == mib * 0xfa);
    CHECK(plugin.call<std::uint64_t>("sum", argument) == mib * 5);  // the next worker is sent it, too
  }
  CHECK(sum_of(result) == mib * 0xfa);
  CHECK(sum_of(argument) == mib * 5);
  argument.release();
  result.release();
  CHECK(shared_mappings() == 0);
}

TEST_CASE("a call that is tried again takes its blobs along") {
  std::atomic<int> attempts{0};
  load_options options = untiring();
  options.functions.add("attempt", [&] { return ++attempts; });
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"), options);
  CHECK(plugin.call<std::uint64_t>("die_at_first", bytes(mib, 2)) == 2 * mib);
  CHECK(attempts == 2);
}

TEST_CASE("what a call reads stays as it is until the plugin has ended it, even when its caller has given up") {
  mailbox<std::uint64_t> sums;
  mailbox<int> reading;
  std::stop_source stop;
  load_options options;
  options.blobs.memory = 2 * mib;
  bulkhead::plugin plugin;
  bool refilled = false;
  options.functions.add("refilled", [&] {
    // The argument's owner has let go of it; only the call still has it.
    std::vector<shared_blob> all;
    try {
      for (;;) {
        all.push_back(plugin.make_blob(64 * kib));
        std::fill(all.back().writable().begin(), all.back().writable().end(), 0xff);
      }
    } catch (const call_error& error) {
      refilled = error.outcome() == outcome::overloaded;
    }
  });
  bulkhead::host host;
  plugin = host.load(plugin_path("blobs"), options);
  plugin.on_event([&](const std::string& name, const msgpack::object& value) {
    if (name == "reading") reading.put(0);
    else
      for (const auto each : value.as<std::vector<std::uint64_t>>()) sums.put(each);
  });
  std::thread stopper([&] {
    reading.wait_for(1);
    stop.request_stop();
  });
  const reply given_up = plugin.with({.stop = stop.get_token()}).try_call("sum_after_cancel", bytes(mib, 1));
  stopper.join();
  CHECK(given_up.outcome() == outcome::cancelled);
  REQUIRE(sums.wait_for(2));
  CHECK(refilled);
  CHECK(sums.values() == std::vector<std::uint64_t>{mib, mib});
}

TEST_CASE("memory for blobs is bounded") {
  load_options options;
  options.blobs.memory = 4 * mib;
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"), options);

  SECTION("for arguments") {
    CHECK(failure_of([&] { plugin.make_blob(4 * mib + 1); }).outcome() == outcome::rejected);
    shared_blob most = plugin.make_blob(4 * mib);
    const auto failure = failure_of([&] { plugin.make_blob(1); });
    CHECK(failure.outcome() == outcome::overloaded);
    CHECK_THAT(failure.message(), Catch::Contains("load_options::blobs"));
    CHECK(plugin.call<std::uint64_t>("sum", bytes(mib, 1)) == mib);  // in the message itself, as long as it fits there
    CHECK(failure_of([&] { plugin.call("sum", bytes(20 * mib)); }).outcome() == outcome::rejected);
    most.release();
    for (int i = 0; i < 4; ++i) CHECK(plugin.make_blob(4 * mib).size() == 4 * mib);
  }
  SECTION("for results") {
    std::vector<shared_blob> kept;
    for (int i = 0; i < 6; ++i)
      kept.push_back(plugin.call<shared_blob>("fill", mib, i));  // the last are no longer shared
    for (std::size_t i = 0; i < 6; ++i) CHECK(sum_of(kept[i]) == i * mib);
    CHECK(mappings("bulkhead-results") == 4);
    const auto too_large = failure_of([&] { plugin.call<bytes>("fill", 20 * mib, 1); });
    CHECK(too_large.outcome() == outcome::plugin_error);  // its method has run
    CHECK_THAT(too_large.message(), Catch::StartsWith("the result has ") &&
                                        Catch::EndsWith("more than the limit of 16777216 for one message"));
    CHECK(plugin.call<bytes>("fill", mib, 1).size() == mib);
  }
  SECTION("and can be none at all") {
    options.blobs.memory = 0;
    auto none = host.load(plugin_path("blobs"), options);
    CHECK(none.call<bytes>("invert", bytes(mib)).size() == mib);
    CHECK(failure_of([&] { none.make_blob(1); }).outcome() == outcome::rejected);
    CHECK(shared_mappings() == 0);
  }
}

TEST_CASE("memory that no blob is in is given back, by the worker too") {
  const std::size_t descriptors = entries("/proc/self/fd");
  {
    load_options options;
    options.blobs.idle = 10ms;
    bulkhead::host host;
    auto plugin = host.load(plugin_path("blobs"), options);
    const std::size_t before = entries("/proc/self/fd");
    const std::string worker = std::to_string(plugin.workers().at(0).pid);
    CHECK(plugin.call<bytes>("invert", bytes(8 * mib)).size() == 8 * mib);
    const auto none_left = [&] {
      return shared_mappings() == 0 &&
             mappings("bulkhead-arguments", worker) + mappings("bulkhead-results", worker) == 0;
    };
    CHECK(eventually(none_left));
    CHECK(entries("/proc/self/fd") == before);

    // One that the plugin has made and may still send fills its arena: the result has another, of which the worker is asked
    // later. So when that is gone, it was asked for the first in vain.
    plugin.call("hoard", 4 * mib);
    CHECK(plugin.call<bytes>("fill", 3 * mib, 1).size() == 3 * mib);
    CHECK(eventually([&] { return mappings("bulkhead-results") == 1; }));
    CHECK(mappings("bulkhead-results", worker) == 1);
    plugin.call("let_go");
    CHECK(eventually(none_left));
  }
  CHECK(entries("/proc/self/fd") == descriptors);
}

TEST_CASE("blobs are the same with a plugin in the application's process") {
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"), {.isolation = isolation::none});
  shared_blob in = plugin.make_blob(mib);
  std::fill(in.writable().begin(), in.writable().end(), 1);
  CHECK(plugin.call<std::uint64_t>("sum", in) == mib);
  auto out = plugin.call<shared_blob>("invert", in);
  CHECK(sum_of(out) == mib * 0xfe);
  CHECK(plugin.call<bytes>("invert", bytes(mib, 1)) == bytes(mib, 0xfe));
  auto plain = host.load(plugin_path("plain_bytes"), {.isolation = isolation::none});
  CHECK(plain.call<bytes>("twice", plain.make_blob(mib)).size() == 2 * mib);
}

TEST_CASE("many threads with blobs at once") {
#ifdef BULKHEAD_SANITIZED
  constexpr int rounds = 20;
#else
  constexpr int rounds = 200;
#endif
  load_options options;
  options.instances = 2;
  options.blobs.idle = 1ms;
  options.blobs.memory = 16 * mib;
  bulkhead::host host;
  auto plugin = host.load(plugin_path("blobs"), options);
  std::atomic<int> right{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::vector<shared_blob> kept;
      for (int i = 0; i < rounds; ++i) {
        const std::size_t size = 64 * kib + static_cast<std::size_t>((i * 37 + t * 11) % 100) * kib;
        auto out = plugin.call<shared_blob>("invert", bytes(size, static_cast<std::uint8_t>(i)));
        right += sum_of(out) == size * static_cast<std::uint8_t>(~i);
        if (i % 3 == 0) kept.push_back(std::move(out));
        if (kept.size() > 5) kept.clear();
      }
    });
  threads.clear();
  CHECK(right == 4 * rounds);
}

}  // namespace bulkhead::testing
