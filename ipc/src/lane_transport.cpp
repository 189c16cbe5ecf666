// See lane_transport.hpp. The order that everything here rests on: who goes to sleep stores its word and then loads the
// other's cursor; who has news stores its cursor and then loads the other's word. Each has a full fence between the two, so
// at least one of the two sees the other. A writer leaves the fence to flush(), since it waits there until the cursor's line
// has come from the other CPU; who writes much and flushes late may miss one that just falls asleep, until then.
#include "futex.hpp"
#include <bulkhead/ipc/lane_transport.hpp>

#include <cstring>

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

namespace bulkhead::ipc {
namespace {

constexpr std::uint8_t nil = 0xc0;
constexpr std::size_t early_limit = 4 * socket_transport::most_handles;
constexpr unsigned looks_per_affinity = 64;        // sleeps between two looks at which CPUs there are
constexpr int spurious_limit = 64;                 // wake-ups for nothing before it sleeps where they are counted
constexpr int fruitless_limit = 64;                // times in a row that bells came and nothing else had
constexpr std::uint32_t most_bells_due = 1 << 16;  // more than a socket holds
constexpr int pauses = 32;                         // between two looks at the clock
constexpr std::chrono::nanoseconds most_of_look{5'000};

// What was stored before it is seen by others before anything is loaded after it.
void full_fence() noexcept {
#ifdef __SANITIZE_THREAD__  // which knows no fences; an exchange is as good on the processors that it runs on
  static std::atomic<int> any{0};
  any.exchange(0);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Whether one whose word this is waits, and has not been woken since it said so.
bool to_be_rung(std::uint32_t word, std::uint32_t rung) { return (word & lane_wait_mask) != 0 && word != rung; }

std::chrono::nanoseconds since_epoch(time_point when) { return when.time_since_epoch(); }

}  // namespace

lane_transport::lane_transport(std::unique_ptr<socket_transport> socket, lane_memory mine, lane_memory theirs,
                               bool counts_bells)
    : socket_(std::move(socket)),
      mine_(std::move(mine)),
      theirs_(std::move(theirs)),
      counts_bells_(counts_bells),
      out_(mine_, theirs_),
      in_(mine_, theirs_),
      policy_(lane_options{}.spin, lane_options{}.cpu_budget) {}

void lane_transport::engage() noexcept {
  look_at_cpus();
  engaged_ = true;
}

// --- bytes ----------------------------------------------------------------------------------------------------------

transport::io_result lane_transport::read(std::span<std::uint8_t> into, std::vector<unique_fd>& handles,
                                          bool block) noexcept {
  if (!engaged_.load(std::memory_order_relaxed)) return socket_->read(into, handles, block);
  if (block) wait(true, false, clock::now() + read_patience);
  std::uint32_t bytes = 0;
  for (const bool again : {false, true}) {
    if (!in_.available(bytes)) break_off("a cursor of its lane that makes no sense");
    if (broken_) return {io::violation, 0};
    if (bytes > 0) break;
    if (again) return {ended_ ? io::closed : io::would_block, 0};
    if (!ended_) drain_socket_of_idle_ring();  // then once more: what it sent before its end counts
  }
  const std::size_t taken = std::min<std::size_t>(bytes, into.size());
  in_.take(into.first(taken));
  // A writer sleeps only when the ring is full, and is woken when more than half of it is free: that comes on the way to
  // its end, once, however little is taken at a time.
  if (2 * std::size_t{bytes} >= in_.size() && 2 * (bytes - taken) < in_.size()) {
    full_fence();
    ring(theirs_.control().writer_waits, rung_room_);
  }
  return {io::ok, taken};
}

transport::io_result lane_transport::write(bytes first, bytes second, std::span<const int> handles) noexcept {
  if (!engaged_.load(std::memory_order_relaxed)) return socket_->write(first, second, handles);
  const std::size_t wanted = first.size() + second.size();
  std::uint32_t room = 0;
  if (!out_.room(room, static_cast<std::uint32_t>(std::min<std::size_t>(wanted, mine_.size())))) {
    break_off("a cursor of its lane that makes no sense");
    wake();
  }
  if (broken_ || shut_ || (room == 0 && ended_)) return {io::closed, 0};
  if (room == 0) return {io::would_block, 0};
  if (!handles.empty()) {
    const auto sent = socket_->write({&nil, 1}, {}, handles);
    socket_full_ = sent.status == io::would_block;
    if (sent.status != io::ok) return {sent.status, 0};
  }
  const std::size_t from_first = std::min<std::size_t>(first.size(), room);
  const std::size_t from_second = std::min<std::size_t>(second.size(), room - from_first);
  out_.put(first.first(from_first));
  if (from_second > 0) out_.put(second.first(from_second));
  out_.publish();
  unflushed_ = true;
  if (to_be_rung(theirs_.control().reader_waits.load(std::memory_order_relaxed), rung_data_))
    flush();  // it sleeps already
  return {io::ok, from_first + from_second};
}

void lane_transport::flush() noexcept {
  if (!std::exchange(unflushed_, false)) return;
  full_fence();
  ring(theirs_.control().reader_waits, rung_data_);
}

void lane_transport::collect(std::vector<unique_fd>& handles, std::size_t wanted) noexcept {
  if (!engaged_) return;
  drain_socket();
  const std::size_t missing = wanted - std::min(wanted, handles.size());
  const auto end = early_.begin() + static_cast<std::ptrdiff_t>(std::min(missing, early_.size()));
  handles.insert(handles.end(), std::move_iterator(early_.begin()), std::move_iterator(end));
  early_.erase(early_.begin(), end);
}

// What has come on the socket: doorbells, descriptors, its end. An honest peer rings after it has written, or has made room
// for what waits here to be written; so it is but once or twice in a row that bells come late and nothing has moved since the
// last ones. One that rings whenever it is asked to would keep its reader, or the event loop, busy for ever.
void lane_transport::drain_socket() noexcept {
  const std::uint32_t due = bells_due_;
  take_from_socket();
  if (bells_due_ == due) return;
  const lane_control& mine = mine_.control();
  const std::uint32_t moved = mine.tail.load(std::memory_order_relaxed) + mine.head.load(std::memory_order_relaxed);
  fruitless_ = moved == moved_ ? fruitless_ + 1 : 0;
  moved_ = moved;
  if (fruitless_ > fruitless_limit) break_off("doorbells with nothing behind them");
}

void lane_transport::take_from_socket() noexcept {
  std::uint8_t bells[256];
  while (!ended_ && !broken_ && early_.size() < early_limit) {
    const std::size_t descriptors = early_.size();
    const auto got = socket_->read(bells, early_, false);
    if (got.status == io::would_block) return;
    if (got.status == io::closed) ended_ = true;
    if (got.status == io::violation) break_off(socket_->violation());
    for (std::size_t i = 0; i < got.bytes; ++i)
      if (bells[i] != nil) break_off("bytes on the socket that belong into its lane");
    if (!counts_bells_ || got.bytes == 0) continue;
    // A byte that brought descriptors was no bell. The kernel ends a read behind one.
    const std::size_t rung = got.bytes - (early_.size() > descriptors ? 1 : 0);
    if (rung > bells_due_) return break_off("more doorbells than it was asked for");
    bells_due_ -= static_cast<std::uint32_t>(rung);
    if (got.bytes < sizeof bells && early_.size() == descriptors) return;
  }
}

// When all messages before have taken theirs: no more than one can have sent its descriptors and not its first bytes. A
// peer that sends more would keep the socket readable, and its reader busy, for ever.
void lane_transport::drain_socket_of_idle_ring() noexcept {
  drain_socket();
  if (early_.size() > socket_transport::most_handles && !readable()) break_off("descriptors that no message refers to");
}

// Whoever waits for the socket, be it the event loop, comes to read, and is told.
void lane_transport::break_off(const char* why) noexcept {
  const char* none = nullptr;
  if (broken_.compare_exchange_strong(none, why)) ::shutdown(socket_->native_handle(), SHUT_RD);
}

// --- waiting --------------------------------------------------------------------------------------------------------

bool lane_transport::readable() noexcept {
  std::uint32_t bytes = 0;
  return !in_.available(bytes) || bytes > 0 || ended_ || broken_ || shut_;
}

bool lane_transport::writable() noexcept {
  std::uint32_t room = 0;
  return !out_.room(room) || room > 0 || ended_ || broken_ || shut_;
}

bool lane_transport::ready(bool reading, bool writing) noexcept {
  if (reading && (readable() || woken_.load(std::memory_order_relaxed))) return true;
  return writing && writable();
}

// Whether the other side can run while this one spins.
bool lane_transport::other_cpu() noexcept {
  const std::uint32_t ours = mine_.control().one_cpu.load(std::memory_order_relaxed);
  return ours == 0 || ours != theirs_.control().one_cpu.load(std::memory_order_relaxed);
}

void lane_transport::look_at_cpus() noexcept {
  cpu_set_t allowed;
  std::uint32_t only = 0;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) == 1)
    while (!CPU_ISSET(only++, &allowed)) continue;
  mine_.control().one_cpu.store(only, std::memory_order_relaxed);
}

bool lane_transport::wait(bool for_reading, bool for_writing, time_point deadline) noexcept {
  if (!engaged_.load(std::memory_order_relaxed)) return socket_->wait(for_reading, for_writing, deadline);
  const bool full = socket_full_ && for_writing;  // of the socket's room only the socket tells
  if (full && !for_reading) return socket_->wait(false, true, deadline);
  if (!for_reading) {  // another thread than the reader, which has the policy
    for (int i = 0; i < pauses && !writable(); ++i) pause();
    while (!writable() && (deadline == never || clock::now() < deadline)) {
      sleep_by_futex(false, true, std::min(deadline, clock::now() + read_patience));
      pollfd end{socket_->native_handle(), 0, 0};
      if (::poll(&end, 1, 0) > 0 && (end.revents & (POLLHUP | POLLERR))) ended_ = true;
    }
    return writable();
  }
  const auto is_ready = [&] { return ready(true, for_writing && !full); };
  bool there = is_ready();
  if (full) {
    there = there || sleep_by_socket(false, true, deadline) || is_ready();
  } else if (!there) {
    const time_point begun = clock::now();
    const auto window = policy_.window(since_epoch(begun), other_cpu());
    const time_point spin_end = std::min(deadline, begun + window);
    time_point now = begun;
    while (!there && now < spin_end) {
      for (int i = 0; i < pauses && !(there = is_ready()); ++i) pause();
      now = clock::now();
    }
    const bool slept = !there;
    const auto spun = now - begun;
    const time_point patience = now + read_patience;
    for (int spurious = 0; !there && now < deadline;) {
      if (now < patience && spurious++ < spurious_limit)
        sleep_by_futex(true, for_writing, std::min(deadline, patience));
      else sleep_by_socket(for_writing, false, deadline);
      there = is_ready();
      now = clock::now();
    }
    if (slept && ++looked_ % looks_per_affinity == 0) look_at_cpus();
    policy_.ended(now - begun, spun, slept);
    if (const time_point rung = rung_at_.exchange(never, std::memory_order_relaxed); there && rung != never)
      policy_.woke_peer(now - rung);
  }
  if (there) woken_.store(false, std::memory_order_relaxed);
  return there;
}

void lane_transport::say(std::atomic<std::uint32_t>& word, std::uint32_t& epoch, std::uint32_t how) noexcept {
  if (how == 0) return word.store(0, std::memory_order_relaxed);
  epoch += lane_wait_mask + 1;
  if (how == by_socket && bells_due_ < most_bells_due) ++bells_due_;  // most are never rung
  word.store(epoch | how, std::memory_order_relaxed);
  full_fence();
}

void lane_transport::sleep_by_futex(bool reading, bool writing, time_point until) noexcept {
  const auto& bell = theirs_.control().bell;
  const std::uint32_t heard = bell.load(std::memory_order_acquire);
  say_all(reading, writing, by_futex);
  if (!ready(reading, writing)) futex_wait(bell, heard, until - clock::now(), futex::shared);
  say_all(reading, writing, 0);
}

// `full`: until there is room in the socket, too. Whether something happened at the socket.
bool lane_transport::sleep_by_socket(bool writing, bool full, time_point until) noexcept {
  bool any = false;
  say_all(true, writing, by_socket);
  // It looks once more later: a peer that has not flushed yet may have missed it, and what it wrote is there by then.
  if (!ready(true, writing)) {
    const time_point once_more = std::min(until, clock::now() + read_patience);
    any = socket_->wait(true, full, once_more) || (!ready(true, writing) && socket_->wait(true, full, until));
    drain_socket_of_idle_ring();
  }
  say_all(true, writing, 0);
  return any;
}

void lane_transport::say_all(bool reading, bool writing, std::uint32_t how) noexcept {
  if (reading) {
    sleeping_ = how;
    say(mine_.control().reader_waits, reader_epoch_, how);
  }
  if (writing) say(mine_.control().writer_waits, writer_epoch_, how);
}

// Wakes the peer if it waits, once each time it says so. After a full fence: a word that was loaded before it may be that of
// another sleep, which a peer that sleeps at its socket now has ended by itself.
void lane_transport::ring(const std::atomic<std::uint32_t>& waits, std::uint32_t& rung) noexcept {
  const std::uint32_t word = waits.load(std::memory_order_seq_cst);
  if (!to_be_rung(word, rung)) return;
  rung = word;
  if (&waits == &theirs_.control().reader_waits) rung_at_.store(clock::now(), std::memory_order_relaxed);
  if ((word & lane_wait_mask) == by_futex) {
    auto& bell = mine_.control().bell;
    bell.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(bell, futex::shared);
  } else {
    socket_->write({&nil, 1}, {}, {});  // when the socket is full of them, the peer will hear of it anyway
  }
}

void lane_transport::wake() noexcept {
  if (!engaged_) return socket_->wake();
  woken_ = true;
  // Between the reader's last look and its sleep on a futex there is a moment in which a wake-up finds nobody.
  while (woken_ && sleeping_ == by_futex && futex_wake(theirs_.control().bell, futex::shared) == 0) ::sched_yield();
  if (sleeping_ == by_socket) socket_->wake();
}

void lane_transport::shutdown() noexcept {
  socket_->shutdown();
  if (!engaged_) return;
  shut_ = true;
  wake();
}

// --- the event loop -------------------------------------------------------------------------------------------------

transport::interest lane_transport::watch(bool reading, bool writing) noexcept {
  if (!engaged_) return {reading, writing};
  lane_control& mine = mine_.control();
  // What was not said here was said by the reader, who may be asleep.
  if (reading || watching_read_) say(mine.reader_waits, reader_epoch_, reading ? by_socket : 0u);
  if (writing || watching_write_) say(mine.writer_waits, writer_epoch_, writing ? by_socket : 0u);
  watching_read_ = reading;
  watching_write_ = writing;
  const bool wanted = reading || writing;
  // What is there already comes as an event at once, for the socket has room. (A wake-up is no business of the loop's.)
  return {wanted, wanted && ((reading && readable()) || (writing && writable()) || socket_full_)};
}

// Counted as spinning is: a look with the way to it through the loop, but no more of that than it takes when the loop has
// nothing else to do. What the loop does for others is not.
bool lane_transport::linger(bool found) noexcept {
  if (!engaged_) return false;
  const time_point now = clock::now();
  if (found) {
    if (looked_for_.count() > 0 || lingered_out_) policy_.ended(now - lingers_since_, looked_for_, lingered_out_);
    lingers_since_ = looked_at_ = now;
    looked_for_ = {};
    linger_window_ = policy_.window(since_epoch(now), other_cpu());
    lingered_out_ = linger_window_.count() == 0;
    return !lingered_out_;
  }
  looked_for_ += std::min<std::chrono::nanoseconds>(now - std::exchange(looked_at_, now), most_of_look);
  lingered_out_ = lingered_out_ || now - lingers_since_ >= linger_window_;
  return !lingered_out_;
}

void lane_transport::on_event() noexcept {
  if (!engaged_) return;
  watch(false, false);
  drain_socket();
}

}  // namespace bulkhead::ipc
