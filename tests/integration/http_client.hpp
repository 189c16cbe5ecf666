// A client of a web server, over a real socket, blocking with a limit: for tests that must know what becomes of a
// connection, byte by byte.
#pragma once

#include "fixture.hpp"

#include <optional>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace bulkhead::testing {

struct http_answer {
  int status = 0;
  std::string headers, body;
};

class http_client {
 public:
  explicit http_client(std::uint16_t port) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(port);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect(reinterpret_cast<const sockaddr*>(&where), sizeof where);
  }
  // Of any family.
  http_client(const sockaddr* where, socklen_t size) { connect(where, size); }

  int fd() const { return fd_.get(); }
  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  void half_close() { ::shutdown(fd_.get(), SHUT_WR); }

  // Nothing when the connection ended, or was reset, before a whole answer had come.
  std::optional<http_answer> receive(bool head = false) {
    http_answer out;
    std::size_t end;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return std::nullopt;
    out.headers = in_.substr(0, end + 2);
    in_.erase(0, end + 4);
    out.status = std::stoi(out.headers.substr(9, 3));
    std::size_t length = 0;
    if (const auto at = out.headers.find("Content-Length: "); at != std::string::npos && !head)
      length = std::stoul(out.headers.substr(at + 16));
    auto came = body(length);
    if (!came) return std::nullopt;
    out.body = std::move(*came);
    return out;
  }
  // The next so many bytes: of an answer whose headers were received alone, say.
  std::optional<std::string> body(std::size_t length) {
    while (in_.size() < length)
      if (!more()) return std::nullopt;
    std::string out = in_.substr(0, length);
    in_.erase(0, length);
    return out;
  }
  std::optional<http_answer> get(const std::string& target, const std::string& more_headers = "") {
    if (!send("GET " + target + " HTTP/1.1\r\nHost: test\r\n" + more_headers + "\r\n")) return std::nullopt;
    return receive();
  }
  // Whether the other side has ended it, in good order.
  bool ended() {
    char byte;
    return in_.empty() && ::recv(fd_.get(), &byte, 1, 0) == 0;
  }

 private:
  void connect(const sockaddr* where, socklen_t size) {
    fd_.reset(checked(::socket(where->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    const timeval limit{20, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    checked(::connect(fd_.get(), where, size), "connect");
  }
  bool more() {
    char chunk[16384];
    const ssize_t n = ::recv(fd_.get(), chunk, sizeof chunk, 0);
    if (n > 0) in_.append(chunk, static_cast<std::size_t>(n));
    return n > 0;
  }

  unique_fd fd_;
  std::string in_;
};

}  // namespace bulkhead::testing
