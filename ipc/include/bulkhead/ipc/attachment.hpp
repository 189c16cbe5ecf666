// Descriptors that go along with a message over a Unix socket (SCM_RIGHTS), on both sides.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include <sys/socket.h>

namespace bulkhead {

// Room for the descriptors of one message: `Most` of them at most.
template <std::size_t Most>
class attachment {
 public:
  // Adds them, borrowed until the message is sent; the message then refers to this object. None: leaves it as it is.
  void add_to(msghdr& message, std::span<const int> fds) noexcept {
    if (fds.empty()) return;
    make_room(message, fds.size());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  // Lets the message receive as many, and not one more: the kernel fills what CMSG_SPACE() adds for alignment, too. The
  // message then refers to this object. What has come is got by take_descriptors().
  void make_room(msghdr& message, std::size_t count = Most) noexcept {
    message.msg_control = space_;
    message.msg_controllen = CMSG_LEN(sizeof(int) * count);
  }

 private:
  alignas(cmsghdr) char space_[CMSG_SPACE(sizeof(int) * Most)]{};
};

// Calls `each` with every descriptor that has come with a message which recvmsg() has received, as a unique_fd.
template <class F>
void take_descriptors(msghdr& message, F&& each) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      each(unique_fd(fd));
    }
  }
}
// The same, into a vector.
inline void take_descriptors(msghdr& message, std::vector<unique_fd>& into) {
  take_descriptors(message, [&](unique_fd fd) { into.push_back(std::move(fd)); });
}

}  // namespace bulkhead
