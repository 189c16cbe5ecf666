// The plugin's ends of streams: each from its request to the answer. See session.hpp.
#include "session.hpp"

namespace bulkhead {

// The plugin's end of a stream. Whoever waits for the other end reads the channel meanwhile.
class session::call_stream final : public ipc::stream {
 public:
  call_stream(ipc::channel& channel, std::size_t peer_window, ipc::time_point deadline)
      : stream(ipc::default_stream_window, false, peer_window, deadline), channel_(channel) {}

 private:
  void wait(lock& held, std::uint64_t seen) override {
    held.unlock();
    waits_here = this;
    channel_.run([&] { return events() != seen; }, deadline_);
    waits_here = nullptr;
    held.lock();
  }
  void wake() override {
    if (waits_here != this || waiting() > 1) channel_.wake();  // the one who waits is the one who reads: it will see
  }

  static thread_local const stream* waits_here;
  ipc::channel& channel_;
};
thread_local const ipc::stream* session::call_stream::waits_here = nullptr;

// The stream that the host announced for this request, if it did. (locked)
std::shared_ptr<ipc::stream> session::open_stream(std::uint32_t id, ipc::time_point deadline) {
  const auto announced = next_windows_.find(id);
  if (announced == next_windows_.end()) return nullptr;
  auto stream = std::make_shared<call_stream>(channel_, announced->second, deadline);
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
