// See transport.hpp. What must not block asks for MSG_DONTWAIT, so the peer may set its end as it likes; SIGPIPE is
// never raised (MSG_NOSIGNAL).
#include <bulkhead/ipc/attachment.hpp>
#include <bulkhead/ipc/transport.hpp>

#include <algorithm>
#include <cstring>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

namespace bulkhead::ipc {
namespace {

transport::io_result failed() {
  switch (errno) {
    case EAGAIN:
    case EINTR: return {transport::io::would_block, 0};
    case ENOBUFS:
    case ENOMEM:
    case ETOOMANYREFS: return {transport::io::starved, 0};  // the last: of descriptors on their way, see unix(7)
    default: return {transport::io::closed, 0};
  }
}

// Bytes that can't be read for want of memory are there still, and the next wait says so.
transport::io_result failed_to_read() {
  const auto result = failed();
  return result.status == transport::io::starved ? transport::io_result{transport::io::would_block, 0} : result;
}

}  // namespace

socket_transport::socket_transport(unique_fd socket, unsigned receive_handles, std::chrono::milliseconds patience)
    : socket_(std::move(socket)),
      wake_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      receive_handles_(std::min(receive_handles, most_handles)) {
  const timeval limit{patience.count() / 1000, static_cast<suseconds_t>(patience.count() % 1000 * 1000)};
  checked(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "setsockopt(SO_RCVTIMEO)");
}

transport::io_result socket_transport::read(std::span<std::uint8_t> into, std::vector<unique_fd>& handles,
                                            bool block) noexcept {
  const int flags = block ? 0 : MSG_DONTWAIT;
  if (receive_handles_ == 0) {
    const ssize_t n = ::recv(socket_.get(), into.data(), into.size(), flags);
    if (n < 0) return failed_to_read();
    return {n == 0 ? io::closed : io::ok, static_cast<std::size_t>(n)};
  }
  iovec vec{into.data(), into.size()};
  msghdr message{};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  attachment<most_handles> attached;
  attached.make_room(message, receive_handles_);
  const ssize_t n = ::recvmsg(socket_.get(), &message, flags | MSG_CMSG_CLOEXEC);
  if (n < 0) return failed_to_read();
  take_descriptors(message, handles);
  if (message.msg_flags & MSG_CTRUNC) return {io::violation, 0};
  return {n == 0 ? io::closed : io::ok, static_cast<std::size_t>(n)};
}

transport::io_result socket_transport::write(bytes first, bytes second, std::span<const int> handles) noexcept {
  ssize_t n = 0;
  if (handles.empty() && second.empty()) {
    n = ::send(socket_.get(), first.data(), first.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } else {
    iovec parts[2] = {{const_cast<std::uint8_t*>(first.data()), first.size()},
                      {const_cast<std::uint8_t*>(second.data()), second.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    attachment<most_handles> attached;
    attached.add_to(message, handles.first(std::min<std::size_t>(handles.size(), most_handles)));
    n = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (n < 0) return failed();
  return {io::ok, static_cast<std::size_t>(n)};
}

bool socket_transport::wait(bool for_reading, bool for_writing, time_point deadline) noexcept {
  for (;;) {
    timespec timeout{}, *limit = nullptr;
    if (deadline != never) {
      const auto left = std::chrono::nanoseconds(std::max(deadline - clock::now(), clock::duration::zero())).count();
      timeout = {static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
      limit = &timeout;
    }
    const int events = (for_reading ? POLLIN : 0) | (for_writing ? POLLOUT : 0);
    pollfd fds[2] = {{socket_.get(), static_cast<short>(events), 0}, {wake_.get(), POLLIN, 0}};
    const int ready = ::ppoll(fds, for_reading ? 2 : 1, limit, nullptr);
    if (ready < 0 && errno == EINTR) continue;
    if (ready > 0 && fds[1].revents) {
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t drained = ::read(wake_.get(), &count, sizeof count);
    }
    return ready != 0;
  }
}

void socket_transport::wake() noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void socket_transport::shutdown() noexcept { ::shutdown(socket_.get(), SHUT_RDWR); }

std::pair<unique_fd, unique_fd> socket_transport::make_pair() {
  int fds[2];
  checked(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), "socketpair");
  return {unique_fd(fds[0]), unique_fd(fds[1])};
}

}  // namespace bulkhead::ipc
