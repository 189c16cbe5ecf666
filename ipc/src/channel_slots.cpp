// The open calls of a channel: their slots, and how they end. See channel.hpp.
#include "futex.hpp"
#include <bulkhead/ipc/channel.hpp>

#include <algorithm>

namespace bulkhead::ipc {
channel::slot* channel::find(std::uint32_t id) {
  const std::uint32_t index = id & slot_mask;
  if (index >= slots_.size()) return nullptr;
  slot& slot = slots_[index];
  if (slot.state == slot::state::free || (slot.generation & generation_mask) != id >> slot_bits) return nullptr;
  return &slot;
}

void channel::free_slot(std::uint32_t index) {
  slot& slot = slots_[index];
  slot.state = slot::state::free;
  ++slot.generation;
  slot.sync = nullptr;
  take_async(slot);
  free_.push_back(index);
  --outstanding_;
}

std::unique_ptr<async_completion> channel::take_async(slot& slot) {
  if (slot.async && loop_) --async_pending_;
  return std::move(slot.async);
}

// Hands a pending call its result and frees the slot. An asynchronous one takes it without the lock, which is let go then.
channel::sleeper channel::finish(lock& held, std::uint32_t index, completion&& result) {
  slot& slot = slots_[index];
  result.id = id_of(index);
  if (slot.sync) {
    const sleeper to = hand_over(*slot.sync, std::move(result));
    free_slot(index);
    return to;
  }
  auto async = take_async(slot);
  free_slot(index);
  held.unlock();
  if (async) async->complete(std::move(result));
  return nullptr;  // and it ends: what its owner keeps in it may come back here
}

// (locked) The waiter may be gone as soon as it has been told.
channel::sleeper channel::hand_over(waiter& to, completion&& result) {
  to.result = std::move(result);
  const bool sleeps = std::erase(followers_, &to) > 0;
  to.state_.store(waiter::done, std::memory_order_release);
  return sleeps ? &to.state_ : nullptr;
}

bool channel::abandon(std::uint32_t id, outcome code, const std::string& why) {
  lock held(mutex_);
  slot* slot = find(id);
  if (!slot || slot->state != slot::state::pending) return false;
  give_up(held, id & slot_mask, code, why);
  return true;
}

// A caller has gone with an exception.
void channel::forget(waiter& gone) {
  lock held(mutex_);
  std::erase(followers_, &gone);
  for (slot& each : slots_)
    if (each.sync == &gone) {
      each.sync = nullptr;
      each.state = slot::state::abandoned;
      each.grace_from = never;
    }
  if (!reading_ && !closed_) release_reader(held, false);
}

// The caller gets its outcome now; the slot stays behind as a tombstone, and the peer is told.
void channel::give_up(lock& held, std::uint32_t index, outcome code, const std::string& why) {
  slot& slot = slots_[index];
  slot.state = slot::state::abandoned;
  slot.grace_from = never;
  const std::uint32_t id = id_of(index);
  waiter* sync = std::exchange(slot.sync, nullptr);
  auto async = take_async(slot);
  completion ended = completion::failed(code, why);
  ended.given_up = true;
  ended.id = id;
  if (loop_) loop_->schedule(clock::now());
  if (!closed_) {
    buffer cancel = begin_notification("$/cancel");
    packer(cancel).pack_array(1).pack(id);
    enqueue(held, cancel.view(), {}, {});
    transport_->flush();
  }
  if (sync) {
    if (const sleeper to = hand_over(*sync, std::move(ended))) futex_wake(*to, futex::own);
    if (reading_) transport_->wake();               // it may be the one who reads
    else if (!closed_) release_reader(held, true);  // or the one who was to
  } else if (async) {
    held.unlock();
    async->complete(std::move(ended));
    async.reset();
    held.lock();
  }
}

// Whether the peer, which runs so many at once, may not have come to this one yet. It takes them up in order: those that
// it went past, which may be answered at any time, keep all of its threads but the one that went past them busy at most. A
// request of the protocol's own without a deadline is no excuse: it waits for calls, not they for it.
bool channel::waits_its_turn(const slot& mine, unsigned at_once) const {
  unsigned before = 0, passed = 0;
  for (const slot& each : slots_) {
    const bool counts = each.state != slot::state::free && (each.sequence > 0 || each.deadline != never);
    if (counts && each.first_byte < mine.first_byte) ++(each.first_byte < answered_to_ ? passed : before);
  }
  return before + std::min(passed, at_once - 1) >= at_once;
}

channel::tick_result channel::tick(time_point now, std::chrono::nanoseconds grace, unsigned at_once) {
  lock held(mutex_);
  tick_result result;
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    slot& slot = slots_[i];
    if (slot.state == slot::state::pending && slot.async && slot.deadline <= now)
      give_up(held, i, outcome::timeout, "no answer before the deadline");
    if (slot.state == slot::state::pending && slot.async) result.next = std::min(result.next, slot.deadline);
    if (slot.state == slot::state::abandoned) {
      const bool kept_back = retry_at_ != never && slot.first_byte >= written_total_;  // the peer has not even seen it
      const bool waits = kept_back || waits_its_turn(slot, at_once);
      if (waits) slot.grace_from = never;
      else if (slot.grace_from == never) slot.grace_from = now;
      const time_point due = (waits ? now : slot.grace_from) + grace;
      if (due <= now) result.overdue = id_of(i);
      else result.next = std::min(result.next, due);
    }
  }
  if (unwatched_) {
    if (turns_ != std::exchange(turns_seen_, turns_)) {  // there were readers since the last look: look less often
      watch_delay_ = std::min(2 * watch_delay_, watch_delay_most);
      result.next = std::min(result.next, now + watch_delay_);
    } else {
      unwatched_ = false;
      watch_delay_ = watch_delay_least;
      rearm(held);
    }
  }
  if (!out_.empty() && retry_at_ <= now && !(reading_ && !blocking_)) {  // such a reader does it itself
    write_some(held);
    rearm(held);
  }
  if (!out_.empty()) result.next = std::min(result.next, retry_at_ > now ? retry_at_ : now + retry_delay);
  time_point since = partial_since_;
  if (!closed_ && since != never && since + limits_.frame_time <= now && !reading_) {
    read_turn(held, now, false);
    release_reader(held, false);
    since = partial_since_;
  }
  if (since != never && !closed_)  // one whose time has passed has a reader, which notices by itself
    result.next = std::min(result.next, (since + limits_.frame_time > now ? since : now) + limits_.frame_time);
  return result;
}

bool channel::fail_all(const std::function<completion(const open_call&)>& decide) {
  lock held(mutex_);
  failed_ = true;
  bool unanswered = false;
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    slot& slot = slots_[i];
    unanswered = unanswered || (slot.state != slot::state::free && slot.sequence > 0);
    if (slot.state == slot::state::pending) {
      const open_call call{slot.sequence, slot.first_byte < written_total_};
      if (const sleeper to = finish(held, i, decide(call))) futex_wake(*to, futex::own);
      if (!held) held.lock();
    } else if (slot.state == slot::state::abandoned) free_slot(i);
  }
  out_.clear();
  out_bytes_ = 0;
  return unanswered;
}

}  // namespace bulkhead::ipc
