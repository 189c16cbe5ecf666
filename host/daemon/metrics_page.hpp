// The page that Prometheus scrapes: GET /metrics over HTTP, on a port of the loopback address or on a Unix socket (0600).
// Made by hand from Boost.Beast because prometheus-cpp's own server can't listen on a Unix socket with a mode, and brings
// threads of its own.
#pragma once

#include <boost/asio/io_context.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>  // before Asio: see bulkhead/plugin.hpp

namespace bulkhead::daemon {

class metrics_page {
 public:
  // `address`: "127.0.0.1:PORT" or "unix:/path". `text` makes the page, on a thread of `io`. Throws std::runtime_error.
  metrics_page(boost::asio::io_context& io, const std::string& address, std::function<std::string()> text);
  // Removes the Unix socket, if it was one.
  ~metrics_page();
  // Where it is: with the port that the system chose, if it was asked to.
  const std::string& address() const { return address_; }

  class door;  // to a kind of socket

 private:
  std::string address_;
  std::shared_ptr<door> door_;
};

}  // namespace bulkhead::daemon
