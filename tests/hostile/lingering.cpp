// A worker that is granted handles and TCP sends a socket whose last close blocks (SO_LINGER, and nobody reads), with what
// the host drops: an answer that comes too late, an event and a request that nobody takes it from.
#include "fixture.hpp"

#include <boost/asio/use_future.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace bulkhead::testing {

TEST_CASE("a descriptor whose last close blocks stalls no other plugin") {
  const unique_fd never_reads(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof in;
  checked(::bind(never_reads.get(), reinterpret_cast<sockaddr*>(&in), sizeof in), "bind");
  checked(::listen(never_reads.get(), 8), "listen");
  checked(::getsockname(never_reads.get(), reinterpret_cast<sockaddr*>(&in), &size), "getsockname");

  host host;
  auto neighbour = host.load(plugin_path("echo"));
  load_options options;
  options.policy = policy::program().allow_handles().allow_connect(ntohs(in.sin_port));
  options.limits.frame_time = 20s;
  options.functions.add("twice", [](int x) { return 2 * x; });
  const auto [first, rest] = GENERATE(table<std::string, std::string>(
      {{"94", "x:01@c0d40100"}, {"93", "x:02a7'$/event'92a1'e'd40100"}, {"94", "x:0001a5'twice'91d40100"}}));
  auto peer = host.launch({BULKHEAD_TEST_PROGRAMS "/hostile_peer", "hello", "ready", "call",
                           "linger:" + std::to_string(ntohs(in.sin_port)) + "," + first, "cancelled", rest, "hold"},
                          options);
  peer.on_event([](const auto&, const auto&) {});
  auto late = peer.async_call<bool>("attack", std::tuple{}, boost::asio::use_future, {.deadline = 500ms});
  CHECK_THROWS(late.get());
  std::chrono::nanoseconds longest{};
  const auto end = std::chrono::steady_clock::now() + 1s;
  while (std::chrono::steady_clock::now() < end) {
    const auto begin = std::chrono::steady_clock::now();
    CHECK(neighbour.async_call<int>("add", std::tuple{20, 22}, boost::asio::use_future).get() == 42);
    longest = std::max<std::chrono::nanoseconds>(longest, std::chrono::steady_clock::now() - begin);
  }
  CHECK(longest < 4s);
}

}  // namespace bulkhead::testing
