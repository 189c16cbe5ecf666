// A call that streams through a daemon: what bulkhead::streaming_call is for a plugin of one's own, and in its words.
#pragma once

#include <bulkhead/call.hpp>
#include <bulkhead/ipc/channel_stream.hpp>

#include <functional>

namespace bulkhead::cli {

class daemon_stream final : public ipc::channel_stream {
 public:
  daemon_stream(ipc::channel& channel, std::size_t window) : channel_stream(channel, window, true, 0, ipc::never) {}

  bool send_packed(ipc::byte_span value);
  std::optional<std::vector<std::uint8_t>> next_packed();
  reply finish();
  void cancel();

  // The client's: it has the id from now on, which nothing has been said of.
  void begin(std::uint32_t id);
  void heed(std::stop_token stop);
  std::uint32_t id() const { return id_; }
  // The call is over; the first word counts.
  void end(reply&& result);

 private:
  std::uint32_t id_ = 0;
  std::optional<reply> reply_;  // with the stream's lock
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;
};

}  // namespace bulkhead::cli
