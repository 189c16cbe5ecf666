/* Reaching anybody by network or by local socket. */
#include "attempts.h"

#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static long make_socket(uintptr_t kind) {
  const int fd = socket((int)(kind >> 16), (int)((kind >> 8) & 0xff), (int)(kind & 0xff));
  const long got = escape_result(fd);
  if (fd >= 0) close(fd);
  return got;
}

/* By number: the C library has but 32 bits for them, and so has the kernel. */
static long make_socket_by_number(uintptr_t high) {
  const int fd = (int)syscall(SYS_socket, high << 32 | AF_INET, (long)SOCK_STREAM, 0L);
  const long got = escape_result(fd);
  if (fd >= 0) close(fd);
  return got;
}

static long reach(int family, int type, const char* address, int port) {
  const int fd = socket(family, type, 0);
  if (fd < 0) return escape_result(-1);
  struct sockaddr_storage to;
  socklen_t size = 0;
  memset(&to, 0, sizeof to);
  if (family == AF_INET) {
    struct sockaddr_in* in = (struct sockaddr_in*)&to;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, address, &in->sin_addr);
    size = sizeof *in;
  } else {
    struct sockaddr_in6* in = (struct sockaddr_in6*)&to;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons((uint16_t)port);
    inet_pton(AF_INET6, address, &in->sin6_addr);
    size = sizeof *in;
  }
  const long got = escape_result(connect(fd, (struct sockaddr*)&to, size));
  close(fd);
  return got;
}
static long reach_host(uintptr_t type) { return reach(AF_INET, (int)type, "127.0.0.1", escape_facts.port); }
static long reach_far(uintptr_t type) { return reach(AF_INET, (int)type, "192.0.2.1", 443); }
static long reach_metadata(uintptr_t type) { return reach(AF_INET, (int)type, "169.254.169.254", 80); }
static long reach_host6(uintptr_t type) { return reach(AF_INET6, (int)type, "::1", escape_facts.port); }
static long reach_far6(uintptr_t type) { return reach(AF_INET6, (int)type, "2001:db8::1", 443); }

static long listen_on(uintptr_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return escape_result(-1);
  struct sockaddr_in in;
  memset(&in, 0, sizeof in);
  in.sin_family = AF_INET;
  in.sin_port = htons((uint16_t)port);
  const long got = escape_result(bind(fd, (struct sockaddr*)&in, sizeof in));
  close(fd);
  return got;
}

static socklen_t local_address(struct sockaddr_un* to, const char* name, int abstract) {
  memset(to, 0, sizeof *to);
  to->sun_family = AF_UNIX;
  snprintf(to->sun_path + abstract, sizeof to->sun_path - 1, "%s", name);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)abstract + strlen(name));
}
static long reach_local(const char* name, int abstract, int type) {
  const int fd = socket(AF_UNIX, type, 0);
  if (fd < 0) return escape_result(-1);
  struct sockaddr_un to;
  const socklen_t size = local_address(&to, name, abstract);
  const long got = escape_result(connect(fd, (struct sockaddr*)&to, size));
  close(fd);
  return got;
}
static long reach_abstract(uintptr_t type) { return reach_local(escape_facts.abstract, 1, (int)type); }
static const char* const local_sockets[] = {"/run/systemd/private", "/var/run/docker.sock",
                                            "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0"};
static long reach_path(uintptr_t which) { return reach_local(local_sockets[which], 0, SOCK_STREAM); }
static long bind_abstract(uintptr_t unused) {
  (void)unused;
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return escape_result(-1);
  struct sockaddr_un to;
  memset(&to, 0, sizeof to);
  to.sun_family = AF_UNIX;
  memcpy(to.sun_path, "\0taken", 6);
  const long got = escape_result(bind(fd, (struct sockaddr*)&to, sizeof(sa_family_t) + 6));
  close(fd);
  return got;
}
static long reconnect(uintptr_t fd) {
  struct sockaddr_in in;
  memset(&in, 0, sizeof in);
  in.sin_family = AF_UNSPEC;
  return escape_result(connect((int)fd, (struct sockaddr*)&in, sizeof in));
}
static long fast_open(uintptr_t unused) {
  (void)unused;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return escape_result(-1);
  struct sockaddr_in to;
  memset(&to, 0, sizeof to);
  to.sin_family = AF_INET;
  to.sin_port = htons((uint16_t)escape_facts.port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const long got = escape_result(sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr*)&to, sizeof to));
  close(fd);
  return got;
}

