// The fork server's side of its control channel: one request taken apart, one answer put together.
#pragma once

#include "fork_server/protocol.hpp"
#include <bulkhead/ipc/system.hpp>

#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace bulkhead::fork_server {

struct incoming {
  request head;
  std::vector<char> bytes;     // of the strings
  std::vector<char*> strings;  // among them
  std::vector<unique_fd> fds;

  // The next worker is a copy of this process, and this one's environment none of its business.
  ~incoming() { ::explicit_bzero(bytes.data(), bytes.size()); }

  const char* policy() const { return strings.front(); }
  std::span<char* const> arguments() const { return std::span(strings).subspan(1, head.arguments); }
  std::span<char* const> environment() const { return std::span(strings).subspan(1 + head.arguments); }
};

// Waits for one. False when the host is gone or makes no sense.
bool receive(int control, incoming& in);
// `pidfd` is attached unless it is -1; `text` is cut to what fits. False when the host is gone.
bool send(int control, answer& out, std::string& text, int pidfd);

}  // namespace bulkhead::fork_server
