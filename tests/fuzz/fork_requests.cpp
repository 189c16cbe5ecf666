// What comes to the fork server on its control channel, of any bytes and with any number of descriptors: a request is
// refused, or all that it refers to is there, and its policy is one or is refused.
#include "fork_requests.hpp"

#include "control_message.hpp"
#include "fuzz.hpp"
#include <bulkhead/policy.hpp>

#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <sys/socket.h>

using namespace bulkhead;

namespace {

struct pair {
  unique_fd ours, theirs, any{checked(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open")};
  pair() {
    int ends[2];
    checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), "socketpair");
    ours.reset(ends[0]);
    theirs.reset(ends[1]);
  }
};

void check(fork_server::incoming& in) {
  using fork_server::request_kind;
  must(in.head.kind >= request_kind::spawn_plugin && in.head.kind <= request_kind::examine);
  must(in.strings.size() == in.head.strings && in.fds.size() <= fork_server::descriptors_limit);
  for (const unique_fd& each : in.fds) must(::fcntl(each.get(), F_GETFD) == FD_CLOEXEC);
  if (in.head.kind == request_kind::adopt) return;
  std::size_t bytes = std::strlen(in.policy()) + 1;
  for (const auto& strings : {in.arguments(), in.environment()})
    for (const char* each : strings) bytes += std::strlen(each) + 1;
  must(bytes == in.head.strings_size);
  try {
    const std::string text = policy::from_text(in.policy()).to_text();
    must(policy::from_text(text).to_text() == text);
  } catch (const std::invalid_argument&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const pair sockets;
  if (size < 2) return 0;  // an empty message looks like the end
  const std::vector<int> fds(data[0] % (fork_server::descriptors_limit + 3), sockets.any.get());
  const std::span<const char> rest(reinterpret_cast<const char*>(data + 2), size - 2);
  if (control_message::send<fork_server::descriptors_limit + 3>(sockets.ours.get(), data[1], rest, fds) < 0) return 0;
  fork_server::incoming in;
  if (fork_server::receive(sockets.theirs.get(), in)) check(in);
  return 0;
}
