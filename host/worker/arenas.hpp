// The shared memory of a worker: arenas of arguments, which the host writes and this process can only read, and arenas of
// results, of which the account is kept here. The plugin may spoil that account: that harms nobody but itself.
#pragma once

#include <bulkhead/ipc/blob.hpp>
#include <bulkhead/plugin.h>

#include <atomic>
#include <functional>
#include <mutex>

namespace bulkhead {

class arenas {
 public:
  // `dropped` tells the host that an arena of results is no more. Called from any thread.
  explicit arenas(std::function<void(std::uint32_t id)> dropped) : dropped_(std::move(dropped)) {}

  // --- arguments
  // One that the host sent. One that can't be mapped is known, but there is nothing in it.
  void add(std::uint32_t id, std::size_t size, unique_fd file);
  bool known(std::uint32_t id) const;
  std::optional<ipc::byte_span> find(const ipc::blob_reference& reference) const;

  // --- results
  bool any() const { return any_; }
  // One that the host made for this worker: maps it and touches all of it. Throws std::system_error or std::bad_alloc.
  void adopt(std::uint32_t id, std::size_t size, unique_fd file);
  // Makes a blob in one of them. False when there is no room in any.
  bool take(std::size_t size, bulkhead_blob_t& blob);
  // The plugin has no more use for it.
  void release(const bulkhead_blob_t& blob);
  // Whether it is what take() gave, or a part of that, and not free again.
  bool valid(const ipc::blob_reference& reference) const;
  // A reference goes to the host: its part is kept until the host releases it.
  void sent(const ipc::blob_reference& reference);
  void released(std::uint32_t id, std::uint64_t offset) { give(id, offset); }

  // The host wants one back, of either kind. It gets one of results when nothing is in it any more, unless a result has gone
  // there meanwhile: then it asks again.
  void drop(std::uint32_t id);

 private:
  struct result_arena {
    ipc::shared_memory memory;
    ipc::range_allocator ranges;
    struct part {
      std::size_t size = 0;
      unsigned held = 0;  // by the plugin, and for each time it was sent
    };
    std::map<std::uint64_t, part> parts = {};  // by offset
    bool wanted_back = false;
  };
  void give(std::uint32_t id, std::uint64_t offset);
  bool give_back(std::map<std::uint32_t, result_arena>::iterator arena);

  const std::function<void(std::uint32_t id)> dropped_;
  mutable std::mutex mutex_;
  std::map<std::uint32_t, ipc::shared_memory> arguments_;
  std::map<std::uint32_t, result_arena> results_;
  std::atomic<bool> any_{false};
};

}  // namespace bulkhead
