// A MessagePack-RPC peer over a transport; host and worker use the same class.
//
// The idea: one thread reads at a time, and whoever waits for an answer reads. A thread in wait() takes the reader's
// role when it is free, hands answers to the other waiters as they arrive, and passes the role on when its own has
// come. So a synchronous call needs no other thread and no hop. While nobody waits, the owner's event loop reads: the
// channel arms it through `wakeups`, and on_event() does the work. While answers to asynchronous calls keep coming it is
// not armed but called again at once: then the peer need not ring.
//
// Every call of ours takes a slot; its id is slot + generation, so an answer is matched exactly once and a forged or
// repeated id is a violation. A call given up (deadline, cancel) leaves its slot behind as a tombstone until the late
// answer comes, which is dropped and counted.
//
// Thread-safe unless said otherwise. Nothing blocks but wait() and, on a channel without wakeups, send().
#pragma once

#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/recycled.hpp>
#include <bulkhead/ipc/scanner.hpp>
#include <bulkhead/ipc/transport.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

namespace bulkhead::ipc {

class channel;

// A synchronous caller's place; lives on its stack from start() to the end of wait() or abandon(), or until an exception
// ends it: then its call is given up.
class waiter {
 public:
  waiter() = default;
  waiter(const waiter&) = delete;
  ~waiter();
  completion result;
  bool interruptible = false;  // another thread may abandon() it: set before wait()

 private:
  friend class channel;
  // What one that another thread reads for sleeps on: `nudged` to look around. Once it is `done` nobody touches it any more.
  enum state : std::uint32_t { waiting, nudged, done };
  std::atomic<std::uint32_t> state_{waiting};
  channel* of_ = nullptr;  // where a call of its was started
};

// Asynchronous completion: called exactly once, on whichever thread learns of the end, and destroyed after that, both
// without the channel's lock.
class async_completion : public recycled {
 public:
  virtual ~async_completion() = default;
  virtual void complete(completion&& result) = 0;
};

class channel {
 public:
  // The owner's side. Called on the reading thread, without the channel's lock; must not block.
  class receiver {
   public:
    virtual ~receiver() = default;
    virtual void on_request(const message& request, std::vector<unique_fd> handles) = 0;
    virtual void on_notification(const message& notification, std::vector<unique_fd> handles) = 0;
    // Once: the peer has closed, or it broke the protocol (`violation` says how). Calls in progress stay open until
    // fail_all(), since only the owner knows what became of the peer.
    virtual void on_closed(const std::string& violation) = 0;
    // The answer to a call that had been given up has come; nothing about that call can come any more.
    virtual void on_late_answer(std::uint32_t) {}
    // A result has come that refers to blobs: takes hold of them. A text says what is wrong with it; null: nothing.
    virtual const char* hold_blobs(byte_span, std::vector<std::shared_ptr<held_blob>>&) { return nullptr; }
    // Descriptors that came and that nobody wants. Their last close may block.
    virtual void discard(std::vector<unique_fd> handles) { handles.clear(); }
  };

  // The owner's event loop. Called with the channel's lock held; must not call back.
  class wakeups {
   public:
    virtual ~wakeups() = default;
    // Call on_event() once when the transport is ready for what is asked; replaces what was asked before.
    virtual void arm(bool reading, bool writing) = 0;
    // Call tick() no later than this.
    virtual void schedule(time_point when) = 0;
    // Call look_again() soon, when others have had their turn. Nothing is armed for reading meanwhile. False: it can't.
    virtual bool again() { return false; }
  };

  // `loop` may be null: then nobody reads but those who wait(), and send() blocks until its bytes are written.
  channel(std::unique_ptr<transport> transport, const limits& limits, receiver& receiver, wakeups* loop);
  ~channel();
  channel(const channel&) = delete;

  // Arms the event loop for the first time.
  void open();

  struct started {
    outcome code = outcome::ok;  // ok, overloaded, rejected (too large), not_sent (closed)
    std::uint32_t id = 0;
  };
  // Sends a request made by begin_request(); its id is filled in. `before` (may be empty) is a whole frame sent just
  // ahead of it. Exactly one of `sync` and `async` is given; unless the code is ok, it is left untouched.
  started start(std::vector<std::uint8_t> frame, std::vector<unique_fd> handles, time_point deadline, waiter* sync,
                std::unique_ptr<async_completion>* async, const std::function<buffer(std::uint32_t)>& before = {}) {
    return start(frame, {}, std::move(handles), deadline, sync, async, before);
  }
  // The same in two pieces, which need not be copied together: the beginning, and the packed parameters.
  started start(std::span<std::uint8_t> head, byte_span params, std::vector<unique_fd> handles, time_point deadline,
                waiter* sync, std::unique_ptr<async_completion>* async,
                const std::function<buffer(std::uint32_t)>& before = {});

