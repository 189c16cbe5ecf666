// Descriptors that go along with a message over a Unix socket (SCM_RIGHTS): the sender's side.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>

#include <sys/socket.h>

namespace bulkhead {

// Room for the descriptors of one message: `Most` of them at most.
template <std::size_t Most>
class attachment {
 public:
  // Adds them, borrowed until the message is sent; the message then refers to this object. None: leaves it as it is.
  void add_to(msghdr& message, std::span<const int> fds) noexcept {
    if (fds.empty()) return;
    message.msg_control = space_;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }

 private:
  alignas(cmsghdr) char space_[CMSG_SPACE(sizeof(int) * Most)]{};
};

}  // namespace bulkhead
