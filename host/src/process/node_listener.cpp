// See node_listener.hpp.
#include "process/node_listener.hpp"

#include <algorithm>
#include <filesystem>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace bulkhead::node {
namespace {

constexpr std::int64_t usual_backlog = 511, most_backlog = 65535;  // the first is Node's
constexpr std::size_t address_limit = 256;
constexpr std::int64_t ipv6_only = 1;  // UV_TCP_IPV6ONLY, UV_UDP_IPV6ONLY

// So that whoever decides on it sees what it means.
bool is_plain_path(const std::string& path) {
  return path.starts_with('/') && path.find('\0') == path.npos &&
         std::filesystem::path(path).lexically_normal().native() == path;
}

// Left behind by one that was killed. Between another's bind() and listen() it looks the same.
bool is_abandoned(int unconnected, const sockaddr_un& where) {
  struct stat file {};
  return ::lstat(where.sun_path, &file) == 0 && S_ISSOCK(file.st_mode) && file.st_uid == ::geteuid() &&
         ::connect(unconnected, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0 && errno == ECONNREFUSED;
}

// uv_pipe_chmod()
bool permit(const char* file, mode_t more) {
  struct stat now {};
  return ::lstat(file, &now) == 0 && ::fchmodat(AT_FDCWD, file, now.st_mode | more, AT_SYMLINK_NOFOLLOW) == 0;
}

}  // namespace

listening_request listening_request::from(const nlohmann::json& message) {
  const auto part = [&](const char* name) {
    const auto found = message.find(name);
    return found == message.end() ? nlohmann::json() : *found;
  };
  const auto number = [](const nlohmann::json& value, std::int64_t otherwise) {
    return value.is_number_integer() ? value.get<std::int64_t>() : otherwise;
  };
  listening_request out;
  const nlohmann::json address = part("address"), type = part("addressType");
  if (address.is_string()) out.address = address.get<std::string>().substr(0, address_limit);
  const std::int64_t port = number(part("port"), 0);
  const bool family_known = type == 4 || type == 6;
  out.datagrams = type == "udp4" || type == "udp6";
  out.by_path = type == -1 && port == -1;
  const bool named =
      out.by_path ? is_plain_path(out.address) : (family_known || out.datagrams) && port >= 0 && port <= 65535;
  out.possible = named && number(part("fd"), -1) < 0;
  out.port = out.by_path ? 0 : static_cast<std::uint16_t>(port);
  out.family = type == 6 || type == "udp6" ? AF_INET6 : AF_INET;
  if (out.address.empty() && !out.datagrams) out.family = 0;
  out.six_only = number(part("flags"), 0) & ipv6_only;
  const std::int64_t backlog = number(part("backlog"), 0);
  out.backlog = static_cast<int>(backlog > 0 ? std::min(backlog, most_backlog) : usual_backlog);
  if (part("readableAll") == true) out.mode |= 0444;
  if (part("writableAll") == true) out.mode |= 0222;
  out.key = out.address + ":" + std::to_string(port) + ":" + (out.datagrams ? type.get<std::string>() : type.dump()) +
            "::" + std::to_string(number(part("index"), 0));
  return out;
}

int listener::open(const listening_request& wanted) {
  if (!wanted.possible) return EACCES;
  if (wanted.by_path) return bind_to_path(wanted);
  if (!wanted.address.empty()) return bind_to(wanted.family, wanted.address, wanted);
  if (wanted.family == AF_INET) return bind_to(AF_INET, "0.0.0.0", wanted);
  const int error = bind_to(AF_INET6, "::", wanted);
  return error == 0 || wanted.family == AF_INET6 || error == EADDRINUSE ? error : bind_to(AF_INET, "0.0.0.0", wanted);
}

int listener::bind_to(int family, const std::string& address, const listening_request& wanted) {
  sockaddr_storage where{};
  socklen_t size = 0;
  if (family == AF_INET) {
    auto& four = reinterpret_cast<sockaddr_in&>(where);
    if (::inet_pton(AF_INET, address.c_str(), &four.sin_addr) != 1) return EINVAL;
    four.sin_family = AF_INET;
    four.sin_port = htons(wanted.port);
    size = sizeof four;
  } else {
    auto& six = reinterpret_cast<sockaddr_in6&>(where);
    if (::inet_pton(AF_INET6, address.c_str(), &six.sin6_addr) != 1) return EINVAL;
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(wanted.port);
    size = sizeof six;
  }
  const int type = wanted.datagrams ? SOCK_DGRAM : SOCK_STREAM;
  unique_fd made(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) return errno;
  const int yes = 1;
  if (!wanted.datagrams) ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const int only = wanted.six_only;
  if (family == AF_INET6) ::setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
  if (::bind(made.get(), reinterpret_cast<const sockaddr*>(&where), size) != 0) return errno;
  if (!wanted.datagrams && ::listen(made.get(), wanted.backlog) != 0) return errno;
  fd_ = std::move(made);
  return 0;
}

int listener::bind_to_path(const listening_request& wanted) {
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  if (wanted.address.size() >= sizeof where.sun_path) return ENAMETOOLONG;
  wanted.address.copy(where.sun_path, sizeof where.sun_path);
  unique_fd made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) return errno;
  const auto bound = [&] { return ::bind(made.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0; };
  if (!bound()) {
    if (errno != EADDRINUSE) return errno;
    if (!is_abandoned(made.get(), where)) return EADDRINUSE;
    if (::unlink(where.sun_path) != 0 || !bound()) return errno;
  }
  file_ = std::shared_ptr<void>(nullptr, [path = wanted.address](void*) { ::unlink(path.c_str()); });
  if (wanted.mode != 0 && !permit(where.sun_path, wanted.mode)) return errno;
  if (::listen(made.get(), wanted.backlog) != 0) return errno;
  fd_ = std::move(made);
  return 0;
}

unique_fd listener::duplicate() const {
  return unique_fd(checked(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 3), "fcntl(F_DUPFD_CLOEXEC)"));
}

nlohmann::json listener::name() const {
  sockaddr_storage where{};
  socklen_t size = sizeof where;
  ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&where), &size);
  char text[INET6_ADDRSTRLEN]{};
  if (where.ss_family == AF_INET) {
    const auto& four = reinterpret_cast<const sockaddr_in&>(where);
    ::inet_ntop(AF_INET, &four.sin_addr, text, sizeof text);
    return {{"address", text}, {"family", "IPv4"}, {"port", ntohs(four.sin_port)}};
  }
  const auto& six = reinterpret_cast<const sockaddr_in6&>(where);
  ::inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof text);
  return {{"address", text}, {"family", "IPv6"}, {"port", ntohs(six.sin6_port)}};
}

}  // namespace bulkhead::node
