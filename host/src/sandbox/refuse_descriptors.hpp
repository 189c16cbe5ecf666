// A socket that takes no descriptors: the peer that sends one gets EPERM (Linux 6.16 on). Without it, receiving may stall
// (a descriptor that lingers when it is closed), though nothing is kept.
#pragma once

#include <bulkhead/policy.hpp>

#include <sys/socket.h>

namespace bulkhead::sandbox {

// False where the kernel has no such option.
inline bool refuse_descriptors(int socket) {
  constexpr int so_passrights = 83;  // asm-generic/socket.h of Linux 6.16
  const int no = 0;
  return ::setsockopt(socket, SOL_SOCKET, so_passrights, &no, sizeof no) == 0;
}

// The host's end of a channel as a layer, which it is unless it has to take descriptors.
inline sandbox_layer guard_channel(int socket, bool takes_descriptors) {
  if (takes_descriptors) return {"channel", false, "takes descriptors, as granted"};
  if (refuse_descriptors(socket)) return {"channel", true, "takes no descriptors"};
  return {"channel", false, "this kernel can't refuse descriptors (Linux 6.16 or later); those that come are closed"};
}

}  // namespace bulkhead::sandbox
