// See stream.hpp. Two locks: one for the state, which events take, and one for the order of what is said, which they
// never take; so whoever reads a channel is never held up by somebody who writes to it.
#include <bulkhead/ipc/scanner.hpp>
#include <bulkhead/ipc/stream.hpp>

namespace bulkhead::ipc {

stream::stream(std::size_t window, bool told, std::size_t peer_window, time_point deadline)
    : deadline_(deadline),
      window_(window),
      told_(told),
      peer_window_(peer_window),
      credit_(peer_window),
      granted_(told ? window : 0),
      owed_(window - granted_) {}

void stream::attach(std::shared_ptr<link> to) {
  std::lock_guard held(mutex_);
  link_ = std::move(to);
}

// --- out ------------------------------------------------------------------------------------------------------------

stream::result stream::send(byte_span item) {
  for (;;) {
    std::unique_lock saying(saying_);
    lock held(mutex_);
    if (closed_) return result::end;
    if (over_) return result::over;
    if (is_late()) {
      saying.unlock();
      held.unlock();
      expire();
      continue;
    }
    if (peer_window_ > 0 && item.size() > peer_window_) return result::too_large;
    if (credit_ >= item.size()) {
      credit_ -= item.size();
      moved_ = true;
      const auto to = link_;
      held.unlock();
      to->item(item);
      return result::ok;
    }
    saying.unlock();
    wait_turn(held);
  }
}

void stream::close() {
  {
    std::lock_guard held(mutex_);
    closed_ = true;
  }
  catch_up();
}

void stream::catch_up() {
  std::unique_lock saying(saying_);
  lock held(mutex_);
  if (!closed_ || end_said_ || over_ || !link_) return;
  end_said_ = true;
  const auto to = link_;
  held.unlock();
  to->end();
}

void stream::stop(bool forget) {
  lock held(mutex_);
  over_ = true;
  if (forget) {
    kept_ = {};
    taken_ = 0;
  }
  happened(held);
}

void stream::stop_saying() {
  std::lock_guard saying(saying_);
  stop(false);
}

// --- in -------------------------------------------------------------------------------------------------------------

stream::result stream::receive(std::vector<std::uint8_t>& item) {
  lock held(mutex_);
  for (;;) {
    if (taken_ < kept_.size()) {
      take_front(item);
      if (owed_ >= window_ / 2) grant(held);
      return result::ok;
    }
    if (ended_) return result::end;
    if (over_) return result::over;
    if (is_late()) {  // what has come by the time that the call is over is given out: look once more
      held.unlock();
      expire();
      held.lock();
      continue;
    }
    if (owed_ > 0) {  // all of it: the next item may need the whole window
      grant(held);
      held.lock();
      continue;
    }
    wait_turn(held);
  }
}

void stream::take_front(std::vector<std::uint8_t>& item) {
  const byte_span rest = byte_span(kept_).subspan(taken_);
  const std::size_t size = value_size(rest);
  item.assign(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
  taken_ += size;
  owed_ += size;
  ++received_;
  if (taken_ == kept_.size()) {
    kept_.clear();
    taken_ = 0;
  } else if (taken_ > kept_.size() / 2) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(taken_));
    taken_ = 0;
  }
}

// Gives credit for what was taken. Unlocks.
void stream::grant(lock& held) {
  const std::size_t bytes = std::exchange(owed_, 0);
  const bool wanted = !ended_ && !over_;
  if (wanted) granted_ += bytes;
  held.unlock();
  if (!wanted) return;
  std::lock_guard saying(saying_);
  held.lock();
  const auto to = over_ ? nullptr : link_;
  held.unlock();
  if (to) to->more(bytes);
}

const char* stream::on_item(byte_span item) {
  lock held(mutex_);
  if (ended_) return "an item after the end of its stream";
  if (item.size() > granted_) return "more items than it had credit for";
  granted_ -= item.size();
  if (over_) return nullptr;
  moved_ = true;
  if (const auto to = onward_) {
    held.unlock();
    to->item(item);
    return nullptr;
  }
  kept_.insert(kept_.end(), item.begin(), item.end());
  happened(held);
  return nullptr;
}

const char* stream::on_more(std::uint64_t bytes) {
  lock held(mutex_);
  if (peer_window_ == 0) {
    if (bytes == 0 || bytes > most_stream_window) return "a window out of range";
    peer_window_ = static_cast<std::size_t>(bytes);
  } else if (bytes > peer_window_ - credit_) {
    return "more credit than its window";
  }
  credit_ += static_cast<std::size_t>(bytes);
  if (const auto to = onward_) {
    moved_ = true;  // the far end has been told of this peer's window, and no other may have another
    held.unlock();
    to->more(static_cast<std::size_t>(bytes));
    return nullptr;
  }
  happened(held);
  return nullptr;
}

