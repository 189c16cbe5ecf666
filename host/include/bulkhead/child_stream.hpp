// The application's end of one of a child's pipes: a stream as Asio has them (AsyncReadStream, AsyncWriteStream and their
// synchronous forms), so asio::async_read_until() and the rest work on it.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/system.hpp>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>  // before Asio: see plugin.hpp
#include <vector>
#ifdef __cpp_impl_coroutine
#include <coroutine>
#endif
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <sys/uio.h>

namespace BULKHEAD_PUBLIC bulkhead {
namespace detail {

// A handler of any type, called at most once, on its own executor.
template <class... A>
class completion_base {
 public:
  virtual ~completion_base() = default;
  virtual void complete(A... values) = 0;
};
template <class... A>
using completion = std::unique_ptr<completion_base<A...>>;

template <class Handler, class... A>
class completion_of final : public completion_base<A...> {
 public:
  completion_of(Handler handler, const boost::asio::any_io_executor& fallback)
      : executor_(boost::asio::get_associated_executor(handler, fallback)),
        work_(executor_),
        handler_(std::move(handler)) {}
  void complete(A... values) override {
    auto call = [handler = std::move(handler_), arguments = std::tuple<A...>(std::move(values)...)]() mutable {
      std::apply(std::move(handler), std::move(arguments));
    };
    boost::asio::post(executor_, std::move(call));
    work_.reset();
  }

 private:
  using executor = boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>;
  executor executor_;
  boost::asio::executor_work_guard<executor> work_;
  Handler handler_;
};

template <class... A, class Handler>
completion<A...> erase(Handler handler, const boost::asio::any_io_executor& fallback) {
  return std::make_unique<completion_of<Handler, A...>>(std::move(handler), fallback);
}

// As writev(), but EPIPE comes without SIGPIPE.
ssize_t write_quietly(int fd, const iovec* parts, std::size_t count);

template <class Buffers>
std::vector<iovec> to_iovec(const Buffers& buffers) {
  std::vector<iovec> parts;
  for (auto at = boost::asio::buffer_sequence_begin(buffers); at != boost::asio::buffer_sequence_end(buffers); ++at)
    parts.push_back({const_cast<void*>(boost::asio::const_buffer(*at).data()), at->size()});
  if (parts.size() > 16) parts.resize(16);
  return parts;
}

}  // namespace detail

// For one thread at a time. Must not be used after its child's last handle is gone, but for what has been started.
class child_stream : public std::enable_shared_from_this<child_stream> {
 public:
  // As Asio asks of streams.
  using executor_type = boost::asio::any_io_executor;

  // Made by the launcher. `ended` is called once, when no more will be read.
  child_stream(unique_fd end, const executor_type& executor, bool output, std::function<void()> ended);

  // Where handlers run that have no executor of their own.
  executor_type get_executor() { return descriptor_.get_executor(); }
  // Whether it can be read or written.
  bool is_open() const { return descriptor_.is_open(); }
  // The descriptor, still owned here.
  int native_handle() { return descriptor_.native_handle(); }
  // Half-close: what reads from it sees its end. Operations in progress end with operation_aborted.
  void close();
  // The descriptor, non-blocking, for something else to use. This is closed then.
  unique_fd release();

  // As Asio's: reads what there is, one byte at least; error::eof at the end.
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return boost::asio::async_compose<Token, void(boost::system::error_code, std::size_t)>(
        [self = shared_from_this(), buffers, begun = false](auto& operation, boost::system::error_code code = {},
                                                            std::size_t count = 0) mutable {
          if (!std::exchange(begun, true)) return self->descriptor_.async_read_some(buffers, std::move(operation));
          if (code) self->note(code);
          operation.complete(code, count);
        },
        token, descriptor_);
  }
  // A child that has closed its end is error::broken_pipe; there is no SIGPIPE.
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    using boost::asio::posix::stream_descriptor;
    return boost::asio::async_compose<Token, void(boost::system::error_code, std::size_t)>(
        [self = shared_from_this(), buffers, begun = false](auto& operation, boost::system::error_code code = {},
                                                            std::size_t = 0) mutable {
          if (!std::exchange(begun, true))
            return self->descriptor_.async_wait(stream_descriptor::wait_write, std::move(operation));
          std::size_t count = 0;
          if (!code) count = self->try_write(buffers, code);
          if (code == boost::asio::error::would_block)
            return self->descriptor_.async_wait(stream_descriptor::wait_write, std::move(operation));
          operation.complete(code, count);
        },
        token, descriptor_);
  }

  // These block.
  template <class Buffers>
  std::size_t read_some(const Buffers& buffers, boost::system::error_code& code) {
    const std::size_t count = descriptor_.read_some(buffers, code);
    if (code) note(code);
    return count;
  }
  // The same; throws boost::system::system_error.
  template <class Buffers>
  std::size_t read_some(const Buffers& buffers) {
    return or_throw(&child_stream::read_some<Buffers>, buffers);
  }
  // As Asio's: writes one byte at least. Blocks.
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers, boost::system::error_code& code) {
    for (;;) {
      const std::size_t count = try_write(buffers, code);
      if (code != boost::asio::error::would_block) return count;
      wait_writable();
    }
  }
  // The same; throws boost::system::system_error.
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers) {
    return or_throw(&child_stream::write_some<Buffers>, buffers);
  }

 private:
  friend class child_core;
  void watch();
  void note(boost::system::error_code code);
  void end();
  void wait_writable();
  template <class Buffers>
  std::size_t or_throw(std::size_t (child_stream::*operation)(const Buffers&, boost::system::error_code&),
                       const Buffers& buffers) {
    boost::system::error_code code;
    const std::size_t count = (this->*operation)(buffers, code);
    if (code) throw boost::system::system_error(code);
    return count;
  }
  template <class Buffers>
  std::size_t try_write(const Buffers& buffers, boost::system::error_code& code) {
    const auto parts = detail::to_iovec(buffers);
    if (!is_open()) return code = boost::asio::error::bad_descriptor, 0;
    const ssize_t count = detail::write_quietly(descriptor_.native_handle(), parts.data(), parts.size());
    code = count < 0 ? boost::system::error_code(errno, boost::system::system_category()) : boost::system::error_code();
    return count < 0 ? 0 : static_cast<std::size_t>(count);
  }

  boost::asio::posix::stream_descriptor descriptor_;
  const bool output_;
  std::mutex mutex_;             // of ended_, and of what closes the descriptor
  std::function<void()> ended_;  // until it has been called
};

}  // namespace bulkhead
