// A file descriptor that is passed between processes, as an owned object that knows what it is.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/system.hpp>

#include <memory>
#include <string_view>

namespace BULKHEAD_PUBLIC bulkhead {

// What a descriptor is.
enum class handle_kind {
  none,           // there is no descriptor
  tcp_socket,     // connected, or to be
  tcp_listener,   // accepts TCP connections
  udp_socket,     // bound or not
  unix_socket,    // connected, or to be
  unix_listener,  // accepts connections of Unix sockets
  pipe,           // an end of a pipe, or a FIFO
  file,           // a regular file or a directory
  memfd,          // memory as a file without a name
  other,          // a device, an eventfd, …
};
// Its name.
std::string_view to_string(handle_kind kind);

// What the kernel says that it is.
handle_kind classify(int fd);

// Movable. One that came from another process may be in any state: expect a file that never gets ready, and a last close
// that takes as long as its sender likes (a socket with SO_LINGER).
class passed_handle {
 public:
  passed_handle() = default;
  // What was moved from is empty.
  passed_handle(passed_handle&& other) noexcept
      : fd_(std::move(other.fd_)),
        kind_(std::exchange(other.kind_, handle_kind::none)),
        lease_(std::move(other.lease_)) {}
  // Closes the descriptor that it was before.
  passed_handle& operator=(passed_handle&& other) noexcept {
    fd_ = std::move(other.fd_);
    kind_ = std::exchange(other.kind_, handle_kind::none);
    lease_ = std::move(other.lease_);
    return *this;
  }
  // Takes a descriptor over.
  explicit passed_handle(unique_fd fd) : fd_(std::move(fd)), kind_(classify(fd_.get())) {}
  // A duplicate; throws std::system_error.
  static passed_handle copy_of(int fd);

  // Whether there is one.
  explicit operator bool() const { return static_cast<bool>(fd_); }
  // What it is.
  handle_kind kind() const { return kind_; }
  // The descriptor, still owned here; -1: none.
  int fd() const { return fd_.get(); }
  // The caller's own from now on; this is empty then.
  unique_fd release() {
    kind_ = handle_kind::none;
    lease_.reset();
    return std::move(fd_);
  }
  // For whoever passes it: let go of with the handle, or when it is released. (A server of Node's counts its sockets.)
  void keep(std::shared_ptr<void> lease) { lease_ = std::move(lease); }

 private:
  unique_fd fd_;
  handle_kind kind_ = handle_kind::none;
  std::shared_ptr<void> lease_;
};

}  // namespace bulkhead
