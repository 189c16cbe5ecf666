// See arenas.hpp.
#include "arenas.hpp"

#include <algorithm>
#include <new>

namespace bulkhead {

void arenas::add(std::uint32_t id, std::size_t size, unique_fd file) {
  ipc::shared_memory mapped;
  try {
    mapped = ipc::shared_memory::map(file.get(), size, false);
  } catch (const std::system_error&) {
    // More than its address space may be. Calls that need it say so.
  }
  std::lock_guard held(mutex_);
  arguments_[id] = std::move(mapped);
}

bool arenas::known(std::uint32_t id) const {
  std::lock_guard held(mutex_);
  return arguments_.contains(id);
}

std::optional<ipc::byte_span> arenas::find(const ipc::blob_reference& reference) const {
  std::lock_guard held(mutex_);
  const auto found = arguments_.find(reference.arena);
  if (found == arguments_.end() || !reference.within(found->second.size())) return std::nullopt;
  if (!found->second.data()) return std::nullopt;
  return ipc::byte_span(found->second.data() + reference.offset, reference.length);
}

void arenas::adopt(std::uint32_t id, std::size_t size, unique_fd file) {
  result_arena added{ipc::shared_memory::map(file.get(), size, true), ipc::range_allocator(size)};
  if (!added.memory.fill()) throw std::bad_alloc();
  std::lock_guard held(mutex_);
  results_.emplace(id, std::move(added));
  any_ = true;
}

bool arenas::take(std::size_t size, bulkhead_blob_t& blob) {
  std::lock_guard held(mutex_);
  for (auto& [id, arena] : results_) {
    const auto offset = arena.ranges.take(size);
    if (!offset) continue;
    arena.parts[*offset] = {size, 1};
    const auto packed = ipc::blob_reference{false, id, *offset, size}.pack();
    blob = {};
    blob.data = arena.memory.data() + *offset;
    blob.size = size;
    std::copy(packed.begin(), packed.end(), blob.reference);
    blob.reference_size = packed.size();
    return true;
  }
  return false;
}

void arenas::release(const bulkhead_blob_t& blob) {
  const auto reference = ipc::blob_reference::read({blob.reference, ipc::blob_reference::packed_size});
  if (reference) give(reference->arena, reference->offset);
}

bool arenas::valid(const ipc::blob_reference& reference) const {
  std::lock_guard held(mutex_);
  const auto arena = results_.find(reference.arena);
  if (arena == results_.end()) return false;
  const auto part = arena->second.parts.find(reference.offset);
  return part != arena->second.parts.end() && reference.length <= part->second.size;
}

void arenas::sent(const ipc::blob_reference& reference) {
  std::lock_guard held(mutex_);
  result_arena& arena = results_.at(reference.arena);
  ++arena.parts.at(reference.offset).held;
  arena.wanted_back = false;
}

void arenas::give(std::uint32_t id, std::uint64_t offset) {
  {
    std::lock_guard held(mutex_);
    const auto arena = results_.find(id);
    if (arena == results_.end()) return;
    auto& parts = arena->second.parts;
    const auto part = parts.find(offset);
    if (part == parts.end() || --part->second.held > 0) return;
    parts.erase(part);
    arena->second.ranges.give(offset);
    if (!give_back(arena)) return;
  }
  dropped_(id);
}

void arenas::drop(std::uint32_t id) {
  {
    std::lock_guard held(mutex_);
    if (arguments_.erase(id) > 0) return;
    const auto found = results_.find(id);
    if (found == results_.end()) return;
    found->second.wanted_back = true;
    if (!give_back(found)) return;
  }
  dropped_(id);
}

// Whether it is no more: the host wanted it back, and nothing is in it. (locked)
bool arenas::give_back(std::map<std::uint32_t, result_arena>::iterator arena) {
  if (!arena->second.wanted_back || !arena->second.parts.empty()) return false;
  results_.erase(arena);
  any_ = !results_.empty();
  return true;
}

}  // namespace bulkhead
