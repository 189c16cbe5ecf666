// What tests of policies need: the plugin "guest" under a policy, a file to be got at, a port to be connected to.
#pragma once

#include "../integration/fixture.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace bulkhead::testing {

class scratch {
 public:
  scratch() {
    if (!::mkdtemp(path_.data())) throw_errno("mkdtemp");
    ::chmod(path_.c_str(), 0777);
    std::ofstream(file()) << "content";
    ::chmod(file().c_str(), 0666);
  }
  ~scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string file() const { return path_ + "/file"; }

 private:
  std::string path_ = "/var/tmp/bulkhead-grants-XXXXXX";
};

struct listener {
  unique_fd socket{checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
  int port = 0;
  listener() {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof in;
    checked(::bind(socket.get(), reinterpret_cast<sockaddr*>(&in), sizeof in), "bind");
    checked(::listen(socket.get(), 8), "listen");
    checked(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&in), &size), "getsockname");
    port = ntohs(in.sin_port);
  }
};

inline plugin guest(host& host, policy rules) { return host.load(plugin_path("guest"), {.policy = std::move(rules)}); }

inline std::string error_of(const reply& result) { return result ? "" : result.message(); }

}  // namespace bulkhead::testing
