// Who reads a channel, and what becomes of what has come. See channel.hpp.
#include "futex.hpp"
#include <bulkhead/ipc/channel.hpp>
#include <bulkhead/ipc/lane.hpp>

#include <algorithm>

namespace bulkhead::ipc {
namespace {

constexpr std::size_t read_chunk = std::size_t{64} << 10;
constexpr int reads_in_a_row = 16;                             // then others get their turn
constexpr std::size_t keep_capacity = std::size_t{256} << 10;  // of the buffer for partial messages
constexpr std::size_t backlog = lane_memory::least_ring / 2;   // of a peer that can write no more, at least

}  // namespace

channel::wait_result channel::wait(waiter& caller, time_point deadline) {
  lock held(mutex_);
  auto result = wait_result::done;
  bool block = !caller.interruptible;
  while (caller.state_ != waiter::done) {
    if (closed_) {
      result = wait_result::closed;
      break;
    }
    if (!reading_) block = read_turn(held, deadline, block);
    else if (follow(held, caller, deadline)) return result;
    if (caller.state_ != waiter::done && !closed_ && deadline != never && clock::now() >= deadline) {
      result = wait_result::deadline;
      break;
    }
  }
  if (!reading_) release_reader(held, true);
  return result;
}

// Sleeps while another thread reads, until it is done (then true, and without the lock), nudged, or the deadline.
bool channel::follow(lock& held, waiter& caller, time_point deadline) {
  std::uint32_t state = waiter::nudged;
  caller.state_.compare_exchange_strong(state, waiter::waiting);
  followers_.push_back(&caller);
  held.unlock();
  while ((state = caller.state_.load(std::memory_order_acquire)) == waiter::waiting) {
    const auto left = deadline == never ? std::chrono::nanoseconds::max() : deadline - clock::now();
    if (left.count() <= 0) break;
    futex_wait(caller.state_, waiter::waiting, left, futex::own);
  }
  if (state == waiter::done) return true;
  held.lock();
  std::erase(followers_, &caller);
  return false;
}

// (locked) It looks around. One that was told already is on its way.
void channel::nudge(waiter& follower) {
  std::uint32_t state = waiter::waiting;
  if (follower.state_.compare_exchange_strong(state, waiter::nudged)) futex_wake(follower.state_, futex::own);
}

// Takes the reader's role for one wait and what it brings; writes what others left in the queue. With `block` it may
// wait inside the read itself, which saves a system call but can't be interrupted: for at most read_patience where
// there are others to be heard (an event loop), and for ever where there are not. False when that brought nothing.
bool channel::read_turn(lock& held, time_point deadline, bool block) {
  reading_ = true;
  ++turns_;
  rearm(held);
  const bool for_writing = wants_room();
  const time_point retry = loop_ && !out_.empty() ? retry_at_ : never;
  const time_point partial_since = partial_since_;
  const std::size_t had = partial_.size();
  const time_point due = partial_since == never ? never : partial_since + limits_.frame_time;
  const time_point until = std::min({deadline, due, retry});
  block = block && !for_writing && transport_->reads_deaf() &&
          (until == never || (loop_ && until > clock::now() + read_patience));
  bool ready = true, ended = false, late = false;
  blocking_ = block;
  held.unlock();
  if (block) {
    ready = read_unlocked(true, ended);
  } else {
    ready = transport_->wait(true, for_writing, until);
    if (for_writing || retry != never) {
      held.lock();
      write_some(held);
      held.unlock();
    }
    late = due != never && clock::now() >= due;
    if (ready || late) read_unlocked(false, ended);
  }
  held.lock();
  blocking_ = false;
  if (ended) close(held, violation_);
  // It is judged by what was there when its time had passed: this process may have been stopped meanwhile. Bytes that trickle
  // in do not extend the time; what a peer has written until there was no more room does.
  if (late && partial_since_.load() == partial_since) {
    if (partial_.size() - had >= backlog) partial_since_ = clock::now();
    else close(held, "a message was not complete within the frame time limit");
  }
  reading_ = false;
  return block && ready;
}

bool channel::wait_closed(waiter& caller, time_point deadline) {
  lock held(mutex_);
  while (caller.state_ != waiter::done) {
    if (follow(held, caller, deadline)) break;
    if (deadline != never && clock::now() >= deadline) break;
  }
  return caller.state_ == waiter::done;
}

bool channel::run(const std::function<bool()>& stop, time_point deadline, bool interruptible) {
  waiter runner;
  lock held(mutex_);
  bool in_time = true;
  while (!closed_ && !stop()) {
    if (deadline != never && clock::now() >= deadline) {
      in_time = false;
      break;
    }
    if (!reading_) read_turn(held, deadline, !loop_ && !interruptible);
    else follow(held, runner, deadline);
  }
  if (!reading_) release_reader(held, true);
  return in_time;
}

void channel::wake() {
  lock held(mutex_);
  for (waiter* follower : followers_) nudge(*follower);
  if (reading_) transport_->wake();
}

void channel::poll() {
  lock held(mutex_);
  if (closed_ || reading_) return;
  reading_ = true;
  read_some(held);
  reading_ = false;
  release_reader(held, false);
}

void channel::on_event(bool readable, bool writable) {
  lock held(mutex_);
  armed_read_ = armed_write_ = false;
  // A reader that can be woken has taken the writing over, too, and asks for room without the lock.
  if (closed_ || (reading_ && !blocking_)) return;
  write_some(held);
  if (reading_) return rearm(held);
  transport_->on_event();
  if (readable || writable) look(held);
  else release_reader(held, false);
}

void channel::look_again() {
  lock held(mutex_);
  if (!std::exchange(looking_, false) || closed_) return;
  if (reading_) return transport_->flush();  // who reads will arm
  write_some(held);
  look(held);
}

// For the event loop: reads, then waits for more in one of two ways.
void channel::look(lock& held) {
  reading_ = true;
  const bool any = read_some(held);
  reading_ = false;
  looking_ = !closed_ && async_pending_ > 0 && followers_.empty() && transport_->linger(any) && loop_->again();
  if (!looking_) transport_->flush();  // for calls that were begun meanwhile and relied on the next look
  release_reader(held, false);
}

// The reader's role is free: the next waiter takes it, or the event loop. After a synchronous call (`more_likely`) the
// next one is likely to follow soon, and arming and disarming costs two system calls: unless asynchronous calls are
// open, the event loop is then armed only when a while has passed without a reader (see tick()).
void channel::release_reader(lock& held, bool more_likely) {
  if (!followers_.empty()) return nudge(*followers_.front());
  if (!more_likely || async_pending_ > 0) unwatched_ = false;
  else if (loop_ && opened_ && !closed_ && !unwatched_ && !armed_read_) {
    try {
      loop_->schedule(clock::now() + watch_delay_);
      unwatched_ = true;
    } catch (const std::bad_alloc&) {  // then it is armed at once
    }
  }
  rearm(held);
}

void channel::rearm(lock&) {
  if (!loop_ || !opened_ || closed_) return;
  const bool read = !reading_ && !unwatched_ && !looking_,
             write = wants_room() && !held_back_ && (!reading_ || blocking_);
  if (read == armed_read_ && write == armed_write_) return;
  armed_read_ = read;
  armed_write_ = write;
  const auto events = transport_->watch(read, write);
  loop_->arm(events.in, events.out);
}

bool channel::read_some(lock& held) {
  bool ended = false;
  held.unlock();
  const bool any = read_unlocked(false, ended);
  held.lock();
  if (ended) close(held, violation_);
  return any;
}

// False when there was nothing to read. `ended`: close() is to follow.
bool channel::read_unlocked(bool block, bool& ended) {
  bool any = true;
  std::uint8_t chunk[read_chunk];
  try {
    for (int i = 0; i < reads_in_a_row && !ended; ++i) {
      const auto got = transport_->read(chunk, handles_, block && i == 0);
      if (got.status == transport::io::would_block) {
        any = i > 0;
        break;
      }
      if (got.status == transport::io::violation) ended = !violate(transport_->violation());
      else if (got.status == transport::io::closed) ended = true;
      else ended = !take_bytes({chunk, got.bytes});
      // They come with a message's first byte: those left over belong to the one that is still on its way.
      if (!ended && loop_ && handles_.size() > (partial_.empty() ? 0 : limits_.handles))
        ended = !violate("file descriptors that no message refers to");
      if (got.bytes < read_chunk) break;  // most likely all there was; if not, the next wait says so at once
    }
  } catch (const std::bad_alloc&) {  // what was read is lost, and with it the peer
    violation_ = "out of memory";    // so short a text takes none
    ended = true;
  }
  // Not sooner: one that is woken may take the CPU from this thread, which has more for others.
  for (const auto* each : answered_) futex_wake(*each, futex::own);
  answered_.clear();
  return any;
}

bool channel::take_bytes(byte_span bytes) {
  while (!bytes.empty()) {
    if (scanner_.size() == 0 && bytes[0] != 0x93 && bytes[0] != 0x94)
      return violate("bytes that do not begin a MessagePack-RPC message");
    std::size_t used = 0;
    const auto status = scanner_.feed(bytes, used);
    if (status == scanner::status::violation) return violate(scanner_.violation());
    if (status == scanner::status::need_more) {
      if (partial_.empty()) {
        partial_since_ = clock::now();
        if (loop_) {
          lock held(mutex_);
          loop_->schedule(partial_since_.load() + limits_.frame_time);
        }
      }
      partial_.insert(partial_.end(), bytes.begin(), bytes.end());
      return true;
    }
    const unsigned handles = scanner_.handles(), blobs = scanner_.blobs();
    scanner_.reset();
    bool fine = false;
    if (partial_.empty()) {
      fine = dispatch(bytes.first(used), handles, blobs);
    } else {
      partial_.insert(partial_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(used));
      partial_since_ = never;
      fine = dispatch(partial_, handles, blobs);
      partial_.clear();
      if (partial_.capacity() > keep_capacity) partial_.shrink_to_fit();
    }
    if (!fine) return false;
    bytes = bytes.subspan(used);
  }
  return true;
}

bool channel::dispatch(byte_span frame, unsigned handle_count, unsigned blobs) {
  auto parsed = parse_message(frame);
  if (!parsed) return violate("a message that is not MessagePack-RPC");
  if (handle_count > handles_.size()) transport_->collect(handles_, handle_count);
  if (handle_count > limits_.handles || handle_count > handles_.size())
    return violate("a message that refers to file descriptors that did not come with it");
  parsed->blobs = blobs;
  std::vector<unique_fd> handles;
  for (unsigned i = 0; i < handle_count; ++i) handles.push_back(std::move(handles_[i]));
  handles_.erase(handles_.begin(), handles_.begin() + handle_count);
  switch (parsed->kind) {
    case message_kind::response: return on_response(*parsed, frame, std::move(handles));
    case message_kind::request: receiver_.on_request(*parsed, std::move(handles)); return true;
    case message_kind::notification: receiver_.on_notification(*parsed, std::move(handles)); return true;
  }
  return true;
}

bool channel::on_response(const message& response, byte_span frame, std::vector<unique_fd>&& handles) {
  completion result;
  result.answered = true;
  if (response.blobs > 0)  // those of an answer that comes too late are let go at once
    if (const char* wrong = receiver_.hold_blobs(response.result, result.blobs)) return violate(wrong);
  lock held(mutex_);
  slot* slot = find(response.id);
  if (!slot) {
    held.unlock();
    return violate("an answer to a call that is not in progress (id " + std::to_string(response.id) + ")");
  }
  if (slot->sequence > 0) answered_to_ = std::max(answered_to_, slot->first_byte);
  if (slot->state == slot::state::abandoned) {
    ++late_;
    free_slot(response.id & slot_mask);
    held.unlock();
    receiver_.on_late_answer(response.id);
    receiver_.discard(std::move(handles));
    return true;
  }
  if (response.error.size() == 1 && response.error[0] == 0xc0) {
    result.result_offset = static_cast<std::size_t>(response.result.data() - frame.data());
    result.result_size = response.result.size();
    if (!partial_.empty()) result.frame = std::move(partial_);
    else (result.frame = take_spare_bytes()).assign(frame.begin(), frame.end());
    result.handles = std::move(handles);
  } else {
    result.failure = parse_failure(response.error);
    result.code = result.failure.code;
  }
  if (const sleeper to = finish(held, response.id & slot_mask, std::move(result))) answered_.push_back(to);
  return true;
}

bool channel::violate(std::string what) {
  violation_ = std::move(what);
  return false;
}

void channel::close(lock& held, const std::string& violation) {
  if (closed_) return;
  closed_ = true;
  for (waiter* follower : followers_) nudge(*follower);
  drained_.notify_all();
  held.unlock();
  try {
    receiver_.on_closed(violation);
  } catch (const std::bad_alloc&) {
    receiver_.on_closed("out of memory");
  }
  held.lock();
}

}  // namespace bulkhead::ipc
