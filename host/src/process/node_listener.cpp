// See node_listener.hpp.
#include "process/node_listener.hpp"

#include <algorithm>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace bulkhead::node {
namespace {

constexpr int usual_backlog = 511, most_backlog = 65535;  // the first is Node's
constexpr std::size_t address_limit = 256;
constexpr std::int64_t ipv6_only = 1;  // UV_TCP_IPV6ONLY, UV_UDP_IPV6ONLY

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
  out.possible = (family_known || out.datagrams) && port >= 0 && port <= 65535 && number(part("fd"), -1) < 0;
  out.port = static_cast<std::uint16_t>(port);
  out.family = type == 6 || type == "udp6" ? AF_INET6 : AF_INET;
  if (out.address.empty() && !out.datagrams) out.family = 0;
  out.six_only = number(part("flags"), 0) & ipv6_only;
  out.backlog = static_cast<int>(std::clamp<std::int64_t>(number(part("backlog"), 0), 0, most_backlog));
  out.key = out.address + ":" + std::to_string(port) + ":" + (out.datagrams ? type.get<std::string>() : type.dump()) +
            "::" + std::to_string(number(part("index"), 0));
  return out;
}

int listener::open(const listening_request& wanted) {
  if (!wanted.possible) return EACCES;
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
  if (!wanted.datagrams && ::listen(made.get(), wanted.backlog > 0 ? wanted.backlog : usual_backlog) != 0) return errno;
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
