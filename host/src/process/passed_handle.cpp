// See passed_handle.hpp.
#include <bulkhead/passed_handle.hpp>

#include <climits>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace bulkhead {
namespace {

int socket_option(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

handle_kind kind_of_socket(int fd) {
  const int domain = socket_option(fd, SO_DOMAIN), type = socket_option(fd, SO_TYPE);
  const bool listens = socket_option(fd, SO_ACCEPTCONN) == 1;
  if (domain == AF_UNIX) return listens ? handle_kind::unix_listener : handle_kind::unix_socket;
  if (domain != AF_INET && domain != AF_INET6) return handle_kind::other;
  if (type == SOCK_STREAM) return listens ? handle_kind::tcp_listener : handle_kind::tcp_socket;
  return type == SOCK_DGRAM ? handle_kind::udp_socket : handle_kind::other;
}

// File seals don't tell: every file of a tmpfs has them.
bool is_memfd(int fd) {
  char target[PATH_MAX]{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  return ::readlink(link.c_str(), target, sizeof target - 1) > 0 && std::string_view(target).starts_with("/memfd:");
}

}  // namespace

std::string_view to_string(handle_kind kind) {
  switch (kind) {
    case handle_kind::none: return "none";
    case handle_kind::tcp_socket: return "tcp_socket";
    case handle_kind::tcp_listener: return "tcp_listener";
    case handle_kind::udp_socket: return "udp_socket";
    case handle_kind::unix_socket: return "unix_socket";
    case handle_kind::unix_listener: return "unix_listener";
    case handle_kind::pipe: return "pipe";
    case handle_kind::file: return "file";
    case handle_kind::memfd: return "memfd";
    case handle_kind::other: return "other";
  }
  return "unknown";
}

handle_kind classify(int fd) {
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) return handle_kind::none;
  if (S_ISSOCK(status.st_mode)) return kind_of_socket(fd);
  if (S_ISFIFO(status.st_mode)) return handle_kind::pipe;
  if (S_ISREG(status.st_mode)) return is_memfd(fd) ? handle_kind::memfd : handle_kind::file;
  return S_ISDIR(status.st_mode) ? handle_kind::file : handle_kind::other;
}

passed_handle passed_handle::copy_of(int fd) {
  return passed_handle(unique_fd(checked(::fcntl(fd, F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC) of a handle")));
}

}  // namespace bulkhead