/* A pair of sockets, one end of which says to whom it sends: to a socket of the host's that takes datagrams. */
enum { by_sendto, by_sendmsg, by_connect };
static long from_pair(uintptr_t detail) {
  const int type = (int)(detail & 0xff), how = (int)((detail >> 8) & 0xff), abstract = (int)(detail >> 16);
  int pair[2];
  if (socketpair(AF_UNIX, type, 0, pair) < 0) return escape_result(-1);
  char path[512];
  snprintf(path, sizeof path, abstract ? "%s-datagrams" : "%s/readable/datagrams",
           abstract ? escape_facts.abstract : escape_facts.target);
  struct sockaddr_un to;
  const socklen_t size = local_address(&to, path, abstract);
  struct iovec part = {(char[]){'x'}, 1};
  struct msghdr message = {.msg_name = &to, .msg_namelen = size, .msg_iov = &part, .msg_iovlen = 1};
  const struct sockaddr* address = (const struct sockaddr*)&to;
  const ssize_t sent = how == by_sendto    ? sendto(pair[0], "x", 1, MSG_NOSIGNAL, address, size)
                       : how == by_sendmsg ? sendmsg(pair[0], &message, MSG_NOSIGNAL)
                                           : connect(pair[0], address, size);
  long got = escape_result(sent);
  /* What has come to the other end went nowhere else. */
  char byte;
  if (got > 0 && recv(pair[1], &byte, 1, MSG_DONTWAIT) == 1) got = -EISCONN;
  close(pair[0]);
  close(pair[1]);
  return got;
}

