// See fork_requests.hpp.
#include "fork_requests.hpp"

#include <bulkhead/ipc/attachment.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <sys/socket.h>

namespace bulkhead::fork_server {

bool receive(int control, incoming& in) {
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int) * descriptors_limit)];
  std::vector<char> strings(strings_limit);
  iovec parts[2] = {{&in.head, sizeof in.head}, {strings.data(), strings.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  ssize_t n = 0;
  do n = ::recvmsg(control, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); n >= 0 && header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      in.fds.emplace_back(fd);
    }
  }
  const auto got = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  if (got < sizeof in.head || in.head.magic != magic || in.head.version != version ||
      got - sizeof in.head != in.head.strings_size)
    return false;
  const char* at = strings.data();
  const char* const end = at + in.head.strings_size;
  for (std::uint32_t i = 0; i < in.head.strings && at < end; ++i) {
    in.strings.emplace_back(at, ::strnlen(at, static_cast<std::size_t>(end - at)));
    at += in.strings.back().size() + 1;
  }
  return in.head.kind == request_kind::adopt || in.head.arguments + 1 <= in.strings.size();
}

bool send(int control, answer& out, std::string& text, int pidfd) {
  text.resize(std::min(text.size(), report_limit));
  out.text_size = static_cast<std::uint32_t>(text.size());
  iovec parts[2] = {{&out, sizeof out}, {text.data(), text.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  attachment<1> attached;
  if (pidfd >= 0) attached.add_to(message, {&pidfd, 1});
  return ::sendmsg(control, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof out + text.size());
}

}  // namespace bulkhead::fork_server
