// ZeroMQ: a pair of DEALER sockets over a Unix socket. REQ and REP would cost a frame more and allow no second call.
#include "peer.hpp"

#include <zmq.hpp>

#include <stdexcept>

namespace {

class zeromq_link final : public peer::link {
 public:
  zeromq_link() {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.connect("ipc://@" + server_.address());
  }

  peer::bytes_view call(peer::bytes_view payload) override {
    send(payload);
    receive();
    return {static_cast<const std::uint8_t*>(answer_.data()), answer_.size()};
  }

  bool many(peer::bytes_view payload, std::size_t count, std::size_t outstanding) override {
    for (std::size_t sent = 0, got = 0; got < count; ++got) {
      for (; sent < count && sent - got < outstanding; ++sent) send(payload);
      receive();
      if (answer_.size() != payload.size()) throw std::runtime_error("the answer is not what was sent");
    }
    return true;
  }

  pid_t worker() const override { return server_.pid(); }

 private:
  void send(peer::bytes_view payload) {
    if (!socket_.send(zmq::const_buffer(payload.data(), payload.size()), zmq::send_flags::none))
      throw std::runtime_error("send");
  }
  void receive() {
    if (!socket_.recv(answer_)) throw std::runtime_error("recv");
  }

  peer::server server_;
  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::dealer};
  zmq::message_t answer_;
};

void serve(const std::string& address) {
  zmq::context_t context{1};
  zmq::socket_t socket{context, zmq::socket_type::dealer};
  socket.bind("ipc://@" + address);
  peer::ready_to_serve();
  for (zmq::message_t message; socket.recv(message);) socket.send(message, zmq::send_flags::none);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string address = peer::address_to_serve(argc, argv);
  if (!address.empty()) serve(address);
  const auto [major, minor, patch] = zmq::version();
  return peer::obey({.name = "ZeroMQ",
                     .version = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch),
                     .connect = [](std::size_t) { return std::make_unique<zeromq_link>(); }});
}
