// What a plugin sends, from any of its threads: answers, events, calls to its host. See session.hpp.
#include "session.hpp"
#include <bulkhead/error.hpp>

#include <algorithm>
#include <array>

namespace bulkhead {
namespace {

// What comes before the result in a response; written by hand, for it is on the way of every call.
struct response_head {
  explicit response_head(std::uint32_t id) {
    bytes = {0x94, 0x01};
    const unsigned length = id < 0x80 ? 0 : id <= 0xff ? 1 : id <= 0xffff ? 2 : 4;
    if (length > 0) bytes[size++] = length == 1 ? 0xcc : length == 2 ? 0xcd : 0xce;
    for (unsigned shift = length > 0 ? 8 * length : 8; shift > 0; shift -= 8)
      bytes[size++] = static_cast<std::uint8_t>(id >> (shift - 8));
    bytes[size++] = 0xc0;
  }
  ipc::byte_span view() const { return {bytes.data(), size}; }

  std::array<std::uint8_t, 8> bytes{};
  std::size_t size = 2;
};

constexpr std::size_t log_line_limit = 4096;

}  // namespace

void session::end(bulkhead_call& call) {
  const auto id = static_cast<std::uint32_t>(call.tag);
  if (call.stream) call.stream->stop_saying();
  std::vector<std::uint32_t> drained;
  {
    std::lock_guard held(mutex_);
    streams_.erase(id);
    std::erase_if(calls_, [&call](const bulkhead_call* each) { return each == &call; });
    if (calls_.empty() && queue_.empty()) drained.swap(drains_);
  }
  const std::uint8_t nil = 0xc0;
  for (const std::uint32_t drain : drained) channel_.send(response_head(drain).view(), {&nil, 1}, {});
}

void session::answer(bulkhead_call& call, ipc::byte_span result) {
  const auto id = static_cast<std::uint32_t>(call.tag);
  std::vector<std::uint8_t> placed;
  if (!place_blobs(result, placed))
    return fail(call, {outcome::plugin_error, "the result refers to a blob that does not exist or was released", {}});
  if (!placed.empty()) result = placed;
  if (result.size() + message_overhead > frame_limit_) {
    fail(call, {outcome::plugin_error, too_large("the result", result.size()), {}});  // its method has run
    return;
  }
  std::vector<unique_fd> handles;
  {
    std::lock_guard held(call.attaching);
    handles.swap(call.attached);
  }
  if (!handles.empty() || may_send_handles_) {
    ipc::scanner counting(worker_limits());
    std::size_t used = 0;
    counting.feed(result, used);
    if (counting.handles() != handles.size()) {
      fail(call, {outcome::plugin_error, "the result does not refer to each of its descriptors once", {}});
      return;
    }
  }
  end(call);
  channel_.send(response_head(id).view(), result, std::move(handles));
}

// For people: why the host would take it for a violation.
std::string session::too_large(std::string_view what, std::size_t bytes) const {
  return std::string(what) + " has " + std::to_string(bytes) + " bytes, more than the limit of " +
         std::to_string(frame_limit_) + " for one message";
}

void session::fail(bulkhead_call& call, ipc::call_failure failure) {
  const auto id = static_cast<std::uint32_t>(call.tag);
  end(call);
  ipc::buffer out = ipc::make_error_response(id, failure);
  if (out.view().size() > frame_limit_) {
    failure.data.clear();
    out = ipc::make_error_response(id, failure);
  }
  channel_.send(out.take());
}

void session::notify(std::string_view method, const std::function<void(ipc::packer&)>& params) {
  ipc::buffer out = ipc::begin_notification(method);
  ipc::packer packer(out);
  params(packer);
  channel_.send(out.take());
}

void session::progress(bulkhead_call& call, ipc::byte_span value) {
  if (call.answered) return;
  ipc::buffer out = ipc::begin_notification("$/progress");
  ipc::packer(out).pack_array(2).pack(call.tag);
  out.append(value);
  if (out.view().size() > frame_limit_)
    return log(BULKHEAD_LOG_WARNING, "dropped: " + too_large("a report of progress", value.size()));
  send_event(out, value.size(), {});
}

void session::log(int level, std::string_view text) {
  notify("$/log",
         [&](ipc::packer& packer) { packer.pack_array(2).pack(level).pack(ipc::sanitised(text, log_line_limit)); });
}

bool session::emit(std::string_view name, ipc::byte_span value, std::vector<unique_fd> handles) {
  ipc::buffer out = ipc::begin_notification("$/event");
  ipc::packer(out).pack_array(2).pack(name);
  out.append(value);
  return send_event(out, value.size(), std::move(handles));
}

// An event, or a report of progress. Waits for the host while it has no credit for one more, or has as many bytes to
// handle as one message may have. False when the host is gone, or would not take it for its size.
bool session::send_event(ipc::buffer& message, std::size_t value_bytes, std::vector<unique_fd> handles) {
  if (message.view().size() > frame_limit_) return false;
  std::unique_lock held(emitting_);
  for (;;) {
    const std::int64_t more = more_credit_;
    for (; events_acknowledged_ < more && !unacknowledged_.empty(); ++events_acknowledged_)
      unacknowledged_bytes_ -= unacknowledged_.pop();
    if (events_sent_ < first_credit_ + more && unacknowledged_bytes_ < frame_limit_) break;
    held.unlock();
    channel_.run([&] { return more_credit_ != more; });
    if (channel_.closed()) return false;
    held.lock();
  }
  ++events_sent_;
  unacknowledged_bytes_ += value_bytes;
  unacknowledged_.push(std::move(value_bytes));
  return channel_.send(message.take(), std::move(handles));
}

void session::poll(bulkhead_call&) { channel_.poll(); }

void session::leave(std::string_view why) {
  if (left_.exchange(true)) return;
  notify("$/leaving", [&](ipc::packer& packer) {
    packer.pack_array(1).pack_map(2).pack("code").pack(to_string(outcome::unavailable)).pack("message").pack(why);
  });
}

ipc::completion session::call_host(bulkhead_call* on_behalf_of, std::string_view function, ipc::byte_span arguments,
                                   std::vector<unique_fd> handles) {
  if (on_behalf_of && on_behalf_of->cancelled)
    return ipc::completion::failed(outcome::cancelled, "the call was cancelled");
  ipc::buffer frame = ipc::begin_request(function);
  frame.append(arguments);
  if (frame.view().size() > frame_limit_)
    return ipc::completion::failed(outcome::rejected,
                                   too_large("the call of '" + ipc::sanitised(function, 128) + "'", arguments.size()));
  ipc::waiter waiter;
  const ipc::time_point deadline = on_behalf_of ? on_behalf_of->deadline : ipc::never;
  const auto before = [&](std::uint32_t id) {
    ipc::buffer said = ipc::begin_notification("$/deadline");
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - ipc::clock::now()).count();
    ipc::packer(said).pack_array(2).pack(id).pack(std::clamp<std::int64_t>(left, 1, UINT32_MAX));
    return said;
  };
  const auto started = channel_.start(frame.take(), std::move(handles), deadline, &waiter, nullptr,
                                      deadline == ipc::never ? std::function<ipc::buffer(std::uint32_t)>() : before);
  if (started.code != outcome::ok)
    return ipc::completion::failed(started.code, "the call to the host could not be sent");
  if (on_behalf_of) {
    std::lock_guard held(mutex_);
    on_behalf_of->host_calls.push_back(started.id);
    // A cancellation that came just before has not found it.
    if (on_behalf_of->cancelled) channel_.abandon(started.id, outcome::cancelled, cancelled_with_call);
  }
  if (channel_.wait(waiter, deadline) != ipc::channel::wait_result::done)
    channel_.abandon(started.id, outcome::timeout, "the deadline of the call passed while it waited for the host");
  if (on_behalf_of) {
    std::lock_guard held(mutex_);
    std::erase(on_behalf_of->host_calls, started.id);
  }
  return std::move(waiter.result);
}

}  // namespace bulkhead
