// See bulkhead/cluster.hpp: the listening socket, and what a plugin gets to serve it.
#include "cluster/distributor.hpp"
#include "plugin_pool.hpp"
#include "usable_cpus.hpp"
#include <bulkhead/cluster.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

namespace bulkhead {
namespace {

constexpr int backlog = 4096;             // the kernel's own limit may be lower
constexpr unsigned own_descriptors = 64;  // a worker's, beside its connections

unique_fd bind_to(const std::string& address, std::uint16_t port) {
  sockaddr_storage where{};
  socklen_t size = 0;
  if (auto& four = reinterpret_cast<sockaddr_in&>(where); ::inet_pton(AF_INET, address.c_str(), &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    size = sizeof four;
  } else if (auto& six = reinterpret_cast<sockaddr_in6&>(where = {});
             ::inet_pton(AF_INET6, address.c_str(), &six.sin6_addr) == 1) {
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    size = sizeof six;
  } else {
    throw std::invalid_argument("cluster_options::address: '" + address +
                                "' is not a numeric address such as 127.0.0.1 or ::");
  }
  unique_fd fd(checked(::socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  const int yes = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const int no = 0;  // all addresses are both kinds', whatever net.ipv6.bindv6only says
  if (where.ss_family == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&where), size) != 0)
    throw_errno("can't listen on " + address + " port " + std::to_string(port));
  checked(::listen(fd.get(), backlog), "listen");
  return fd;
}

unique_fd listening_socket(const cluster_options& options) {
  unique_fd fd = options.listener < 0 ? bind_to(options.address, options.port) : detail::duplicate(options.listener);
  int listens = 0;
  socklen_t size = sizeof listens;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || !listens)
    throw std::invalid_argument("cluster_options::listener: this descriptor is no listening socket");
  checked(::fcntl(fd.get(), F_SETFL, O_NONBLOCK), "fcntl(O_NONBLOCK)");
  const int yes = 1;  // inherited by the connections; fails for what is not TCP
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

std::uint16_t port_of(int fd) {
  sockaddr_storage where{};
  socklen_t size = sizeof where;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&where), &size) != 0) return 0;
  if (where.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(where).sin_port);
  if (where.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(where).sin6_port);
  return 0;
}

void check(const cluster_options& options) {
  if (options.connections == 0 || options.connections > 1u << 16)
    throw std::invalid_argument("cluster_options::connections must be from 1 to 65536");
  if (options.load.isolation == isolation::none)
    throw std::invalid_argument("cluster_options::load: a cluster's workers are processes, not isolation::none");
}

cluster_options prepared(cluster_options options) {
  options.load.instances = options.workers > 0 ? options.workers : usable_cpus();
  policy rules = options.load.policy.value_or(policy::strict());
  rules.descriptors(std::max(rules.granted().descriptors, options.connections + own_descriptors));
  if (options.schedule == schedule::shared) rules.allow_syscalls("passed-listeners");
  options.load.policy = rules;
  return options;
}

}  // namespace

cluster::cluster(host& on, const std::filesystem::path& file, cluster_options options) {
  check(options);
  options = prepared(std::move(options));
  unique_fd listener = listening_socket(options);
  port_ = port_of(listener.get());
  const std::string name = options.load.name.empty() ? file.stem().string() : options.load.name;
  distributor_ = std::make_shared<distributor>(on.core_, std::move(listener), options, name);
  distributor_->start();
  try {
    plugin_ = plugin_pool::load(on.core_, file, {}, options.load, nullptr, distributor_);
  } catch (...) {
    distributor_->join();
    throw;
  }
}

cluster::~cluster() { stop(); }

void cluster::stop() {
  std::lock_guard one_at_a_time(stopping_);
  distributor_->close();
  plugin_.unload();
  distributor_->join();
}

std::uint16_t cluster::port() const { return port_; }
plugin cluster::loaded() const { return plugin_; }
cluster_stats cluster::stats() const { return distributor_->stats(); }

}  // namespace bulkhead
