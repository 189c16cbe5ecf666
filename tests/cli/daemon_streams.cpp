// Calls that stream through a daemon: items and credit pass in both directions, neither more than was given; and a stream
// that its client leaves, in whatever way, ends in the plugin, too.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <functional>
#include <sstream>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

constexpr unsigned mebibyte = 1u << 20;

template <class... A>
void open(raw_client& client, std::uint32_t id, unsigned window, const std::string& method, const A&... arguments) {
  client.notify("$/open", id, window);
  client.request(id, method, arguments...);
}

// The next item of call `id`; other notifications are dropped, an answer fails the test.
json next_item(raw_client& client, std::uint32_t id) {
  for (;;) {
    const json message = client.read().value();
    REQUIRE(message[0] == 2);
    if (message[1] != "$/item") continue;
    REQUIRE(message[2][0] == id);
    return message[2][1];
  }
}

struct rest {
  std::vector<json> items;
  json answer;
};
// All that comes of call `id` from here on.
rest read_rest(raw_client& client, std::uint32_t id) {
  rest out;
  for (;;) {
    const json message = client.read().value();
    if (message[0] == 1 && message[1] == id) {
      out.answer = message;
      return out;
    }
    if (message[1] == "$/item" && message[2][0] == id) out.items.push_back(message[2][1]);
  }
}

// The plugin serves again, with the worker that it had.
void check_unharmed(const running_daemon& daemon) {
  CHECK(daemon.call({"streaming.echo", "7"}).out == "7\n");
  CHECK(daemon.plugin("streaming")["restarts"] == 0);
}

}  // namespace

TEST_CASE("bulkhead call streams through the daemon as it does directly") {
  const running_daemon daemon(plugin_table("streaming"));
  CHECK(daemon.call({"streaming.count", "3"}).out == "0\n1\n2\n3\n");
  CHECK(daemon.run({"call", "streaming.sum"}, "1\n2\n39\n").out == "42\n");
  CHECK(daemon.run({"call", "streaming.scale", "2"}, "1\n2\n").out == "2\n4\n");
  CHECK(daemon.run({"call", "streaming.first", "2"}, "a\nb\nc\n").out == "[\"a\",\"b\"]\n");

  std::istringstream objects(daemon.call({"streaming.count", "1", "--json"}).out);
  std::string item, last;
  std::getline(objects, item);
  std::getline(objects, last);
  CHECK(json::parse(item)["item"] == 0);
  CHECK(json::parse(last)["outcome"] == "ok");

  const finished failed = daemon.call({"streaming.fail_after", "2"});
  CHECK(failed.out == "0\n1\n");
  CHECK(failed.status == 1);
  CHECK_THAT(failed.err, Contains("that was all"));
  const finished wrong = daemon.run({"call", "streaming.sum"}, "1\ntwo\n");
  CHECK(wrong.status == 2);
  CHECK_THAT(wrong.err, Contains("line 2 of the standard input"));
  CHECK(daemon.call({"streaming.die_after", "2"}).status == 13);
  CHECK(daemon.call({"streaming.count", "1", "--out", "-"}).status == 2);
}

