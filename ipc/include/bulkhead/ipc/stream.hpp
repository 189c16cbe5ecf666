// One end of a call's stream: items that come and items that go, each direction with credit of its own.
//
// The idea: whoever takes items says beforehand how many bytes of them it keeps (its window), and gives that much credit
// anew as they are taken out. So a sender that is faster than its receiver waits, and nowhere is more kept than a window.
// Both sides of a channel use this class, and a plugin in the host's own process, whose two ends are linked directly.
//
// Thread-safe. Items of one direction keep their order when one thread at a time sends them.
#pragma once

#include <bulkhead/ipc/message.hpp>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

namespace bulkhead::ipc {

// Bytes that an end keeps, unless told otherwise.
inline constexpr std::size_t default_stream_window = std::size_t{1} << 20;
// Bytes that it may be told to keep.
inline constexpr std::size_t most_stream_window = std::size_t{16} << 20;

// One end of a call's stream, in either process.
class stream {
 public:
  // How what this end says reaches the other one: called by one thread at a time, without the lock that events take.
  class link {
   public:
    virtual ~link() = default;
    virtual void item(byte_span value) = 0;    // one packed value
    virtual void more(std::size_t bytes) = 0;  // the other end may send as many more
    virtual void end() = 0;                    // no more items
  };
  // What came of sending or receiving one item.
  enum class result {
    ok,         // it was sent, or is there
    end,        // no more items: of the other side's when receiving; of one's own, after close(), when sending
    over,       // the call has ended, or was cancelled, or its deadline has passed
    too_large,  // sending: the item is larger than the other side's whole window
  };

  // `window`: bytes of items kept until receive() takes them. Those it may not be told of by `told` (a worker) are
  // granted when the first is wanted. `peer_window`: what the other side has granted already; 0: it will say.
  stream(std::size_t window, bool told, std::size_t peer_window = 0, time_point deadline = never);
  virtual ~stream() = default;
  stream(const stream&) = delete;

  // From here on, what is said goes this way. Takes the lock of events only.
  void attach(std::shared_ptr<link> to);

  // Sends one packed value. Blocks while there is no credit for it.
  result send(byte_span item);
  // The next item, one packed value. Blocks until there is one. What has come is given out even when the call is over.
  result receive(std::vector<std::uint8_t>& item);
  // No more items from this end.
  void close();
  // Says so, if it was closed before there was a link.
  void catch_up();
  // The call is over: nothing is sent any more, and whoever waits is woken. With `forget`, what has come is dropped.
  void stop(bool forget);
  // The same, and after it returns nothing is being said any more either.
  void stop_saying();

  // The other side's word. A text says which rule it broke; null: none.
  const char* on_item(byte_span item);
  const char* on_more(std::uint64_t bytes);  // the same, of credit for items sent from here
  const char* on_end();                      // the same, when it sends no more

  // From here on this end keeps nothing but passes on: what comes is said to `onward` at once, by the thread that brings it,
  // and credit is what the far end gives. Before anything has come; send() and receive() are not to be used then.
  void relay(std::shared_ptr<link> onward);
  // The far end's word, from one thread at a time. Never block. A text says which rule it broke; null: none.
  const char* pass_item(byte_span item);
  const char* pass_more(std::uint64_t bytes);  // the same, of credit for items that come here
  const char* pass_end();                      // the same, when it sends no more

  // Begins anew with another peer, unless items have moved already: then false.
  bool restart();

  std::size_t window() const { return window_; }  // bytes of items that this end keeps
  std::size_t peer_window() const;                // 0: not said yet
  std::uint64_t received() const;                 // items given out

 protected:
  using lock = std::unique_lock<std::mutex>;  // of mutex_
  // Waits until events() is no longer `seen`, the deadline has come, or for no reason. The lock is held before and after.
  virtual void wait(lock& held, std::uint64_t seen);
  // Makes those who wait look again. The lock is not held.
  virtual void wake() { changed_.notify_all(); }
  // Counts what may have ended a wait. Takes no lock.
  std::uint64_t events() const { return events_.load(std::memory_order_acquire); }
  // How many threads wait in send() and receive(). Takes no lock.
  unsigned waiting() const { return waiting_.load(std::memory_order_relaxed); }
  // Whether the call is over. The lock is held.
  bool over() const { return over_; }
  // Whether its deadline has passed. The lock is held.
  bool is_late() const { return deadline_ != never && clock::now() >= deadline_; }
  // The deadline has passed, as one that sends or receives has seen: the call is over, whatever else comes. The lock is not
  // held.
  virtual void expire() { stop(false); }
  // wait() for the next event, counted by waiting(). The lock is held before and after.
  void wait_turn(lock& held);

  mutable std::mutex mutex_;   // that of events: of all that follows but the link
  const time_point deadline_;  // of the call

 private:
  void happened(lock& held);
  void grant(lock& held);
  void take_front(std::vector<std::uint8_t>& item);

  std::condition_variable changed_;
  bool over_ = false;
  const std::size_t window_;
  const bool told_;
  std::mutex saying_;  // held while the link is used; taken before mutex_
  std::shared_ptr<link> link_;
  std::shared_ptr<link> onward_;  // null: items are kept here
  std::atomic<std::uint64_t> events_{0};
  std::atomic<unsigned> waiting_{0};
  bool woken_ = false;

  std::size_t peer_window_, credit_;
  bool closed_ = false, end_said_ = false;

  std::vector<std::uint8_t> kept_;  // items back to back: as MessagePack values they know their ends
  std::size_t taken_ = 0;           // bytes of kept_ that are given out already
  std::size_t granted_;             // what the other side may still send
  std::size_t owed_;                // to be granted
  bool ended_ = false;
  bool moved_ = false;
  std::uint64_t received_ = 0;
};

// What travels on a channel about the stream of call `id`, each a whole notification. See docs/protocol.md.
buffer make_open(std::uint32_t id, std::size_t window);  // $/open: the window of this end, in bytes
buffer make_item(std::uint32_t id, byte_span value);     // $/item: one packed value
buffer make_more(std::uint32_t id, std::size_t bytes);   // $/more: credit
buffer make_end(std::uint32_t id);                       // $/end: no more items

// Whether a notification is about a stream, $/open excepted.
bool is_about_stream(std::string_view method);
// What such a notification says.
struct about_stream {
  std::uint32_t id = 0;  // of the call
  byte_span value;       // of $/item, $/more
};
// Nothing when the parameters of `notification` are not as they should be.
std::optional<about_stream> read_about_stream(const message& notification);
// Tells `at` what `notification` says; gives back what is wrong with it.
const char* tell(stream& at, std::string_view method, byte_span value);
// The same for one that passes on, when it is the far end that says it.
const char* pass(stream& at, std::string_view method, byte_span value);

// The link over a channel.
class framed_link final : public stream::link {
 public:
  // Puts one message on the channel. Called as the functions of a link are.
  using sender = std::function<void(std::vector<std::uint8_t> frame)>;
  // For the stream of call `id`.
  framed_link(std::uint32_t id, sender send) : id_(id), send_(std::move(send)) {}
  // Sends $/item.
  void item(byte_span value) override { send_(make_item(id_, value).take()); }
  // Sends $/more.
  void more(std::size_t bytes) override { send_(make_more(id_, bytes).take()); }
  // Sends $/end.
  void end() override { send_(make_end(id_).take()); }

 private:
  const std::uint32_t id_;
  const sender send_;
};

}  // namespace bulkhead::ipc
