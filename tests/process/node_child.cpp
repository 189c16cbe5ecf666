// A program that Node forks: echoes messages, serves one connection of a listener that it is passed, gives a socket back.
#include <bulkhead/node_channel.hpp>

#include <boost/asio/io_context.hpp>

#include <cstdio>
#include <cstdlib>

#include <sys/socket.h>

int main() {
  boost::asio::io_context io;
  std::shared_ptr<bulkhead::node_channel> channel;
  bulkhead::unique_fd kept;
  bulkhead::node_channel_options options;
  options.on_message = [&](const nlohmann::json& message, bulkhead::passed_handle handle) {
    if (handle.kind() == bulkhead::handle_kind::tcp_listener) {
      channel->send({{"listener", std::string(to_string(handle.kind()))}});
      int accepted = -1;
      while ((accepted = ::accept(handle.fd(), nullptr, nullptr)) < 0 && errno == EAGAIN) {
      }
      const bulkhead::unique_fd connection(accepted);
      ::send(connection.get(), "served by bulkhead", 18, MSG_NOSIGNAL);
      return;
    }
    if (message.is_object() && message.contains("give")) {
      int both[2];
      ::socketpair(AF_UNIX, SOCK_STREAM, 0, both);
      channel->send({{"gift", 1}}, bulkhead::passed_handle(bulkhead::unique_fd(both[0])));
      kept.reset(both[1]);
      return;
    }
    channel->send({{"echo", message}});
  };
  try {
    channel = bulkhead::node_channel::from_environment(io.get_executor(), options);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 64;
  }
  channel->send({{"hello", std::getenv("NODE_CHANNEL_FD") == nullptr}});
  io.run();
  return 5;
}
