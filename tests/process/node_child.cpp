// A program that Node forks: echoes messages, serves one connection of a listener that it is passed, gives a socket and
// reads from its other end what is written to it, and holds sockets that it is passed until it is told to drop one.
#include <bulkhead/node_channel.hpp>

#include <boost/asio/io_context.hpp>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

int main() {
  const char* const number = std::getenv("NODE_CHANNEL_FD");
  const int channel_number = number ? std::atoi(number) : -1;
  boost::asio::io_context io;
  std::shared_ptr<bulkhead::node_channel> channel;
  bulkhead::unique_fd kept;
  std::vector<bulkhead::passed_handle> held;
  bulkhead::node_channel_options options;
  options.on_message = [&](const nlohmann::json& message, bulkhead::passed_handle handle) {
    if (handle.kind() == bulkhead::handle_kind::tcp_listener) {
      channel->send({{"listener", std::string(to_string(handle.kind()))}});
      pollfd ready{handle.fd(), POLLIN, 0};  // Node's sockets do not block
      ::poll(&ready, 1, -1);
      const bulkhead::unique_fd connection(::accept(handle.fd(), nullptr, nullptr));
      ::send(connection.get(), "served by bulkhead", 18, MSG_NOSIGNAL);
      return;
    }
    if (handle.kind() == bulkhead::handle_kind::tcp_socket || message == "drop") {
      if (handle) held.push_back(std::move(handle));
      else held.pop_back();
      channel->send({{"holds", held.size()}});
      return;
    }
    if (message.is_object() &&
        message.contains("descriptor")) {  // what it is, and what a child of this one's sees of it
      const std::string link = "/proc/self/fd/" + std::to_string(channel_number);
      char is[64]{};
      ::readlink(link.c_str(), is, sizeof is - 1);
      std::string sees;
      std::FILE* const grandchild = ::popen("ls -l /proc/self/fd; env", "r");
      for (char some[512]; std::fgets(some, sizeof some, grandchild);) sees += some;
      ::pclose(grandchild);
      channel->send(
          {{"inherited", sees.find(is) != std::string::npos || sees.find("NODE_CHANNEL") != std::string::npos},
           {"blocks", (::fcntl(channel_number, F_GETFL) & O_NONBLOCK) == 0}});
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
  io.run();  // until the parent disconnects
  // To end with something unread would reset the connection, and Node throws for that where nobody listens for errors.
  std::string text;
  char some[64];
  for (ssize_t n = 0; kept && (n = ::recv(kept.get(), some, sizeof some, 0)) > 0;)
    text.append(some, static_cast<std::size_t>(n));
  return text == "bye" ? 5 : 6;
}
