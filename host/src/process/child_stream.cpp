// See child_stream.hpp.
#include <bulkhead/child_stream.hpp>

#include <cerrno>
#include <csignal>

#include <poll.h>
#include <sys/ioctl.h>

namespace bulkhead {

ssize_t detail::write_quietly(int fd, const iovec* parts, std::size_t count) {
  sigset_t pipe, before, pending;
  ::sigemptyset(&pipe);
  ::sigaddset(&pipe, SIGPIPE);
  ::sigpending(&pending);
  const bool was_pending = ::sigismember(&pending, SIGPIPE) == 1;
  ::pthread_sigmask(SIG_BLOCK, &pipe, &before);
  ssize_t written = 0;
  do written = ::writev(fd, parts, static_cast<int>(count));
  while (written < 0 && errno == EINTR);
  const int error = errno;
  if (written < 0 && error == EPIPE && !was_pending) {
    // It goes to the thread that wrote, so it is there.
    constexpr timespec now{};
    while (::sigtimedwait(&pipe, nullptr, &now) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return written;
}

child_stream::child_stream(unique_fd end, const executor_type& executor, bool output, std::function<void()> ended)
    : descriptor_(executor, end.get()), output_(output), ended_(std::move(ended)) {
  end.release();
  descriptor_.native_non_blocking(true);  // but operations that block still do
}

// Nobody can write to it any more: it has ended if nothing is left to be read, and else when that has been read.
void child_stream::watch() {
  if (!output_) return;
  descriptor_.async_wait(
      boost::asio::posix::stream_descriptor::wait_error, [weak = weak_from_this()](boost::system::error_code code) {
        const auto self = weak.lock();
        if (code || !self) return;
        int unread = 0;
        std::unique_lock held(self->mutex_);  // its owner may be closing it
        const bool ended = ::ioctl(self->descriptor_.native_handle(), FIONREAD, &unread) == 0 && unread == 0;
        held.unlock();
        if (ended) self->end();
      });
}

void child_stream::note(boost::system::error_code code) {
  if (code != boost::asio::error::would_block && code != boost::asio::error::operation_aborted) end();
}

void child_stream::end() {
  std::function<void()> told;
  {
    std::lock_guard held(mutex_);
    told = std::exchange(ended_, nullptr);
  }
  if (told) told();
}

void child_stream::close() {
  {
    std::lock_guard held(mutex_);
    boost::system::error_code ignored;
    descriptor_.close(ignored);
  }
  end();
}

unique_fd child_stream::release() {
  std::unique_lock held(mutex_);
  unique_fd out(descriptor_.release());
  held.unlock();
  end();
  return out;
}

void child_stream::wait_writable() {
  pollfd ready{descriptor_.native_handle(), POLLOUT, 0};
  while (::poll(&ready, 1, -1) < 0 && errno == EINTR) {
  }
}

}  // namespace bulkhead