  // Keeps back what is sent from now on, until one who knows how the peer wants it calls release(): by its lane, or by
  // the socket as before. With an event loop only.
  void hold();
  void release(bool by_lane);
  // From now on by lanes, without an event loop: between two messages, on the reading thread.
  void engage() { transport_->engage(); }

  enum class wait_result { done, deadline, closed };
  // Waits for a call started with `caller`, reading if nobody else does. `closed` means that the channel is closed and
  // the answer hangs on fail_all(); call wait_closed() for it.
  wait_result wait(waiter& caller, time_point deadline);
  // Waits without reading, for fail_all() or the deadline. True when the call is done.
  bool wait_closed(waiter& caller, time_point deadline);

  // Gives a call up: its caller gets `code` at once (a synchronous one through its waiter), the peer gets $/cancel.
  // Nothing happens when it has ended meanwhile. True when it was still open.
  bool abandon(std::uint32_t id, outcome code, const std::string& why);

  // Reads and dispatches, or lets another thread do so, until `stop` turns true or the channel is closed. `stop` is
  // looked at after each read and after wake(); it must not call the channel. `interruptible`: other threads than the one
  // that reads call wake(). False when the deadline came first.
  bool run(const std::function<bool()>& stop, time_point deadline = never, bool interruptible = false);
  void wake();
  // Reads what is there without blocking, when nobody else is reading.
  void poll();

  // Sends a whole frame: a notification or a response. False when the channel is closed, or its queue is over the
  // limit (only with wakeups; without, it blocks).
  bool send(std::vector<std::uint8_t> frame, std::vector<unique_fd> handles = {}) {
    return send(frame, {}, std::move(handles));
  }
  bool send(byte_span first, byte_span second, std::vector<unique_fd> handles) {
    return send(first, second, std::move(handles), limits_.queued_bytes);
  }
  // The same for a small frame that the peer can't do without: there are `vital_bytes` for these past what others may fill,
  // which is enough for any peer that reads what it has asked for.
  bool send_vital(byte_span frame, std::vector<unique_fd> handles = {}) {
    return send(frame, {}, std::move(handles), std::max(limits_.queued_bytes, limits_.frame) + vital_bytes);
  }
  static constexpr std::size_t vital_bytes = std::size_t{1} << 20;

  // For the event loop.
  void on_event(bool readable, bool writable);
  void look_again();

  struct tick_result {
    time_point next = never;                 // when to come again
    std::optional<std::uint32_t> overdue{};  // a call given up that has had no answer for longer than the grace
  };
  // Ends asynchronous calls whose deadline has passed; notices partial messages that take too long (a violation). The
  // grace of a call given up begins when the peer, which runs `at_once` calls at a time, can have come to it.
  tick_result tick(time_point now, std::chrono::nanoseconds grace, unsigned at_once = 1);

  // What is known of a call still open when the channel has failed.
  struct open_call {
    std::uint64_t sequence;  // 1 for the first request ever sent on this channel
    bool written;            // its first byte was handed to the transport
  };
  // Ends every open call with what `decide` makes of it and refuses all that come later. Whether there were any calls that
  // the peer had not answered, those given up included.
  bool fail_all(const std::function<completion(const open_call&)>& decide);

  // Descriptors that came with a message which was never complete. When nobody reads any more.
  std::vector<unique_fd> take_leftover_handles() {
    transport_->collect(handles_, SIZE_MAX);
    return std::move(handles_);
  }

  // Bytes that wait for the peer to read.
  std::size_t unsent();
  // Whether some wait because the system has nothing left to send them with: the peer can't know of them.
  bool starved();

  // Closes from our side: the reader sees the end of the stream.
  void shutdown();
  bool closed() const { return closed_.load(std::memory_order_acquire); }

  // Calls of ours in progress, tombstones included.
  unsigned outstanding() const { return outstanding_.load(std::memory_order_relaxed); }
  // Answers that came after their call had been given up.
  std::uint64_t late_answers() const { return late_.load(std::memory_order_relaxed); }

