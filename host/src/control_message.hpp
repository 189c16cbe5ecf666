// How the host asks its servers (of workers, of processes) for something, and how they are asked: a head of fixed size and
// strings with their zeros, in one message over a Unix socket that keeps messages apart, perhaps with descriptors.
#pragma once

#include <bulkhead/ipc/attachment.hpp>

#include <array>
#include <cerrno>
#include <span>
#include <string>

#include <sys/socket.h>

namespace bulkhead::control_message {

// As sendmsg(): negative with errno set when it could not be sent.
template <std::size_t Most, class Head>
ssize_t send(int socket, const Head& head, std::span<const char> rest, std::span<const int> fds) {
  std::array<iovec, 2> parts = {iovec{const_cast<Head*>(&head), sizeof head},
                                iovec{const_cast<char*>(rest.data()), rest.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  attachment<Most> attached;
  attached.add_to(message, fds);
  ssize_t n = 0;
  do n = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n;
}

struct received {
  bool whole = false;      // head and all
  std::size_t rest = 0;    // bytes that came after the head
  bool cut_short = false;  // there was no free descriptor for one of those that came along
};

// Waits unless `flags` say otherwise. What has come of descriptors is in `fds`, whatever else is wrong.
template <std::size_t Most, class Head>
received receive(int socket, Head& head, std::span<char> rest, std::vector<unique_fd>& fds, int flags = 0) {
  std::array<iovec, 2> parts = {iovec{&head, sizeof head}, iovec{rest.data(), rest.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  attachment<Most> attached;
  attached.make_room(message);
  ssize_t n = 0;
  do n = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return {};
  take_descriptors(message, fds);
  if (n < static_cast<ssize_t>(sizeof head)) return {};
  return {true, static_cast<std::size_t>(n) - sizeof head, (message.msg_flags & MSG_CTRUNC) != 0};
}

}  // namespace bulkhead::control_message
