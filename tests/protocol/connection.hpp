// A channel with a raw socket at its other end, where the test plays the peer byte by byte.
#pragma once

#include "page.hpp"
#include <bulkhead/ipc/channel.hpp>

#include <catch2/catch.hpp>

#include <poll.h>
#include <sys/socket.h>

namespace bulkhead::testing {

using namespace std::chrono_literals;

class recorder final : public ipc::channel::receiver {
 public:
  struct seen {
    ipc::message_kind kind;
    std::string method;
    bytes_t params;
    std::vector<unique_fd> handles;
  };
  void on_request(const ipc::message& message, std::vector<unique_fd> handles) override {
    add(message, std::move(handles));
  }
  void on_notification(const ipc::message& message, std::vector<unique_fd> handles) override {
    add(message, std::move(handles));
  }
  void on_closed(const std::string& why) override {
    ++closed;
    violation = why;
  }

  std::vector<seen> messages;
  int closed = 0;
  std::string violation;

 private:
  void add(const ipc::message& message, std::vector<unique_fd> handles) {
    messages.push_back({message.kind,
                        std::string(message.method),
                        {message.params.begin(), message.params.end()},
                        std::move(handles)});
  }
};

struct connection {
  recorder seen;
  unique_fd peer;
  std::optional<ipc::channel> channel;

  explicit connection(const ipc::limits& limits = {}, unsigned receive_handles = 0,
                      ipc::channel::wakeups* loop = nullptr) {
    auto [ours, theirs] = ipc::socket_transport::make_pair();
    peer = std::move(theirs);
    channel.emplace(std::make_unique<ipc::socket_transport>(std::move(ours), receive_handles,
                                                            loop ? ipc::read_patience : std::chrono::milliseconds(0)),
                    limits, seen, loop);
    if (loop) channel->open();
  }

  void say(ipc::byte_span bytes, const std::vector<int>& handles = {}) {
    ipc::socket_transport writer{unique_fd(::dup(peer.get()))};
    REQUIRE(writer.write(bytes, {}, handles).bytes == bytes.size());
  }
  // The next whole message that the channel has sent.
  bytes_t hear() {
    bytes_t frame;
    ipc::scanner scan;
    for (;;) {
      std::uint8_t byte = 0;
      REQUIRE(::recv(peer.get(), &byte, 1, 0) == 1);
      frame.push_back(byte);
      std::size_t used = 0;
      if (scan.feed({&byte, 1}, used) == ipc::scanner::status::complete) return frame;
    }
  }
  std::uint32_t hear_request() {
    const bytes_t frame = hear();
    return ipc::parse_message(frame)->id;
  }
  // Reads until the channel is closed.
  void until_closed() {
    channel->run([] { return false; }, ipc::clock::now() + 10s);
    REQUIRE(channel->closed());
  }
};

inline bytes_t value(auto thing) {
  ipc::buffer out;
  ipc::packer(out).pack(thing);
  return out.take();
}

inline bytes_t request(const std::string& method, const bytes_t& params = {0x90}) {
  ipc::buffer out = ipc::begin_request(method);
  out.append(params);
  return out.take();
}

inline bytes_t answer(std::uint32_t id, auto result) { return ipc::make_response(id, value(result)).take(); }

}  // namespace bulkhead::testing
