// The plugin's ends of streams: each from its request to the answer. See session.hpp.
#include "session.hpp"
#include <bulkhead/ipc/channel_stream.hpp>

namespace bulkhead {

// The stream that the host announced for this request, if it did. (locked)
std::shared_ptr<ipc::stream> session::open_stream(std::uint32_t id, ipc::time_point deadline) {
  const auto announced = next_windows_.find(id);
  if (announced == next_windows_.end()) return nullptr;
  auto stream =
      std::make_shared<ipc::channel_stream>(channel_, ipc::default_stream_window, false, announced->second, deadline);
  stream->attach(std::make_shared<ipc::framed_link>(
      id, [this](std::vector<std::uint8_t> frame) { channel_.send(std::move(frame)); }));
  streams_[id] = stream;
  next_windows_.erase(announced);
  return stream;
}

// What comes for a call that has been answered meanwhile is for nobody.
void session::tell_stream(const ipc::message& notification) {
  const auto said = ipc::read_about_stream(notification);
  std::shared_ptr<ipc::stream> stream;
  if (std::lock_guard held(mutex_); said)
    if (const auto found = streams_.find(said->id); found != streams_.end()) stream = found->second;
  if (stream) ipc::tell(*stream, notification.method, said->value);
}

void session::forget_stream(std::uint32_t id) {
  std::lock_guard held(mutex_);
  streams_.erase(id);
}

}  // namespace bulkhead