#define KIND(family, type, protocol) ((uintptr_t)(family) << 16 | (uintptr_t)(type) << 8 | (protocol))
#define SOCKET(family, type, protocol) \
  { "network", "make a socket " #family " " #type " " #protocol, make_socket, KIND(family, type, protocol), "seccomp" }
#define ALL_TYPES(family) SOCKET(family, 1, 0), SOCKET(family, 2, 0), SOCKET(family, 3, 0), SOCKET(family, 5, 0)
#define UNREACHABLE "seccomp namespaces:ENETUNREACH|EADDRNOTAVAIL|ECONNREFUSED"

enum { a_path, an_abstract_name };
#define PAIR(type, how, to, stops)                                          \
  {                                                                         \
    "network", "send from a pair of " #type " " #how " to " #to, from_pair, \
        (type) | (uintptr_t)(how) << 8 | (uintptr_t)(to) << 16, stops       \
  }
#define ALL_WAYS(type, to, stops) \
  PAIR(type, by_sendto, to, stops), PAIR(type, by_sendmsg, to, stops), PAIR(type, by_connect, to, stops)

static const struct escape_attempt list[] = {
    ALL_TYPES(1),
    ALL_TYPES(2),
    ALL_TYPES(4),
    ALL_TYPES(5),
    ALL_TYPES(10),
    ALL_TYPES(16),
    ALL_TYPES(17),
    ALL_TYPES(21),
    ALL_TYPES(24),
    ALL_TYPES(26),
    ALL_TYPES(29),
    ALL_TYPES(30),
    ALL_TYPES(31),
    ALL_TYPES(38),
    ALL_TYPES(39),
    ALL_TYPES(40),
    ALL_TYPES(41),
    ALL_TYPES(42),
    ALL_TYPES(43),
    ALL_TYPES(44),
    SOCKET(2, 1, 132), /* SCTP */
    SOCKET(2, 3, 1),   /* raw ICMP */
    SOCKET(2, 2, 1),   /* ping */
    SOCKET(2, 3, 255),
    SOCKET(10, 3, 58),
    SOCKET(16, 3, 9),
    SOCKET(16, 3, 12),
    SOCKET(16, 3, 15),
    {"network", "make a socket by a number with high bits", make_socket_by_number, 1, "seccomp"},
    {"network", "connect to the host's port", reach_host, SOCK_STREAM,
     "seccomp landlock:EACCES namespaces:ENETUNREACH"},
    {"network", "send to the host's port", reach_host, SOCK_DGRAM, UNREACHABLE},
    {"network", "connect to a far address", reach_far, SOCK_STREAM, "seccomp landlock:EACCES namespaces:ENETUNREACH"},
    {"network", "send to a far address", reach_far, SOCK_DGRAM, UNREACHABLE},
    {"network", "connect to the cloud's metadata", reach_metadata, SOCK_STREAM,
     "seccomp landlock:EACCES namespaces:ENETUNREACH"},
    {"network", "connect to the host's port over IPv6", reach_host6, SOCK_STREAM,
     "seccomp landlock:EACCES namespaces:ENETUNREACH|EADDRNOTAVAIL"},
    {"network", "send to the host's port over IPv6", reach_host6, SOCK_DGRAM, UNREACHABLE},
    {"network", "connect to a far address over IPv6", reach_far6, SOCK_STREAM,
     "seccomp landlock:EACCES namespaces:ENETUNREACH|EADDRNOTAVAIL"},
    {"network", "connect by TCP fast open", fast_open, 0, "seccomp namespaces:ENETUNREACH"},
    {"network", "listen on any port", listen_on, 0, "seccomp landlock:EACCES"},
    {"network", "listen on port 80", listen_on, 80, "seccomp landlock:EACCES privileges:EACCES"},
    {"network", "listen on port 8080", listen_on, 8080, "seccomp landlock:EACCES"},
    {"network", "connect to an abstract socket of the host", reach_abstract, SOCK_STREAM,
     "seccomp namespaces:ECONNREFUSED"},
    {"network", "take an abstract name", bind_abstract, 0, "seccomp"},
    {"network", "connect to systemd", reach_path, 0, "seccomp root:ENOENT"},
    {"network", "connect to Docker", reach_path, 1, "seccomp root:ENOENT"},
    {"network", "connect to D-Bus", reach_path, 2, "seccomp root:ENOENT"},
    {"network", "connect to X11", reach_path, 3, "seccomp root:ENOENT"},
    ALL_WAYS(SOCK_DGRAM, a_path, "seccomp root:ENOENT"),
    ALL_WAYS(SOCK_RAW, a_path, "seccomp root:ENOENT"),
    ALL_WAYS(SOCK_DGRAM, an_abstract_name, "seccomp namespaces:ECONNREFUSED"),
    {"network", "connect the channel to somebody else", reconnect, 3, "seccomp kernel:EINVAL|EISCONN"},
};

struct escape_list escape_network(void) {
  return (struct escape_list){list, sizeof list / sizeof *list};
}

/* The host's socket lies in a directory that is granted. */
static const struct escape_attempt pairs[] = {
    ALL_WAYS(SOCK_DGRAM, a_path, "seccomp"),
    ALL_WAYS(SOCK_DGRAM, an_abstract_name, "seccomp namespaces:ECONNREFUSED"),
    PAIR(SOCK_STREAM, by_sendto, a_path, "seccomp kernel:EISCONN"),
    PAIR(SOCK_STREAM, by_sendmsg, a_path, "kernel:EISCONN"),
    PAIR(SOCK_SEQPACKET, by_sendto, a_path, "seccomp kernel:EISCONN"),
    PAIR(SOCK_SEQPACKET, by_sendmsg, a_path, "kernel:EISCONN"),
};

struct escape_list escape_pairs(void) {
  return (struct escape_list){pairs, sizeof pairs / sizeof *pairs};
}
