// The host's event loop for channels, worker exits, logs and timers: an epoll set of our own that Asio watches as one
// descriptor. So it runs on any executor, and a descriptor can be armed and disarmed from any thread with one system
// call, without waking the loop: a synchronous caller that reads for itself must not wake anybody else.
#pragma once

#include "owned_mutex.hpp"
#include <bulkhead/ipc/limits.hpp>
#include <bulkhead/ipc/system.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>  // before Asio: see plugin.hpp
#include <vector>

namespace bulkhead {

class reactor : public std::enable_shared_from_this<reactor> {
 public:
  // What is called when a descriptor is ready or a timer has fired: one at a time, on a thread of the executor or of help().
  class target {
   public:
    virtual ~target() = default;
    virtual void on_ready(int tag, std::uint32_t events) = 0;
    virtual void on_timer() = 0;
  };

  explicit reactor(boost::asio::any_io_executor executor);
  void start();
  // Ends its work on the executor, which it has no more of when that is run once again.
  void stop();
  // Takes it off the executor, whose context may go away then. After stop().
  void close();

  // A name for a watch. It is asked for beforehand, so that whoever is told of the first event knows it.
  std::uint64_t new_watch() noexcept { return next_id_++; }
  // Watches a descriptor for a target that may go away at any time. Armed with `events` (EPOLL…), once: after it was
  // ready, arm() has to be called again. The descriptor must stay open until remove(). Arming and removing what is not
  // watched does nothing.
  void add(std::uint64_t id, int fd, std::weak_ptr<target> target, int tag, std::uint32_t events);
  void arm(int fd, std::uint64_t id, std::uint32_t events) noexcept;
  void remove(int fd, std::uint64_t id) noexcept;

  // Calls on_timer() once, at `when` or a little later.
  void schedule(ipc::time_point when, std::weak_ptr<target> target);

  // Calls on_ready(tag, 0) when what is in the executor's queue has had its turn. False when it has been stopped.
  bool again(std::weak_ptr<target> target, int tag);

  // For a thread that waits for something to happen while perhaps nobody runs the executor: does its work for one turn,
  // which comes at `until` at the latest.
  void help(ipc::time_point until);
  static constexpr std::chrono::milliseconds help_turn{20};  // how long one that helps may miss what it waits for

  // Whether this thread calls targets at the moment: then it must not wait for what other targets do.
  bool in_turn() const { return turn_.mine(); }

 private:
  void wait();
  void run_ready();
  void run_again();
  void set_timer();

  struct watched {
    std::weak_ptr<reactor::target> target;
    int tag;
  };
  const boost::asio::any_io_executor executor_;
  unique_fd epoll_;
  unique_fd timer_;
  // A duplicate of epoll_, until close(): the executor's context may be gone before this is.
  std::optional<boost::asio::posix::stream_descriptor> descriptor_;
  owned_mutex turn_;  // one thread at a time calls targets
  std::mutex mutex_;
  std::atomic<std::uint64_t> next_id_{1};
  std::unordered_map<std::uint64_t, watched> watched_;
  struct timer {
    ipc::time_point when;
    std::weak_ptr<reactor::target> target;
    bool operator<(const timer& other) const { return when > other.when; }  // the next is the largest
  };
  std::vector<timer> timers_;             // a heap: its memory is kept, for callers set some
  std::vector<watched> again_, turning_;  // turning_: with turn_
  bool stopped_ = false;
};

}  // namespace bulkhead
