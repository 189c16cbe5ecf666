// The blobs of one worker, as the host sees them: which arenas it has been sent, which arguments its calls still hold, the
// arenas that its results lie in, and the parts of those that the application still has.
//
// Arenas for results are made here, since the host maps nothing that a worker made: a worker asks for one, maps it writable,
// touches every page and says so; only then is the arena sealed and believed in. Before that only its zeroes were at risk,
// and after it no page can be taken away from under a reader.
#pragma once

#include "blobs/argument_blobs.hpp"

#include <functional>

namespace bulkhead {

class result_arena;

class worker_blobs final : public argument_blobs::user,
                           public reactor::target,
                           public std::enable_shared_from_this<worker_blobs> {
 public:
  using sender = std::function<bool(std::vector<std::uint8_t> frame, std::vector<unique_fd> handles)>;

  // `arguments` may be null: no blobs.
  worker_blobs(std::shared_ptr<argument_blobs> arguments, std::shared_ptr<bulkhead::reactor> reactor, sender send);
  ~worker_blobs() override;

  // The threshold that the worker is told in $/hello; 0: it is not to use blobs.
  std::size_t threshold() const;
  // What the worker answered to $/hello: from here on it takes references.
  void enable();
  bool enabled() const { return enabled_; }

  // Before a call is sent: tells the worker what has to be known by then. False when its queue is full.
  bool prepare(const ipc::held_blobs& blobs);
  // The worker may read these until forget(), or until it has ended.
  void hold(std::uint32_t call, const ipc::held_blobs& blobs);
  void forget(std::uint32_t call);

  // A request or notification of the worker's. A text says what is wrong with it; null: nothing.
  const char* on_request(const ipc::message& request);
  const char* on_notification(const ipc::message& notification);
  static bool is_about_blobs(std::string_view method);
  // Takes hold of what a result refers to.
  const char* hold_results(ipc::byte_span result, ipc::held_blobs& into);

  // The worker has ended. What the application has of its results stays.
  void end();

  // argument_blobs::user
  void on_dropped(std::uint32_t arena) noexcept override;
  // reactor::target
  void on_ready(int, std::uint32_t) override {}
  void on_timer() override;

 private:
  friend class result_arena;
  std::shared_ptr<result_arena> make_arena(std::size_t wanted, unique_fd& to_send, std::string& refusal);  // (locked)
  void gave_back(result_arena& arena, std::size_t offset) noexcept;
  void send_drops() noexcept;
  void send_releases() noexcept;
  std::vector<std::uint8_t> pack_releases() const;  // (locked)
  void set_timer() noexcept;                        // (locked)

  const std::shared_ptr<argument_blobs> arguments_;
  const std::shared_ptr<bulkhead::reactor> reactor_;
  const sender send_;
  std::atomic<bool> enabled_{false};
  std::atomic<bool> any_releases_{false};

  std::mutex announcing_;  // while an arena is sent: no call that refers to it may overtake
  struct sent_arena {
    std::uint32_t id = 0;
    bool dropped = false;  // which it is still to be told
  };
  std::vector<sent_arena> sent_;

  std::mutex mutex_;
  std::map<std::uint32_t, ipc::held_blobs> held_;  // by the call's id
  std::map<std::uint32_t, std::shared_ptr<result_arena>> results_;
  std::size_t mapped_ = 0;
  std::size_t held_parts_ = 0;  // by the application
  // Arena, offset: to be told. Has room for all that are held, since they are let go of where there may be no memory.
  std::vector<std::pair<std::uint32_t, std::uint64_t>> releases_;
  bool telling_ = false;  // somebody is sending those
  bool timer_set_ = false, ended_ = false;
};

// An arena of a worker's results.
class result_arena final : public ipc::blob_arena {
 public:
  result_arena(std::weak_ptr<worker_blobs> owner, std::size_t size);
  void give_back(std::size_t offset) noexcept override;

 private:
  friend class worker_blobs;
  const std::uint32_t id_;
  const std::weak_ptr<worker_blobs> owner_;
  ipc::shared_memory memory_;
  // Under the owner's lock:
  bool usable_ = false;  // mapped by the worker, and sealed
  bool asked_ = false;   // to give it back
  unsigned held_ = 0;
  ipc::time_point used_ = ipc::clock::now();
};

}  // namespace bulkhead
