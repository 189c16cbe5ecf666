// The shared memory for the arguments of one plugin's calls: written by the host alone, and mapped read-only by those of
// the plugin's workers that are sent a blob in it. It is the plugin's and not a worker's, since a blob is filled before its
// worker is known, and moves to another when that one dies; never another plugin's, for workers see whole arenas.
#pragma once

#include "reactor.hpp"
#include <bulkhead/blob.hpp>

#include <atomic>
#include <mutex>

namespace bulkhead {

class argument_arena;

class argument_blobs final : public blob_source,
                             public reactor::target,
                             public std::enable_shared_from_this<argument_blobs> {
 public:
  // One who has been sent arenas.
  class user {
   public:
    virtual ~user() = default;
    virtual void on_dropped(std::uint32_t arena) noexcept = 0;
  };

  argument_blobs(std::shared_ptr<bulkhead::reactor> reactor, const blob_options& options);
  ~argument_blobs() override;

  // Throws call_error: `rejected` when it is larger than all of the memory, `overloaded` when there is no room now.
  std::shared_ptr<ipc::held_blob> make_or_throw(std::size_t size);
  // Is told of arenas that are given back, which is no matter of who has them.
  void add(std::weak_ptr<user> user);
  // Whether there are workers that take references.
  void use(bool automatic) { automatic_ = automatic; }

  // blob_source
  std::size_t threshold() const override { return automatic_ ? options_.threshold : SIZE_MAX; }
  std::shared_ptr<ipc::held_blob> make(std::size_t size) override;
  bool owns(const ipc::held_blob& blob) const override;
  // reactor::target
  void on_ready(int, std::uint32_t) override {}
  void on_timer() override;

  const blob_options& options() const { return options_; }
  static blob_options checked(blob_options options);

 private:
  friend class argument_arena;
  std::shared_ptr<argument_arena> find_room(std::size_t size, std::size_t& offset);
  std::size_t reserve(std::size_t size);
  void gave_back() noexcept;
  void set_timer() noexcept;
  struct dropped {
    std::vector<std::shared_ptr<user>> users;
    std::vector<std::uint32_t> arenas;
  };
  void drop(ipc::time_point unused_since, dropped& into);
  static void tell(const dropped& gone) noexcept;

  const std::shared_ptr<bulkhead::reactor> reactor_;
  const blob_options options_;
  std::atomic<bool> automatic_{false};
  std::mutex mutex_;
  std::vector<std::shared_ptr<argument_arena>> arenas_;
  std::size_t mapped_ = 0;
  bool timer_set_ = false;
  std::vector<std::weak_ptr<user>> users_;
};

// A part of it.
class argument_arena final : public ipc::blob_arena {
 public:
  argument_arena(std::weak_ptr<argument_blobs> owner, std::size_t size);
  void give_back(std::size_t offset) noexcept override;

  const std::uint32_t id;
  const std::weak_ptr<argument_blobs> owner;
  ipc::shared_memory memory;

 private:
  friend class argument_blobs;
  std::mutex mutex_;
  ipc::range_allocator ranges_;
  ipc::time_point used_ = ipc::clock::now();
};

// No two arenas of this process have the same.
std::uint32_t next_arena_id() noexcept;

}  // namespace bulkhead
