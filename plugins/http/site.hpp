// A directory as a web site: which file a request's target names, what type it has, which part of it is wanted.
//
// The directory is walked name by name from a descriptor of it, and no symbolic link is followed: a target can't leave
// it, whatever it is made of. The worker's sandbox lets it read nothing else either.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <unistd.h>

namespace http_plugin {

class descriptor {
 public:
  explicit descriptor(int fd = -1) : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

struct found_file {
  unsigned status = 404;  // 200, 301: a directory without its '/', 400, 403, 404
  descriptor file;
  std::uint64_t size = 0;
  std::time_t modified = 0;
  std::string_view type;
};

class site {
 public:
  // Throws std::system_error.
  explicit site(const std::string& root);
  // `target` as it came: "/a/b%20c?query". A directory stands for its index.html. Names that begin with a dot are hidden,
  // but for .well-known.
  found_file find(std::string_view target) const;

 private:
  descriptor root_;
};

// The path of a target: decoded, without the query. Nothing when it is no path: bad escapes, NUL, no single '/' in front, a "..".

std::optional<std::string> decoded_path(std::string_view target);
// By its ending; "application/octet-stream" for what is not known.
std::string_view type_of(std::string_view name);

struct byte_range {
  std::uint64_t begin, end;  // end: one past
};
enum class range_result { whole, part, unsatisfiable };
// What a Range header asks for of a file of `size` bytes. Several ranges, and what makes no sense, stand for the whole.
range_result parse_range(std::string_view header, std::uint64_t size, byte_range& out);

// "Tue, 15 Nov 1994 08:12:31 GMT"
std::string http_date(std::time_t when);

}  // namespace http_plugin