const char* stream::on_end() {
  lock held(mutex_);
  if (ended_) return "a second end of its stream";
  ended_ = true;
  moved_ = true;
  if (const auto to = onward_) {
    held.unlock();
    to->end();
    return nullptr;
  }
  happened(held);
  return nullptr;
}

// --- passing on -----------------------------------------------------------------------------------------------------

void stream::relay(std::shared_ptr<link> onward) {
  std::lock_guard held(mutex_);
  onward_ = std::move(onward);
}

const char* stream::pass_item(byte_span item) {
  std::lock_guard saying(saying_);
  lock held(mutex_);
  if (closed_) return "an item after the end of its stream";
  if (item.size() > credit_) return "more items than it had credit for";
  credit_ -= item.size();
  const auto to = over_ ? nullptr : link_;
  held.unlock();
  if (to) to->item(item);
  return nullptr;
}

const char* stream::pass_more(std::uint64_t bytes) {
  std::lock_guard saying(saying_);
  lock held(mutex_);
  if (bytes > window_ - granted_) return "more credit than its window";
  granted_ += static_cast<std::size_t>(bytes);
  const auto to = over_ || ended_ ? nullptr : link_;
  held.unlock();
  if (to) to->more(static_cast<std::size_t>(bytes));
  return nullptr;
}

const char* stream::pass_end() {
  {
    std::lock_guard held(mutex_);
    if (closed_) return "a second end of its stream";
  }
  close();
  return nullptr;
}

bool stream::restart() {
  std::lock_guard held(mutex_);
  if (moved_) return false;
  link_.reset();
  peer_window_ = credit_ = 0;
  granted_ = told_ ? window_ : 0;
  owed_ = window_ - granted_;
  end_said_ = false;
  return true;
}

std::size_t stream::peer_window() const {
  std::lock_guard held(mutex_);
  return peer_window_;
}

std::uint64_t stream::received() const {
  std::lock_guard held(mutex_);
  return received_;
}

// --- waiting --------------------------------------------------------------------------------------------------------

void stream::wait_turn(lock& held) {
  ++waiting_;
  woken_ = false;
  wait(held, events());
  --waiting_;
}

void stream::wait(lock& held, std::uint64_t seen) {
  const auto news = [&] { return events() != seen; };
  if (deadline_ == never) changed_.wait(held, news);
  else changed_.wait_until(held, deadline_, news);
}

// Something has changed: those who wait are woken once, until they wait again. Unlocks.
void stream::happened(lock& held) {
  events_.fetch_add(1, std::memory_order_release);
  const bool tell = waiting_ > 0 && !std::exchange(woken_, true);
  held.unlock();
  if (tell) wake();
}

// --- messages -------------------------------------------------------------------------------------------------------

namespace {

buffer about(std::string_view method, std::uint32_t id, unsigned elements, std::size_t room = 0) {
  buffer out;
  out.bytes().reserve(32 + room);
  packer(out).pack_array(3).pack(2).pack(method).pack_array(elements).pack(id);
  return out;
}

}  // namespace

buffer make_open(std::uint32_t id, std::size_t window) {
  buffer out = about("$/open", id, 2);
  packer(out).pack(window);
  return out;
}

buffer make_item(std::uint32_t id, byte_span value) {
  buffer out = about("$/item", id, 2, value.size());
  out.append(value);
  return out;
}

buffer make_more(std::uint32_t id, std::size_t bytes) {
  buffer out = about("$/more", id, 2);
  packer(out).pack(bytes);
  return out;
}

buffer make_end(std::uint32_t id) { return about("$/end", id, 1); }

bool is_about_stream(std::string_view method) { return method == "$/item" || method == "$/more" || method == "$/end"; }

std::optional<about_stream> read_about_stream(const message& notification) {
  byte_span rest = notification.params;
  const auto elements = take_array(rest);
  const auto id = elements ? take_unsigned(rest) : std::nullopt;
  if (!id || *elements != (notification.method == "$/end" ? 1u : 2u)) return std::nullopt;
  return about_stream{*id, rest};
}

const char* tell(stream& at, std::string_view method, byte_span value) {
  if (method == "$/item") return at.on_item(value);
  if (method == "$/end") return at.on_end();
  const auto bytes = take_unsigned(value);
  return bytes && value.empty() ? at.on_more(*bytes) : "credit that is no number";
}

const char* pass(stream& at, std::string_view method, byte_span value) {
  if (method == "$/item") return at.pass_item(value);
  if (method == "$/end") return at.pass_end();
  const auto bytes = take_unsigned(value);
  return bytes && value.empty() ? at.pass_more(*bytes) : "credit that is no number";
}

}  // namespace bulkhead::ipc