TEST_CASE("streams of many windows pass through the daemon") {
  const running_daemon daemon(plugin_table("streaming"));
  std::string lines;
  for (char each = 'a'; each <= 'z'; ++each) lines += std::string(200'000, each) + "\n";
  const finished done = daemon.run({"call", "streaming.first", "26", "--json"}, lines);
  REQUIRE(done.status == 0);
  const json taken = json::parse(done.out)["result"];
  REQUIRE(taken.size() == 26);
  for (std::size_t i = 0; i < 26; ++i)
    CHECK((taken[i] == std::string(200'000, static_cast<char>('a' + static_cast<char>(i)))));

  raw_client client(daemon.socket());
  client.hello();
  open(client, 1, 250'000, "streaming.flood", 100'000);
  for (int i = 0; i < 20; ++i) {
    next_item(client, 1);
    client.notify("$/more", 1, 100'005);  // what it has with its head
  }
  client.notify("$/cancel", 1);
  CHECK(read_rest(client, 1).items.size() <= 2);
}

TEST_CASE("through the daemon a plugin sends as much as the client has given credit for") {
  const running_daemon daemon(plugin_table("streaming"));
  raw_client client(daemon.socket());
  client.hello();
  open(client, 1, 3, "streaming.count", 100);
  for (int i = 0; i < 3; ++i) CHECK(next_item(client, 1) == i);
  client.notify("$/more", 1, 2);
  for (int i = 3; i < 5; ++i) CHECK(next_item(client, 1) == i);
  client.notify("$/cancel", 1);
  const rest left = read_rest(client, 1);
  CHECK(left.items.empty());
  CHECK(left.answer[2]["code"] == "cancelled");
  check_unharmed(daemon);
}

TEST_CASE("a client sends arguments one by one when the plugin gives it credit") {
  const running_daemon daemon(plugin_table("streaming"));
  raw_client client(daemon.socket());
  client.hello();
  open(client, 1, 1000, "streaming.scale", 10);
  const json credit = client.read().value();
  CHECK(credit == json::array({2, "$/more", json::array({1, mebibyte})}));
  client.notify("$/item", 1, 1);
  CHECK(next_item(client, 1) == 10);
  client.notify("$/item", 1, 2);
  CHECK(next_item(client, 1) == 20);
  client.notify("$/end", 1);
  const rest left = read_rest(client, 1);
  CHECK(left.items.empty());
  CHECK(left.answer[2].is_null());

  // What comes late is for nobody, also when it is nonsense.
  client.notify("$/item", 1, 3);
  client.notify("$/end", 1);
  client.notify("$/more", 1, 2 * mebibyte);
  // A method that does not stream, none at all, and the daemon's own.
  open(client, 2, 1000, "streaming.echo", 5);
  CHECK(client.answer(2)[3] == 5);
  open(client, 3, 1000, "nobody.echo", 5);
  CHECK(client.answer(3)[2]["code"] == "rejected");
  open(client, 4, 1000, "bulkhead.status");
  CHECK(client.answer(4)[3]["pid"] == daemon.pid());
}

TEST_CASE("a stream ends in the plugin when its client closes the connection or is interrupted in the middle") {
  const running_daemon daemon(plugin_table("streaming"));
  {
    raw_client client(daemon.socket());
    client.hello();
    open(client, 1, 1000, "streaming.flood", 10);
    next_item(client, 1);
  }
  check_unharmed(daemon);
  {
    raw_client client(daemon.socket());
    client.hello();
    open(client, 1, 1000, "streaming.scale", 10);
    client.read();  // credit
    client.notify("$/item", 1, 1);
    CHECK(next_item(client, 1) == 10);
  }
  check_unharmed(daemon);
  program running({"bulkhead", "call", "--socket", daemon.socket(), "streaming.flood", "10000"});
  running.wait_for("\n");
  running.signal(SIGINT);
  CHECK(running.wait().status == 11);
  check_unharmed(daemon);
}

TEST_CASE("a client that breaks the rules of streams loses its own connection") {
  const running_daemon daemon(plugin_table("streaming") + plugin_table("echo"));
  raw_client good(daemon.socket());
  good.hello();
  const auto attack = [&](const char* what, const std::function<void(raw_client&)>& break_rule) {
    INFO(what);
    raw_client bad(daemon.socket());
    bad.hello();
    open(bad, 1, 100, "streaming.flood", 10);  // takes no items, and goes on until it is cancelled
    break_rule(bad);
    CHECK(bad.closed());
    good.request(1, "echo.add", 1, 2);
    CHECK(good.answer(1)[3] == 3);
  };
  attack("an item without credit", [](raw_client& bad) { bad.notify("$/item", 1, 5); });
  attack("credit beyond its window", [](raw_client& bad) { bad.notify("$/more", 1, 1000); });
  attack("a second end", [](raw_client& bad) {
    bad.notify("$/end", 1);
    bad.notify("$/end", 1);
  });
  attack("an item after the end", [](raw_client& bad) {
    bad.notify("$/end", 1);
    bad.notify("$/item", 1, 5);
  });
  attack("an item that is none", [](raw_client& bad) { bad.notify("$/item", 1); });
  attack("credit that is no number", [](raw_client& bad) { bad.notify("$/more", 1, "much"); });
  attack("no window", [](raw_client& bad) { bad.notify("$/open", 2, 0); });
  attack("too large a window", [](raw_client& bad) { bad.notify("$/open", 2, 16 * mebibyte + 1); });
  CHECK_THAT(daemon.run({"logs"}).out, Contains("more items than it had credit for"));
  CHECK(daemon.call({"streaming.echo", "7"}).out == "7\n");
}

TEST_CASE("the windows of a client's streams count among the bytes that it may have open") {
  const running_daemon daemon("[clients]\ncall_bytes = \"1 MiB\"\n" + plugin_table("streaming"));
  raw_client client(daemon.socket());
  client.hello();
  open(client, 1, 2 * mebibyte, "streaming.count", 1);
  CHECK(client.answer(1)[2]["code"] == "overloaded");
  open(client, 2, mebibyte / 2, "streaming.count", 1);
  CHECK(client.answer(2)[3] == 1);
}