 private:
  struct slot {
    enum class state { free, pending, abandoned } state = state::free;
    std::uint32_t generation = 0;
    waiter* sync = nullptr;
    std::unique_ptr<async_completion> async;
    time_point deadline = never;
    time_point grace_from = never;  // given up: when it first had its turn
    std::uint64_t sequence = 0;
    std::uint64_t first_byte = 0;  // position in the outgoing stream
  };
  struct outgoing {
    std::vector<std::uint8_t> bytes;
    std::vector<unique_fd> handles;
    std::size_t written = 0;
  };
  // Of an id: its slot, and which of the calls that the slot has had.
  static constexpr unsigned slot_bits = 12;
  static constexpr std::uint32_t slot_mask = (1u << slot_bits) - 1, generation_mask = (1u << (32 - slot_bits)) - 1;
  using lock = std::unique_lock<std::mutex>;

  bool send(byte_span first, byte_span second, std::vector<unique_fd>&& handles, std::size_t limit);
  void enqueue(lock& held, byte_span first, byte_span second, std::vector<unique_fd>&& handles);
  bool wants_room() const { return loop_ && !out_.empty() && retry_at_ == never; }
  void retry_later();
  bool write_one(byte_span first, byte_span second, std::vector<unique_fd>& handles, std::size_t& written);
  void write_some(lock& held);
  void write_all(lock& held);
  bool read_turn(lock& held, time_point deadline, bool block);
  bool read_some(lock& held);
  bool read_unlocked(bool block, bool& ended);
  using sleeper = const std::atomic<std::uint32_t>*;  // to be woken; null: nobody
  sleeper finish(lock& held, std::uint32_t index, completion&& result);
  sleeper hand_over(waiter& to, completion&& result);
  bool take_bytes(byte_span bytes);
  bool dispatch(byte_span frame, unsigned handle_count, unsigned blobs);
  bool on_response(const message& response, byte_span frame, std::vector<unique_fd>&& handles);
  bool violate(std::string what);
  void close(lock& held, const std::string& violation);
  bool follow(lock& held, waiter& caller, time_point deadline);
  void nudge(waiter& follower);
  void look(lock& held);
  void release_reader(lock& held, bool more_likely);
  void rearm(lock& held);
  slot* find(std::uint32_t id);
  std::uint32_t id_of(std::uint32_t index) const {
    return (slots_[index].generation & generation_mask) << slot_bits | index;
  }
  bool waits_its_turn(const slot& mine, unsigned at_once) const;
  std::unique_ptr<async_completion> take_async(slot& slot);
  void free_slot(std::uint32_t index);
  friend class waiter;
  void forget(waiter& gone);
  void give_up(lock& held, std::uint32_t index, outcome code, const std::string& why);

  const limits limits_;
  const std::unique_ptr<transport> transport_;
  receiver& receiver_;
  wakeups* const loop_;

  std::mutex mutex_;
  std::deque<slot> slots_;  // stable addresses
  std::vector<std::uint32_t> free_;
  std::uint64_t sequence_ = 0;
  std::deque<outgoing> out_;
  std::size_t out_bytes_ = 0;
  std::uint64_t queued_total_ = 0, written_total_ = 0;
  std::uint64_t answered_to_ = 0;  // where the latest of the calls that were answered began
  std::condition_variable drained_;
  bool writing_ = false;
  bool written_closed_ = false;  // the peer takes no more
  static constexpr std::chrono::milliseconds retry_delay{10};
  time_point retry_at_ = never;  // what waits is tried again then, though there is room
  bool held_back_ = false;       // between hold() and release()
  bool reading_ = false;
  bool blocking_ = false;       // the reader waits inside the read
  bool unwatched_ = false;      // nobody reads and the event loop is not armed yet
  bool looking_ = false;        // look_again() is to come
  unsigned async_pending_ = 0;  // with an event loop
  std::uint64_t turns_ = 0, turns_seen_ = 0;
  static constexpr std::chrono::milliseconds watch_delay_least{1}, watch_delay_most{8};
  std::chrono::milliseconds watch_delay_ = watch_delay_least;
  bool opened_ = false;
  bool failed_ = false;
  bool armed_read_ = false, armed_write_ = false;
  std::vector<waiter*> followers_;  // waiting while another thread reads
  std::atomic<bool> closed_{false};
  std::atomic<unsigned> outstanding_{0};
  std::atomic<std::uint64_t> late_{0};

  // Of the reading thread alone.
  std::vector<sleeper> answered_;  // sleepers to wake when what has come is dealt with
  scanner scanner_;
  std::vector<std::uint8_t> partial_;
  std::vector<unique_fd> handles_;
  std::string violation_;
  std::atomic<time_point> partial_since_{never};
};

}  // namespace bulkhead::ipc
