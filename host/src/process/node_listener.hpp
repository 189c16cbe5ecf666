// What a worker of Node's cluster asks to listen on, and the socket that it gets.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <nlohmann/json.hpp>

#include <memory>
#include <string>

#include <sys/types.h>

namespace bulkhead::node {

// Of a message queryServer, which is the worker's word.
struct listening_request {
  std::string key;      // equal for all workers that mean the same socket
  std::string address;  // "": all; or the path of a Unix socket
  std::uint16_t port = 0;
  bool datagrams = false, six_only = false, by_path = false, possible = true;
  int family = 0;  // AF_INET, AF_INET6; 0: the one, or both
  int backlog = 0;
  mode_t mode = 0;  // permissions that a path's file has beyond the usual
  static listening_request from(const nlohmann::json& message);
};

class listener {
 public:
  // 0, or the errno that says why not. Addresses are numeric, paths absolute; descriptors are EACCES. A path that is in
  // use is EADDRINUSE, but if it is a socket of this user's that nobody listens on any more, it is replaced.
  int open(const listening_request& wanted);
  int fd() const { return fd_.get(); }
  unique_fd duplicate() const;
  // {"address":…,"family":…,"port":…}, as Node has it; not for paths.
  nlohmann::json name() const;

 private:
  int bind_to(int family, const std::string& address, const listening_request& wanted);
  int bind_to_path(const listening_request& wanted);
  unique_fd fd_;
  std::shared_ptr<void> file_;  // of a path: removed before the socket is closed
};

}  // namespace bulkhead::node
