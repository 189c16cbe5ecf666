// The fork server's side of its control channel: one request taken apart, one answer put together.
#pragma once

#include "fork_server/protocol.hpp"
#include <bulkhead/ipc/system.hpp>

#include <span>
#include <string>
#include <vector>

namespace bulkhead::fork_server {

struct incoming {
  request head;
  std::vector<std::string> strings;
  std::vector<unique_fd> fds;

  const std::string& policy() const { return strings.front(); }
  std::span<std::string> arguments() { return std::span(strings).subspan(1, head.arguments); }
  std::span<std::string> environment() { return std::span(strings).subspan(1 + head.arguments); }
};

// Waits for one. False when the host is gone or makes no sense.
bool receive(int control, incoming& in);
// `pidfd` is attached unless it is -1; `text` is cut to what fits. False when the host is gone.
bool send(int control, answer& out, std::string& text, int pidfd);

}  // namespace bulkhead::fork_server
