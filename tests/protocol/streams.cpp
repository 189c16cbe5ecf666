// The two ends of a stream without a channel between them: credit, windows, order, and what breaks the rules.
#include <bulkhead/ipc/stream.hpp>

#include <catch2/catch.hpp>

#include <future>
#include <stdexcept>
#include <thread>

namespace bulkhead::testing {
namespace {

using namespace ipc;
using namespace std::chrono_literals;
using result = ipc::stream::result;
using bytes_t = std::vector<std::uint8_t>;

// On any thread, which assertions of Catch are not for.
void accepted(const char* wrong) {
  if (wrong) throw std::logic_error(wrong);
}

// Remembers what an end says, or passes it on.
struct wire final : ipc::stream::link {
  ipc::stream* to = nullptr;
  std::vector<std::size_t> credit;
  std::vector<bytes_t> items;
  int ends = 0;
  void item(byte_span value) override {
    items.emplace_back(value.begin(), value.end());
    if (to) accepted(to->on_item(value));
  }
  void more(std::size_t bytes) override {
    credit.push_back(bytes);
    if (to) accepted(to->on_more(bytes));
  }
  void end() override {
    ++ends;
    if (to) accepted(to->on_end());
  }
};

bytes_t item_of(std::size_t size, std::uint8_t fill = 0) {
  const std::size_t body = size - 3;
  bytes_t out = {0xc5, static_cast<std::uint8_t>(body >> 8), static_cast<std::uint8_t>(body)};
  out.resize(size, fill);
  return out;
}

struct pair {
  ipc::stream host, plugin;
  std::shared_ptr<wire> from_host = std::make_shared<wire>(), from_plugin = std::make_shared<wire>();
  explicit pair(std::size_t window) : host(window, true), plugin(window, false, window) {
    from_host->to = &plugin;
    from_plugin->to = &host;
    host.attach(from_host);
    plugin.attach(from_plugin);
  }
};

}  // namespace

TEST_CASE("nothing is sent to an end that has not asked for it, and all of a window when it has") {
  pair both(1000);
  std::promise<result> sent;
  std::jthread sender([&] { sent.set_value(both.host.send(item_of(1000))); });
  bytes_t got;
  CHECK(both.plugin.receive(got) == result::ok);
  CHECK(both.from_plugin->credit == std::vector<std::size_t>{1000, 1000});  // as it began, and when it had taken it
  CHECK(got == item_of(1000));
  CHECK(sent.get_future().get() == result::ok);
  CHECK(both.host.send(item_of(1001)) == result::too_large);
}

TEST_CASE("an item as large as the window follows a small one") {
  pair both(1000);
  std::jthread sender([&] {
    for (int i = 0; i < 100; ++i) {
      both.plugin.send(bytes_t{0x01});
      both.plugin.send(item_of(1000));
    }
    both.plugin.close();
  });
  bytes_t got;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(both.host.receive(got) == result::ok);
    REQUIRE(got.size() == 1);
    REQUIRE(both.host.receive(got) == result::ok);
    REQUIRE(got.size() == 1000);
  }
  CHECK(both.host.receive(got) == result::end);
}

TEST_CASE("credit comes back by the half window while items are at hand, and all of it when there are none") {
  ipc::stream end(1000, true);
  const auto said = std::make_shared<wire>();
  end.attach(said);
  for (std::uint8_t i = 0; i < 10; ++i) REQUIRE(end.on_item(item_of(100, i)) == nullptr);
  CHECK(end.on_item(bytes_t{0x01}) == std::string("more items than it had credit for"));
  bytes_t got;
  for (std::uint8_t i = 0; i < 9; ++i) {
    REQUIRE(end.receive(got) == result::ok);
    CHECK(got == item_of(100, i));
  }
  CHECK(said->credit == std::vector<std::size_t>{500});
  CHECK(end.on_item(item_of(500)) == nullptr);
  CHECK(end.on_item(bytes_t{0x01}) != nullptr);
  REQUIRE(end.receive(got) == result::ok);
  CHECK(said->credit == std::vector<std::size_t>{500, 500});
}

TEST_CASE("what breaks the rules of a stream is named") {
  ipc::stream end(1000, true);
  CHECK(end.on_more(0) == std::string("a window out of range"));
  CHECK(end.on_more(most_stream_window + 1) == std::string("a window out of range"));
  CHECK(end.on_more(500) == nullptr);
  CHECK(end.on_more(1) == std::string("more credit than its window"));
  CHECK(end.on_more(0xffffffffffffffff) == std::string("more credit than its window"));
  CHECK(end.on_end() == nullptr);
  CHECK(end.on_end() == std::string("a second end of its stream"));
  CHECK(end.on_item(bytes_t{0x01}) == std::string("an item after the end of its stream"));
}

TEST_CASE("a stream that is over takes what its peer had credit for, keeps none of it, and still no more") {
  ipc::stream end(1000, true);
  end.attach(std::make_shared<wire>());
  CHECK(end.on_item(item_of(600)) == nullptr);
  end.stop(true);
  bytes_t got;
  CHECK(end.receive(got) == result::over);
  CHECK(end.on_item(item_of(400)) == nullptr);
  CHECK(end.receive(got) == result::over);
  CHECK(end.on_item(bytes_t{0x01}) == std::string("more items than it had credit for"));
  CHECK(end.send(bytes_t{0x01}) == result::over);
}

