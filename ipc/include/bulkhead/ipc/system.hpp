// System calls wrapped once: an owned file descriptor, and errors that name the call and its object.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <unistd.h>

namespace bulkhead {

// Owns a file descriptor; -1 is none. Movable; one thread at a time.
class unique_fd {
 public:
  unique_fd() = default;
  explicit unique_fd(int fd) : fd_(fd) {}  // takes it over
  // `other` has none afterwards.
  unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}
  // Closes its own, if it has one, and takes the other's.
  unique_fd& operator=(unique_fd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~unique_fd() { reset(); }

  int get() const { return fd_; }                      // still owned by this; -1: none
  explicit operator bool() const { return fd_ >= 0; }  // whether it has one
  // Gives it up: it is the caller's to close.
  int release() { return std::exchange(fd_, -1); }
  // Closes it, and takes over `fd`. Errors of close() are not told.
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// Throws std::system_error with errno; its text begins with `what`.
[[noreturn]] inline void throw_errno(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// Returns the result of a system call, or throws std::system_error naming what was attempted.
template <class T>
T checked(T result, const char* what) {
  if (result < 0) throw_errno(what);
  return result;
}

}  // namespace bulkhead
