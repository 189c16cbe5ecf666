// See channel.hpp. Every decision is taken under one mutex; system calls that may block are made outside it.
#include "futex.hpp"
#include <bulkhead/ipc/channel.hpp>

#include <thread>

namespace bulkhead::ipc {
namespace {

// Whether a request is one of the protocol's own ("$/..."): those are not counted as calls.
// (None of their names is too long for a header of one byte.)
bool is_reserved(byte_span request) {
  return request.size() > 9 && request[7] <= 0xbf && request[8] == '$' && request[9] == '/';
}

}  // namespace

channel::channel(std::unique_ptr<transport> transport, const limits& limits, receiver& receiver, wakeups* loop)
    : limits_(limits), transport_(std::move(transport)), receiver_(receiver), loop_(loop), scanner_(limits) {}

channel::~channel() = default;

waiter::~waiter() {
  if (of_ && state_.load(std::memory_order_acquire) != done) of_->forget(*this);
}

void channel::open() {
  lock held(mutex_);
  opened_ = true;
  rearm(held);
}

// --- sending --------------------------------------------------------------------------------------------------------

channel::started channel::start(std::span<std::uint8_t> head, byte_span params, std::vector<unique_fd> handles,
                                time_point deadline, waiter* sync, std::unique_ptr<async_completion>* async,
                                const std::function<buffer(std::uint32_t)>& before) {
  const std::size_t size = head.size() + params.size();
  if (size > limits_.frame || handles.size() > std::min(limits_.handles, socket_transport::most_handles))
    return {outcome::rejected, 0};
  lock held(mutex_);
  if (closed_ || failed_) return {outcome::not_sent, 0};
  if (outstanding_ >= std::min(limits_.queued_calls, slot_mask + 1)) return {outcome::overloaded, 0};
  if (!out_.empty() && out_bytes_ + size > limits_.queued_bytes) return {outcome::overloaded, 0};

  if (free_.empty()) {
    slots_.emplace_back();
    free_.reserve(slots_.size());  // so that giving one back takes no memory
    free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  slot& slot = slots_[index];
  const std::uint32_t id = id_of(index);
  slot.state = slot::state::pending;
  slot.deadline = deadline;
  slot.sync = sync;
  if (sync) sync->of_ = this;
  if (async) slot.async = std::move(*async);
  slot.sequence = is_reserved(head) ? 0 : ++sequence_;
  ++outstanding_;
  if (async && loop_) ++async_pending_;
  try {
    if (async && loop_) {
      if (deadline != never) loop_->schedule(deadline);
      if (std::exchange(unwatched_, false)) rearm(held);
    }
    set_request_id(head, id);
    if (before)
      if (const buffer ahead = before(id); !ahead.view().empty()) enqueue(held, ahead.view(), {}, {});
    slot.first_byte = queued_total_;
    enqueue(held, head, params, std::move(handles));
    // A look is to come soon, on the thread of all completions: more calls are likely before that, and it flushes.
    if (sync || !looking_) transport_->flush();
  } catch (...) {  // no memory
    if (async) *async = take_async(slot);
    if (slot.sequence > 0) --sequence_;  // the peer does not count it
    free_slot(index);
    throw;
  }
  if (!loop_) write_all(held);
  return {outcome::ok, id};
}

std::size_t channel::unsent() {
  lock held(mutex_);
  return out_bytes_;
}

bool channel::starved() {
  lock held(mutex_);
  return retry_at_ != never;
}

bool channel::send(byte_span first, byte_span second, std::vector<unique_fd>&& handles, std::size_t limit) {
  lock held(mutex_);
  if (closed_ || failed_) return false;
  if (loop_ && !out_.empty() && out_bytes_ + first.size() + second.size() > limit) return false;
  enqueue(held, first, second, std::move(handles));
  transport_->flush();
  if (!loop_) write_all(held);
  return !closed_;
}

void channel::hold() {
  lock held(mutex_);
  held_back_ = true;
}

void channel::release(bool by_lane) {
  lock held(mutex_);
  if (by_lane) transport_->engage();
  held_back_ = false;
  write_some(held);
  rearm(held);
}

void channel::enqueue(lock& held, byte_span first, byte_span second, std::vector<unique_fd>&& handles) {
  const bool at_once = out_.empty() && !writing_ && !held_back_;
  if (at_once) retry_at_ = never;
  queued_total_ += first.size() + second.size();
  std::size_t written = 0;
  if (at_once && write_one(first, second, handles, written)) return;  // most messages never see the queue
  try {
    outgoing next;
    const std::size_t from_first = std::min(written, first.size());
    next.bytes.reserve(first.size() + second.size() - written);
    next.bytes.assign(first.begin() + static_cast<std::ptrdiff_t>(from_first), first.end());
    next.bytes.insert(next.bytes.end(), second.begin() + static_cast<std::ptrdiff_t>(written - from_first),
                      second.end());
    next.handles = std::move(handles);
    out_.push_back(std::move(next));
    out_bytes_ += out_.back().bytes.size();
  } catch (...) {  // no memory to keep the rest of it
    if (written > 0) transport_->shutdown();
    else queued_total_ -= first.size() + second.size();
    throw;
  }
  if (!at_once || !loop_) return;
  if (reading_ && !blocking_) transport_->wake();  // the reader takes over the writing
  else rearm(held);
}

// True when there is nothing left of it: all was written, or the peer has closed.
bool channel::write_one(byte_span first, byte_span second, std::vector<unique_fd>& handles, std::size_t& written) {
  int fds[socket_transport::most_handles];
  while (written < first.size() + second.size()) {
    std::size_t count = 0;
    for (const unique_fd& handle : handles) fds[count++] = handle.get();
    const std::size_t from_first = std::min(written, first.size());
    const auto result =
        transport_->write(first.subspan(from_first), second.subspan(written - from_first), {fds, count});
    if (result.status == transport::io::closed) {
      // The reader notices by itself, after all that the peer had still sent.
      written_closed_ = true;
      return true;
    }
    if (result.status == transport::io::starved) retry_later();
    if (result.status != transport::io::ok) return false;
    written += result.bytes;
    written_total_ += result.bytes;
    handles.clear();
  }
  return true;
}

void channel::retry_later() {
  const time_point when = clock::now() + retry_delay;
  try {
    if (loop_) loop_->schedule(when);
    retry_at_ = when;
  } catch (const std::bad_alloc&) {  // then at once
  }
}

void channel::write_some(lock&) {
  if (retry_at_ != never && clock::now() < retry_at_) return transport_->flush();
  retry_at_ = never;
  while (!out_.empty() && !held_back_) {
    outgoing& next = out_.front();
    const std::size_t before = next.written;
    const bool finished = write_one(next.bytes, {}, next.handles, next.written);
    out_bytes_ -= next.written - before;
    if (!finished) break;
    if (written_closed_) {
      out_.clear();
      out_bytes_ = 0;
      break;
    }
    out_.pop_front();
  }
  transport_->flush();
}

// Without an event loop: whoever sends stays until the queue is empty. One thread writes, the others wait for it.
void channel::write_all(lock& held) {
  while (!out_.empty() && !closed_) {
    if (writing_) {
      drained_.wait(held);
      continue;
    }
    writing_ = true;
    const time_point retry = retry_at_;
    held.unlock();
    if (retry != never) std::this_thread::sleep_until(retry);
    else transport_->wait(false, true, never);
    held.lock();
    write_some(held);
    writing_ = false;
    drained_.notify_all();
  }
}

void channel::shutdown() { transport_->shutdown(); }

}  // namespace bulkhead::ipc
