// What a worker of Node's cluster asks to listen on, and the socket that it gets.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <nlohmann/json.hpp>

#include <string>

namespace bulkhead::node {

// Of a message queryServer, which is the worker's word.
struct listening_request {
  std::string key;      // equal for all workers that mean the same socket
  std::string address;  // "": all
  std::uint16_t port = 0;
  bool datagrams = false, six_only = false, possible = true;
  int family = 0;  // AF_INET, AF_INET6; 0: the one, or both
  int backlog = 0;
  static listening_request from(const nlohmann::json& message);
};

class listener {
 public:
  // 0, or the errno that says why not. Addresses are numeric; paths and descriptors of others are EACCES.
  int open(const listening_request& wanted);
  int fd() const { return fd_.get(); }
  unique_fd duplicate() const;
  // {"address":…,"family":…,"port":…}, as Node has it.
  nlohmann::json name() const;

 private:
  int bind_to(int family, const std::string& address, const listening_request& wanted);
  unique_fd fd_;
};

}  // namespace bulkhead::node
