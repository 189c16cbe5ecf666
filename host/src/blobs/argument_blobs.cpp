// See argument_blobs.hpp.
#include "blobs/argument_blobs.hpp"

#include <bulkhead/error.hpp>

#include <algorithm>

namespace bulkhead {
namespace {

constexpr std::size_t least_arena = std::size_t{1} << 20, usual_arena = std::size_t{16} << 20;

std::size_t whole_pages(std::size_t size) {
  constexpr std::size_t unit = ipc::range_allocator::unit;
  return std::max<std::size_t>(1, (size + unit - 1) / unit) * unit;
}

}  // namespace

std::uint32_t next_arena_id() noexcept {
  static std::atomic<std::uint32_t> last{0};
  return ++last;
}

argument_arena::argument_arena(std::weak_ptr<argument_blobs> owner, std::size_t size)
    : id(next_arena_id()),
      owner(std::move(owner)),
      memory(ipc::shared_memory::make("bulkhead-arguments", size, true)),
      ranges_(size) {
  if (!memory.fill()) throw std::bad_alloc();
  memory.seal();
}

void argument_arena::give_back(std::size_t offset) noexcept {
  {
    std::lock_guard held(mutex_);
    ranges_.give(offset);
    used_ = ipc::clock::now();
  }
  if (const auto alive = owner.lock()) alive->gave_back();
}

blob_options argument_blobs::checked(blob_options options) {
  options.threshold = std::max<std::size_t>(options.threshold, 1024);
  if (options.memory > ipc::blob_reference::most + 1)
    throw std::invalid_argument("load_options::blobs: memory must be at most 4 GiB");
  options.memory -= options.memory % ipc::range_allocator::unit;
  options.idle = std::max<std::chrono::nanoseconds>(options.idle, std::chrono::milliseconds(1));
  return options;
}

argument_blobs::argument_blobs(std::shared_ptr<bulkhead::reactor> reactor, const blob_options& options)
    : reactor_(std::move(reactor)), options_(options) {}

argument_blobs::~argument_blobs() = default;

// An arena that has room for it, where it is taken at `offset`. (locked)
std::shared_ptr<argument_arena> argument_blobs::find_room(std::size_t size, std::size_t& offset) {
  for (const auto& each : arenas_) {
    std::lock_guard held(each->mutex_);
    if (const auto found = each->ranges_.take(size)) {
      offset = *found;
      return each;
    }
  }
  return nullptr;
}

// The size of another arena for it, which counts as mapped from here on; 0: it would be too much. (locked)
std::size_t argument_blobs::reserve(std::size_t size) {
  const std::size_t left = options_.memory - mapped_;
  const std::size_t wanted = std::max(whole_pages(size), std::min(std::clamp(mapped_, least_arena, usual_arena), left));
  if (wanted > left) return 0;
  mapped_ += wanted;
  return wanted;
}

std::shared_ptr<ipc::held_blob> argument_blobs::make(std::size_t size) {
  if (size > std::min<std::size_t>(options_.memory, ipc::blob_reference::most)) return nullptr;
  std::size_t offset = 0, fresh = 0;
  dropped gone;
  std::shared_ptr<argument_arena> arena;
  {
    std::lock_guard held(mutex_);
    arena = find_room(size, offset);
    if (!arena && (fresh = reserve(size)) == 0) {
      drop(ipc::never, gone);
      fresh = reserve(size);
    }
  }
  tell(gone);
  if (!arena && fresh == 0) return nullptr;
  if (!arena) {  // touching its pages takes a while: without the lock
    try {
      arena = std::make_shared<argument_arena>(weak_from_this(), fresh);
      offset = *arena->ranges_.take(size);
      std::lock_guard held(mutex_);
      arenas_.push_back(arena);
    } catch (const std::exception&) {  // the machine has no more
      std::lock_guard held(mutex_);
      mapped_ -= fresh;
      return nullptr;
    }
  }
  const ipc::blob_reference reference{false, arena->id, offset, size};
  const std::span<std::uint8_t> bytes(arena->memory.data() + offset, size);
  try {
    return std::make_shared<ipc::held_blob>(arena, reference, bytes, true);
  } catch (const std::bad_alloc&) {
    arena->give_back(offset);
    throw;
  }
}

std::shared_ptr<ipc::held_blob> argument_blobs::make_or_throw(std::size_t size) {
  if (size > options_.memory)
    throw call_error(outcome::rejected, "a blob of " + std::to_string(size) +
                                            " bytes: the plugin's memory for them is " +
                                            std::to_string(options_.memory) + " (load_options::blobs)");
  if (auto made = make(size)) return made;
  throw call_error(outcome::overloaded, "no room for a blob of " + std::to_string(size) +
                                            " bytes now: others have the " + std::to_string(options_.memory) +
                                            " bytes of the plugin's memory for them (load_options::blobs)");
}

bool argument_blobs::owns(const ipc::held_blob& blob) const {
  const auto* arena = dynamic_cast<const argument_arena*>(blob.arena().get());
  return arena && arena->owner.lock().get() == this;
}

void argument_blobs::add(std::weak_ptr<user> user) {
  std::lock_guard held(mutex_);
  std::erase_if(users_, [](const auto& each) { return each.expired(); });
  users_.push_back(std::move(user));
}

// Arenas that nobody uses, and has not since then, and who is to be told. `into` outlives the lock. (locked)
void argument_blobs::drop(ipc::time_point unused_since, dropped& into) {
  into.arenas.reserve(arenas_.size());  // first: all that takes memory
  into.users.reserve(users_.size());
  for (const auto& each : users_)
    if (auto alive = each.lock()) into.users.push_back(std::move(alive));
  std::erase_if(arenas_, [&](const auto& each) {
    std::lock_guard held(each->mutex_);
    if (!each->ranges_.empty() || each->used_ > unused_since) return false;
    into.arenas.push_back(each->id);
    mapped_ -= each->memory.size();
    return true;
  });
}

void argument_blobs::tell(const dropped& gone) noexcept {
  for (const auto& each : gone.users)
    for (const std::uint32_t arena : gone.arenas) each->on_dropped(arena);
}

void argument_blobs::gave_back() noexcept {
  std::lock_guard held(mutex_);
  set_timer();
}

// Where there is no memory for a timer, the next blob that ends sets it. (locked)
void argument_blobs::set_timer() noexcept {
  if (timer_set_) return;
  try {
    reactor_->schedule(ipc::clock::now() + options_.idle, weak_from_this());
    timer_set_ = true;
  } catch (const std::bad_alloc&) {
  }
}

void argument_blobs::on_timer() {
  dropped gone;
  {
    std::lock_guard held(mutex_);
    timer_set_ = false;
    drop(ipc::clock::now() - options_.idle, gone);
    const bool more = std::any_of(arenas_.begin(), arenas_.end(), [](const auto& each) {  // else a blob's end sets it
      std::lock_guard also_held(each->mutex_);
      return each->ranges_.empty();
    });
    if (more) set_timer();
  }
  tell(gone);
}

}  // namespace bulkhead
