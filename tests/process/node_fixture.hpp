// What the tests of Node's channel share: what a child says, real Node and peers that write what they like.
#pragma once

#include "../integration/http_client.hpp"
#include "process_fixture.hpp"
#include <bulkhead/node_cluster.hpp>

namespace bulkhead::testing {

inline const std::string scripts = BULKHEAD_TEST_SCRIPTS;

struct received {
  nlohmann::json message;
  std::shared_ptr<passed_handle> handle;
};

// All that a child says. What comes when nobody looks any more has somewhere to go.
struct conversation {
  struct boxes {
    mailbox<std::string> events;
    mailbox<received> messages;
  };
  const std::shared_ptr<boxes> both = std::make_shared<boxes>();
  mailbox<std::string>& events = both->events;
  mailbox<received>& messages = both->messages;
  process_options options() const {
    process_options out;
    const auto put = [to = both](const std::string& event) { to->events.put(event); };
    out.events = {
        .on_spawn = [put] { put("spawn"); },
        .on_message =
            [to = both](const nlohmann::json& message, passed_handle handle) {
              to->messages.put({message, handle ? std::make_shared<passed_handle>(std::move(handle)) : nullptr});
            },
        .on_disconnect = [put] { put("disconnect"); },
        .on_exit = [put](const exit_status& status) { put("exit " + std::to_string(status.code)); },
        .on_close = [put](const exit_status&) { put("close"); },
        .on_error = [put](boost::system::error_code, const std::string& text) { put("error " + text); }};
    return out;
  }
  nlohmann::json message(std::size_t index) {
    REQUIRE(messages.wait_for(index + 1));
    return messages.values()[index].message;
  }
};

inline sockaddr_in any_port() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

inline std::uint16_t port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

inline unique_fd listener() {
  unique_fd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto address = any_port();
  REQUIRE(::bind(made.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(made.get(), 8) == 0);
  return made;
}

inline unique_fd connected_to(std::uint16_t port) {
  unique_fd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto address = any_port();
  address.sin_port = htons(port);
  REQUIRE(::connect(made.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return made;
}

inline std::string all_of(int fd) {
  std::string out;
  char some[512];
  for (ssize_t n = 0; (n = ::recv(fd, some, sizeof some, 0)) > 0;) out.append(some, static_cast<std::size_t>(n));
  return out;
}

// Node with a channel, which runs a script of a few words.
inline child node_with(launcher& launch, process_options options, const std::string& script) {
  options.channel = channel_kind::node;
  if (options.streams.empty()) options.streams = {stdio::pipe(), stdio::pipe(), stdio::inherit()};
  return launch.spawn("node", {"-e", script}, options);
}

// Both ends of a Unix socket pair.
inline std::pair<unique_fd, unique_fd> socket_pair(int type = SOCK_STREAM) {
  int both[2];
  REQUIRE(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, both) == 0);
  return {unique_fd(both[0]), unique_fd(both[1])};
}

// A peer that writes what it likes: python with the channel as `c`.
inline child raw_peer(launcher& launch, conversation& with, const std::string& script) {
  process_options options = with.options();
  options.channel = channel_kind::node;
  options.streams = {stdio::null(), stdio::pipe(), stdio::inherit()};
  return launch.spawn("python3",
                      {"-c",
                       "import socket, os, json, array\n"
                       "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                       "f = c.makefile('rb')\n" +
                           script},
                      options);
}

inline const std::string cluster_script = scripts + "/cluster.js";

// A cluster of cluster.js, and what its workers do.
struct watched_cluster {
  struct boxes {
    mailbox<std::pair<unsigned, std::uint16_t>> listening;
    mailbox<std::string> addresses;  // of those that listen
    mailbox<std::pair<unsigned, nlohmann::json>> messages;
    mailbox<std::pair<unsigned, int>> ended;
    mailbox<std::string> gave_up;
  };
  const std::shared_ptr<boxes> seen = std::make_shared<boxes>();

  node_cluster_options options(unsigned workers, schedule how, const std::string& what = "http") const {
    node_cluster_options out{.workers = workers, .schedule = how, .arguments = {what, "0", "127.0.0.1"}};
    out.on_listening = [to = seen](unsigned worker, const std::string& address, std::uint16_t port) {
      to->addresses.put(address);
      to->listening.put({worker, port});
    };
    out.on_message = [to = seen](unsigned worker, const nlohmann::json& message, passed_handle) {
      to->messages.put({worker, message});
    };
    out.on_exit = [to = seen](unsigned worker, const exit_status& status) { to->ended.put({worker, status.code}); };
    out.on_gave_up = [to = seen](const std::string& why) { to->gave_up.put(why); };
    return out;
  }
  std::uint16_t port(std::size_t workers) const {
    REQUIRE(seen->listening.wait_for(workers));
    return seen->listening.values().front().second;
  }
  // Of the first worker that says something: it could not listen.
  nlohmann::json refusal() const {
    REQUIRE(seen->messages.wait_for(1));
    return seen->messages.values()[0].second;
  }
};

inline std::string who_answers(std::uint16_t port) {
  const auto answer = http_client(port).get("/", "Connection: close\r\n");
  return answer ? answer->body : "nobody";
}

}  // namespace bulkhead::testing