TEST_CASE("a stream whose deadline has been seen gives out nothing that comes later") {
  ipc::stream end(1000, true, 1000, clock::now());
  end.attach(std::make_shared<wire>());
  bytes_t got;
  CHECK((GENERATE(true, false) ? end.send(bytes_t{0x01}) : end.receive(got)) == result::over);
  CHECK(end.on_item(bytes_t{0x01}) == nullptr);
  CHECK(end.receive(got) == result::over);
}

TEST_CASE("a stream gives out what came before its deadline, whenever it is asked for it") {
  ipc::stream end(1000, true, 1000, clock::now());
  end.attach(std::make_shared<wire>());
  CHECK(end.on_item(bytes_t{0x01}) == nullptr);
  bytes_t got;
  CHECK(end.receive(got) == result::ok);
  CHECK(end.receive(got) == result::over);
}

TEST_CASE("whoever waits is woken when a stream is over, and at its deadline") {
  ipc::stream end(1000, false, 10);
  end.attach(std::make_shared<wire>());
  CHECK(end.send(item_of(10)) == result::ok);
  auto sending = std::async(std::launch::async, [&] { return end.send(item_of(10)); });
  auto receiving = std::async(std::launch::async, [&] {
    bytes_t got;
    return end.receive(got);
  });
  end.stop(false);
  CHECK(sending.get() == result::over);
  CHECK(receiving.get() == result::over);

  ipc::stream late(1000, true, 0, clock::now() + 20ms);
  bytes_t got;
  CHECK(late.receive(got) == result::over);
  CHECK(late.send(item_of(10)) == result::over);
}

TEST_CASE("a stream begins anew with another peer unless items have moved") {
  ipc::stream end(1000, true);
  const auto first = std::make_shared<wire>(), second = std::make_shared<wire>();
  end.attach(first);
  end.close();
  CHECK(first->ends == 1);
  CHECK(end.on_more(100) == nullptr);
  CHECK(end.restart());
  CHECK(end.peer_window() == 0);
  end.attach(second);
  end.catch_up();
  end.catch_up();
  CHECK(second->ends == 1);
  CHECK(end.on_item(bytes_t{0x01}) == nullptr);
  CHECK(!end.restart());

  ipc::stream other(1000, true);
  other.attach(first);
  CHECK(other.on_more(100) == nullptr);
  CHECK(other.send(bytes_t{0x01}) == result::ok);
  CHECK(!other.restart());
}

TEST_CASE("a closed end that is not linked yet says so once it is") {
  ipc::stream end(1000, true);
  const auto said = std::make_shared<wire>();
  end.close();
  end.attach(said);
  end.catch_up();
  CHECK(said->ends == 1);
  CHECK(end.send(bytes_t{0x01}) == result::end);
}

TEST_CASE("messages about streams are read in every allowed width, and in no other form") {
  auto read = [](const bytes_t& frame) {
    const auto message = parse_message(frame);
    REQUIRE(message);
    return read_about_stream(*message);
  };
  const bytes_t item = make_item(300, bytes_t{0xc3}).take();
  const auto said = read(item);
  REQUIRE(said);
  CHECK(said->id == 300);
  CHECK(bytes_t(said->value.begin(), said->value.end()) == bytes_t{0xc3});

  auto notification = [](const std::string& method, const bytes_t& params) {
    buffer out = begin_notification(method);
    out.append(params);
    return out.take();
  };
  CHECK(read(notification("$/item", {0xdc, 0, 2, 0xce, 0, 0, 0, 7, 0xc3}))->id == 7);
  CHECK(read(notification("$/item", {0xdd, 0, 0, 0, 2, 0xcd, 0, 7, 0xc3}))->id == 7);
  CHECK(read(notification("$/end", {0x91, 0xcc, 7}))->id == 7);
  for (const bytes_t& wrong : std::vector<bytes_t>{{0x90},
                                                   {0x91, 7},
                                                   {0x93, 7, 7, 7},
                                                   {0x92, 0xff, 7},
                                                   {0x92, 0xc0, 7},
                                                   {0x92, 0xa1, 'x', 7},
                                                   {0x92, 0xcf, 0, 0, 0, 0, 0, 0, 0, 7, 7}})
    CHECK(!read(notification("$/item", wrong)));
  CHECK(!read(notification("$/end", {0x92, 7, 7})));
  ipc::stream end(1000, true);
  for (const bytes_t& wrong : std::vector<bytes_t>{{0xff}, {0xc0}, {0xa1, '9'}, {0xcf, 0, 0, 0, 0, 0, 0, 0, 9}})
    CHECK(tell(end, "$/more", wrong) == std::string("credit that is no number"));
  CHECK(tell(end, "$/more", bytes_t{0xcd, 1, 0}) == nullptr);
  CHECK(end.peer_window() == 256);
}

}  // namespace bulkhead::testing
