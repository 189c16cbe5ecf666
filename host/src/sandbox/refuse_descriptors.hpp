// A socket that takes no descriptors: the peer that sends one gets EPERM (Linux 6.16 on). Without it, receiving may stall
// (a descriptor that lingers when it is closed), though nothing is kept.
#pragma once

#include <sys/socket.h>

namespace bulkhead::sandbox {

// False where the kernel has no such option.
inline bool refuse_descriptors(int socket) {
  constexpr int so_passrights = 83;  // asm-generic/socket.h of Linux 6.16
  const int no = 0;
  return ::setsockopt(socket, SOL_SOCKET, so_passrights, &no, sizeof no) == 0;
}

}  // namespace bulkhead::sandbox
