// How bytes reach the peer. The channel sees only this: a socket, or lanes (lane_transport.hpp). One thread reads at a
// time and one writes at a time; waiting and waking go on beside them.
#pragma once

#include <bulkhead/ipc/limits.hpp>
#include <bulkhead/ipc/system.hpp>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace bulkhead::ipc {

class transport {
 public:
  // `starved`: the system has nothing left to write with, and no event tells when it has.
  enum class io { ok, would_block, starved, closed, violation };
  struct io_result {
    io status = io::ok;
    std::size_t bytes = 0;
  };
  using bytes = std::span<const std::uint8_t>;

  virtual ~transport() = default;

  // Appends the descriptors that came with the bytes to `handles`, in order. With `block` it waits for bytes for as long
  // as the transport was made to; without, it never blocks.
  virtual io_result read(std::span<std::uint8_t> into, std::vector<unique_fd>& handles, bool block) noexcept = 0;
  // Sends two pieces, one after the other, as far as it can. Descriptors are attached to the first byte; they count as
  // sent when at least one byte was. Never blocks. A peer that goes to sleep in this moment may not see them: see flush().
  virtual io_result write(bytes first, bytes second, std::span<const int> handles) noexcept = 0;
  // After one or more writes: whatever the peer does, it sees them now. Beside no write.
  virtual void flush() noexcept {}

  // Blocks until there is something to read or room to write, whichever is asked for, or the deadline has passed; false
  // only for the deadline. One that waits for reading also returns when wake() was called.
  virtual bool wait(bool for_reading, bool for_writing, time_point deadline) noexcept = 0;
  // Makes a wait for reading in progress, or the next one, return. Any thread.
  virtual void wake() noexcept = 0;
  // Ends the connection: the peer and our own reader see it as closed. Any thread.
  virtual void shutdown() noexcept = 0;

  // What an event loop may poll (level-triggered) instead of wait().
  virtual int native_handle() const noexcept = 0;

  // How an event loop is to poll native_handle() to learn of bytes to read and of room to write. Nobody waits meanwhile
  // for what is asked for here.
  struct interest {
    bool in, out;
  };
  virtual interest watch(bool reading, bool writing) noexcept { return {reading, writing}; }
  // Whether an event loop had better look again for bytes than watch for them; `found`: there have just been some.
  virtual bool linger(bool /*found*/) noexcept { return false; }
  // Whether a blocking read() may return late from wake().
  virtual bool reads_deaf() const noexcept { return true; }
  // The event loop has seen something there; a reader is about to look.
  virtual void on_event() noexcept {}
  // Takes descriptors that came ahead of the message that refers to them, the first ones, until there are `wanted`.
  virtual void collect(std::vector<unique_fd>& /*handles*/, std::size_t /*wanted*/) noexcept {}
  // From now on by lanes, if it has some: for both directions, between messages.
  virtual void engage() noexcept {}
  // What was wrong, after io::violation.
  virtual const char* violation() const noexcept { return "more file descriptors than a message may carry"; }
};

// How long a host's reader waits inside a read, deaf to all else, before it waits in a way that can be interrupted.
constexpr std::chrono::milliseconds read_patience{20};

// A stream socket. Receives descriptors only when asked to: a host must not (a plain recv() with no room for
// ancillary data lets the kernel drop what a worker attaches, and a lingering socket dropped by its sender can stall
// the receiver).
class socket_transport final : public transport {
 public:
  static constexpr unsigned most_handles = 16;  // in one message

  // `patience` limits a blocking read; zero: it blocks until bytes come.
  explicit socket_transport(unique_fd socket, unsigned receive_handles = 0, std::chrono::milliseconds patience = {});

  io_result read(std::span<std::uint8_t> into, std::vector<unique_fd>& handles, bool block) noexcept override;
  io_result write(bytes first, bytes second, std::span<const int> handles) noexcept override;
  bool wait(bool for_reading, bool for_writing, time_point deadline) noexcept override;
  void wake() noexcept override;
  void shutdown() noexcept override;
  int native_handle() const noexcept override { return socket_.get(); }

  // Two connected sockets, close-on-exec and blocking, as a worker in any language expects its end.
  static std::pair<unique_fd, unique_fd> make_pair();

 private:
  unique_fd socket_;
  unique_fd wake_;
  unsigned receive_handles_;
};

}  // namespace bulkhead::ipc
