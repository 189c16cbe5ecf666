// Clients of a daemon, hostile ones among them: whoever breaks the protocol or does not read loses its own connection,
// and nobody else notices.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <csignal>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

std::string hello_bytes() {
  // As in docs/protocol.md.
  const std::string options = std::string("\x91\x81\xa8") + "protocol" + "\x01";
  return std::string("\x94\x00\x00\xa7", 4) + "$/hello" + options;
}

}  // namespace

TEST_CASE("a client speaks the host's side of the protocol") {
  const running_daemon daemon(plugin_table("echo") + plugin_table("chaos"));
  raw_client client(daemon.socket());
  client.hello(3);
  client.request(1, "$/ping");
  CHECK(client.answer(1)[2].is_null());
  client.request(2, "echo.add", 2, 3);
  CHECK(client.answer(2)[3] == 5);
  client.request(3, "$/later");
  CHECK(client.answer(3)[2]["code"] == "rejected");
  client.request(4, "$/describe");
  CHECK(client.answer(4)[3]["methods"][0]["name"].get<std::string>().starts_with("chaos."));

  client.notify("$/deadline", 5, 50);
  client.request(5, "chaos.sleep_ms", 60'000);
  CHECK(client.answer(5)[2]["code"] == "timeout");
  client.request(6, "chaos.sleep_ms", 60'000);
  client.request(7, "$/drain");
  client.notify("$/cancel", 6);
  CHECK(client.answer(6)[2]["code"] == "cancelled");
  CHECK(client.answer(7)[2].is_null());

  // Progress comes for as long as there is credit.
  client.request(8, "chaos.progress", 5000);
  unsigned seen = 0;
  for (;;) {
    const json message = client.read().value();
    if (message[0] == 1) break;
    CHECK(message[1] == "$/progress");
    CHECK(message[2][0] == 8);
    ++seen;
  }
  CHECK(seen == 3);

  for (const char* unknown : {"nobody.add", "add", ".add", "bulkhead.format"}) {
    client.request(9, unknown);
    CHECK(client.answer(9)[2]["code"] == "rejected");
  }
  client.notify("$/shutdown");
  CHECK(client.closed());
}

TEST_CASE("sticky calls with the same key wait for the same worker, however many others are idle") {
  const running_daemon daemon(plugin_table("chaos", "instances = 3\ndispatch = \"sticky\""));
  raw_client client(daemon.socket());
  client.hello();
  const auto call_two = [&](int ms, const auto& key, const auto& other) {
    client.notify("$/key", 1, key);
    client.request(1, "chaos.sleep_ms", ms);
    client.notify("$/key", 2, other);
    client.request(2, "chaos.echo", 7);
  };
  const auto next_answered = [&] { return client.read().value()[1].get<int>(); };
  call_two(100, "a customer", "a customer");
  CHECK(next_answered() == 1);
  CHECK(next_answered() == 2);
  call_two(100, 3, 3);
  CHECK(next_answered() == 1);
  CHECK(next_answered() == 2);
  call_two(60'000, 2, 3);  // two keys of different workers
  CHECK(next_answered() == 2);
  client.notify("$/cancel", 1);
  CHECK(client.answer(1)[2]["code"] == "cancelled");
  client.notify("$/key", 3, -1);
  CHECK(client.closed());
}

TEST_CASE("a client that breaks the protocol loses its own connection and no other") {
  const running_daemon daemon(plugin_table("echo") + plugin_table("chaos"));
  raw_client good(daemon.socket());
  good.hello();
  const std::string hello = hello_bytes();
  const std::vector<std::string> attacks{
      "GET / HTTP/1.1\r\n\r\n",                                                             // garbage
      std::string(1'000'000, '\xff'),                                                       // more of it
      std::string("\x94\x00\x01\xa4", 4) + "ping\x90",                                      // a call before hello
      hello + std::string("\x94\x00\x01\xdb\xff\xff\xff\xff", 8),                           // a name of 4 GiB
      hello + std::string("\x94\x00\x01\xa8", 4) + "echo.add\xdd\xff\xff\xff\xff",          // 4 G arguments
      hello + std::string("\x94\x00\x01\xa9", 4) + "echo.echo" + std::string(100, '\x91'),  // too deep
      hello + std::string("\x94\x01\x01\xc0\xc0", 5),                                       // an answer to nothing
      hello + std::string("\x93\x02\xa8", 3) + "$/cancel\x90",                              // no id
      hello + std::string("\x94\x00\x01\xa9", 4) + "echo.echo\x91\xd4\x01" +
          std::string(1, '\0'),  // no such descriptor
      hello + hello,
      std::string("\x94\x00\x00\xa7", 4) + "$/hello\x91\x81\xa8protocol\x63",  // version 99
  };
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    INFO("attack " << i);
    raw_client bad(daemon.socket());
    bad.send(attacks[i]);
    if (i != 9) CHECK(bad.closed());  // a second hello is only an unknown request
    good.request(1, "echo.add", 1, 1);
    CHECK(good.answer(1)[3] == 2);
  }
  CHECK_THAT(daemon.run({"logs"}).out, Contains("lost its connection: bytes that do not begin"));

  raw_client twice(daemon.socket());
  twice.hello();
  twice.request(5, "chaos.sleep_ms", 60'000);
  twice.request(5, "chaos.sleep_ms", 60'000);
  CHECK(twice.closed());
  CHECK(daemon.call({"chaos.echo", "1"}).out == "1\n");  // the call that was open has been cancelled
}

TEST_CASE("half a message, and a client that says nothing, are waited for only so long") {
  const running_daemon daemon(plugin_table("echo"));
  raw_client half(daemon.socket()), silent(daemon.socket());
  half.hello();
  half.send(std::string("\x94\x00\x01", 3));
  CHECK(half.closed());
  CHECK(silent.closed());
  CHECK(daemon.call({"echo.add", "1", "2"}).out == "3\n");
}

TEST_CASE("a client that does not read its answers loses its connection, and others are served meanwhile") {
  const running_daemon daemon("[clients]\nqueued_bytes = \"1 MiB\"\n" + plugin_table("echo"));
  raw_client deaf(daemon.socket()), good(daemon.socket());
  deaf.hello();
  good.hello();
  const std::string much(100'000, 'x');
  for (std::uint32_t i = 1; i <= 60; ++i) deaf.request(i, "echo.echo", much);
  for (std::uint32_t i = 1; i <= 20; ++i) {
    good.request(i, "echo.add", 1, 1);
    CHECK(good.answer(i)[3] == 2);
  }
  CHECK(deaf.closed());
  CHECK_THAT(daemon.run({"logs"}).out, Contains("it does not read its answers"));
}

TEST_CASE("what one client may have open is bounded, and how many clients there are") {
  const running_daemon daemon("[clients]\ncalls = 2\nconnections = 3\ncall_bytes = \"1 MiB\"\nframe = \"2 MiB\"\n" +
                              plugin_table("echo") + plugin_table("chaos", "instances = 2"));
  raw_client client(daemon.socket());
  client.hello();
  client.request(1, "chaos.sleep_ms", 60'000);
  client.request(2, "chaos.sleep_ms", 60'000);
  client.request(3, "echo.add", 1, 1);
  CHECK(client.answer(3)[2]["code"] == "overloaded");
  client.notify("$/cancel", 1);
  CHECK(client.answer(1)[2]["code"] == "cancelled");
  client.request(4, "echo.echo", std::string(1'500'000, 'x'));
  CHECK(client.answer(4)[2]["code"] == "overloaded");
  client.request(5, "echo.add", 1, 1);
  CHECK(client.answer(5)[3] == 2);

  raw_client second(daemon.socket()), third(daemon.socket());
  second.hello();
  third.hello();
  raw_client fourth(daemon.socket());
  CHECK(fourth.closed());
  second.request(1, "echo.echo", std::string(3'000'000, 'x'));  // larger than a message may be
  CHECK(second.closed());
}

TEST_CASE("the socket is for the daemon's user, and those that are listed") {
  {
    const running_daemon daemon(plugin_table("echo"));
    struct stat found {};
    REQUIRE(::stat(daemon.socket().c_str(), &found) == 0);
    CHECK((found.st_mode & 07777) == 0600);
  }
  if (::geteuid() != 0) {
    WARN("only root can try other users");
    return;
  }
  const running_daemon daemon("allow_users = [1234]\n" + plugin_table("echo"));
  std::filesystem::permissions(daemon.folder().path, std::filesystem::perms::all);
  const auto as = [&](unsigned user, std::vector<std::string> words) {
    words.insert(words.begin(),
                 {"/usr/bin/setpriv", "--reuid=" + std::to_string(user), "--regid=" + std::to_string(user),
                  "--clear-groups", std::string(BULKHEAD_TEST_PROGRAMS) + "/bulkhead"});
    return run(std::move(words));
  };
  const finished stranger = as(4321, {"call", "--socket", daemon.socket(), "echo.add", "1", "2"});
  CHECK(stranger.status == 3);
  CHECK_THAT(stranger.err, Contains("user 4321 may not use this daemon (allow_users)"));
  CHECK(as(1234, {"call", "--socket", daemon.socket(), "echo.add", "1", "2"}).out == "3\n");
  CHECK(as(1234, {"ps", "--socket", daemon.socket()}).status == 0);
  CHECK(as(1234, {"stop", "--socket", daemon.socket()}).status == 17);  // control is not theirs
  CHECK(daemon.call({"echo.add", "1", "2"}).out == "3\n");
}
