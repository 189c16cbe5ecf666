// A floor: a socketpair and nothing else. A length before the bytes; what has arrived together is answered together.
#include "peer.hpp"

#include <cstring>
#include <stdexcept>

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

using peer::bytes_view;
using length = std::uint32_t;

void write_all(int fd, const std::uint8_t* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(fd, data, size);
    if (n <= 0) throw std::runtime_error("write");
    data += n;
    size -= static_cast<std::size_t>(n);
  }
}

// Bytes read and not yet taken.
class inbox {
 public:
  explicit inbox(int fd) : fd_(fd), data_((std::size_t{64} << 10) + sizeof(length)) {}

  // The complete messages that are there, lengths included; reads until there is one. Empty: the other side has gone.
  bytes_view some() {
    drop();
    for (;;) {
      std::size_t end = 0;
      while (used_ - end >= sizeof(length)) {
        length size;
        std::memcpy(&size, data_.data() + end, sizeof size);
        if (data_.size() < sizeof size + size) data_.resize(sizeof size + size);
        if (used_ - end < sizeof size + size) break;
        end += sizeof size + size;
      }
      if (end > 0) return {data_.data(), taken_ = end};
      const ssize_t n = ::read(fd_, data_.data() + used_, data_.size() - used_);
      if (n <= 0) return {};
      used_ += static_cast<std::size_t>(n);
    }
  }

 private:
  void drop() {
    std::memmove(data_.data(), data_.data() + taken_, used_ - taken_);
    used_ -= taken_;
    taken_ = 0;
  }

  int fd_;
  std::vector<std::uint8_t> data_;
  std::size_t used_ = 0, taken_ = 0;
};

class socketpair_link final : public peer::link {
 public:
  socketpair_link()
      : server_([this] {
          ::close(ends_.fd[0]);
          inbox in(ends_.fd[1]);
          for (bytes_view all = in.some(); !all.empty(); all = in.some())
            write_all(ends_.fd[1], all.data(), all.size());
        }),
        in_(ends_.fd[0]) {
    ::close(ends_.fd[1]);
  }
  ~socketpair_link() override { ::close(ends_.fd[0]); }

  bytes_view call(bytes_view payload) override {
    length size = static_cast<length>(payload.size());
    iovec parts[] = {{&size, sizeof size}, {const_cast<std::uint8_t*>(payload.data()), payload.size()}};
    const ssize_t n = ::writev(ends_.fd[0], parts, 2);
    if (n < static_cast<ssize_t>(sizeof size)) throw std::runtime_error("writev");
    const auto sent = static_cast<std::size_t>(n) - sizeof size;
    write_all(ends_.fd[0], payload.data() + sent, payload.size() - sent);
    return in_.some().subspan(sizeof size);
  }

  bool many(bytes_view payload, std::size_t count, std::size_t outstanding) override {
    const std::size_t each = sizeof(length) + payload.size();
    std::vector<std::uint8_t> batch(each * outstanding);
    const auto size = static_cast<length>(payload.size());
    for (std::size_t i = 0; i < outstanding; ++i) {
      std::memcpy(batch.data() + i * each, &size, sizeof size);
      std::memcpy(batch.data() + i * each + sizeof size, payload.data(), payload.size());
    }
    std::size_t sent = 0, got = 0;
    while (got < count) {
      const std::size_t now = std::min(outstanding - (sent - got), count - sent);
      write_all(ends_.fd[0], batch.data(), now * each);
      sent += now;
      const bytes_view answers = in_.some();
      if (answers.empty()) throw std::runtime_error("the server has gone");
      got += answers.size() / each;
    }
    return true;
  }

  pid_t worker() const override { return server_.pid(); }

 private:
  struct pair {
    int fd[2];
    pair() {
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0) throw std::runtime_error("socketpair");
    }
  } ends_;
  peer::forked server_;
  inbox in_;
};

}  // namespace

int main() {
  return peer::obey({.name = "socketpair", .version = "", .connect = [](std::size_t) {
                       return std::make_unique<socketpair_link>();
                     }});
}
