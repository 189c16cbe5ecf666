// See daemon_stream.hpp.
#include "daemon_stream.hpp"

#include <fmt/format.h>

namespace bulkhead::cli {

void daemon_stream::begin(std::uint32_t id) {
  id_ = id;
  attach(std::make_shared<ipc::framed_link>(
      id, [this](std::vector<std::uint8_t> frame) { channel_.send(std::move(frame)); }));
}

void daemon_stream::heed(std::stop_token stop) {
  if (stop.stop_possible()) on_stop_.emplace(std::move(stop), [this] { cancel(); });
}

void daemon_stream::end(reply&& result) {
  {
    std::lock_guard held(mutex_);
    if (reply_) return;
    reply_ = std::move(result);
  }
  stop(false);
}

bool daemon_stream::send_packed(ipc::byte_span value) {
  switch (send(value)) {
    case result::ok: return true;
    case result::too_large:
      throw call_error(outcome::rejected, fmt::format("an item of {} bytes is larger than the plugin's window of {}",
                                                      value.size(), peer_window()));
    default: return false;
  }
}

std::optional<std::vector<std::uint8_t>> daemon_stream::next_packed() {
  std::vector<std::uint8_t> item;
  if (receive(item) == result::ok) return item;
  return std::nullopt;
}

reply daemon_stream::finish() {
  close();
  std::vector<std::uint8_t> dropped;
  while (receive(dropped) == result::ok) continue;
  lock held(mutex_);
  while (!reply_) wait_turn(held);
  return *reply_;
}

void daemon_stream::cancel() {
  if (channel_.abandon(id_, outcome::cancelled, "cancelled by the caller")) stop(true);
}

}  // namespace bulkhead::cli
