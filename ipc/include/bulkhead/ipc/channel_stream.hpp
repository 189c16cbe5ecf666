// An end of a stream on a channel without an event loop: whoever waits for the other end reads the channel meanwhile.
#pragma once

#include <bulkhead/ipc/channel.hpp>
#include <bulkhead/ipc/stream.hpp>

namespace bulkhead::ipc {

class channel_stream : public stream {
 public:
  // The rest as for any stream.
  channel_stream(channel& channel, std::size_t window, bool told, std::size_t peer_window, time_point deadline)
      : stream(window, told, peer_window, deadline), channel_(channel) {}

 protected:
  channel& channel_;

 private:
  void wait(lock& held, std::uint64_t seen) override {
    held.unlock();
    waits_here_ = this;
    channel_.run([&] { return events() != seen; }, deadline_, true);
    waits_here_ = nullptr;
    held.lock();
  }
  void wake() override {
    if (waits_here_ != this || waiting() > 1) channel_.wake();  // the one who waits is the one who reads: it will see
  }

  static inline thread_local const stream* waits_here_ = nullptr;
};

}  // namespace bulkhead::ipc
