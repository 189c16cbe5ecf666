// The streams of a worker's calls: which belongs to which call, and what the worker says about them. Any thread may come
// here with none of the streams' locks held. See worker_process.hpp.
#include "call_stream.hpp"
#include "worker_process.hpp"

namespace bulkhead {

// Before the first item can come. Gives back what announces it.
ipc::buffer worker_process::bind_stream(std::uint32_t id, const std::shared_ptr<call_stream>& stream) {
  {
    std::lock_guard held(mutex_);
    streams_[id] = stream;
  }
  stream->attach(std::make_shared<ipc::framed_link>(id, [me = weak_from_this(), id](std::vector<std::uint8_t> frame) {
    if (const auto alive = me.lock()) alive->say_of_stream(id, std::move(frame));
  }));
  return ipc::make_open(id, stream->window());
}

void worker_process::say_of_stream(std::uint32_t id, std::vector<std::uint8_t> frame) {
  // Items are many and large; without `$/more` or `$/end` a stream would stand still.
  const bool item = ipc::parse_message(frame)->method == "$/item";
  if ((item ? channel_.send(std::move(frame)) : channel_.send_vital(frame)) || channel_.closed()) return;
  channel_.abandon(id, outcome::overloaded, "too many bytes wait for this worker to read them");
}

const char* worker_process::tell_stream(const ipc::message& notification) {
  const auto said = ipc::read_about_stream(notification);
  if (!said) return "not as it should be";
  std::shared_ptr<call_stream> stream;
  {
    std::lock_guard held(mutex_);
    if (const auto found = streams_.find(said->id); found != streams_.end()) stream = found->second;
  }
  return stream ? ipc::tell(*stream, notification.method, said->value) : "about a call that does not stream";
}

// Nothing about the stream of this call may come any more, and its blobs are read no longer.
void worker_process::on_late_answer(std::uint32_t id) {
  blobs_->forget(id);
  std::shared_ptr<call_stream> last;
  std::lock_guard held(mutex_);
  if (const auto found = streams_.find(id); found != streams_.end()) {
    last = std::move(found->second);
    streams_.erase(found);
  }
}

}  // namespace bulkhead
