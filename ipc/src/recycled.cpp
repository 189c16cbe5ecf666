// See recycled.hpp. Each thread keeps two stacks of pieces per size, and what exceeds them goes to others by whole stacks, so
// that a thread which only makes and one which only lets go share a lock once in as many calls as a stack has pieces.
// (Bonwick, Adams: Magazines and Vmem, 2001.)
#include <bulkhead/ipc/recycled.hpp>

#include <array>
#include <mutex>
#include <utility>

namespace bulkhead::ipc {

#ifdef BULKHEAD_SANITIZED  // which look for the use of what was let go

void* take_memory(std::size_t size) { return ::operator new(size); }
void give_memory(void* at, std::size_t) noexcept { ::operator delete(at); }

#else

namespace {

constexpr std::size_t step = 64, sizes = 8;  // of pieces
constexpr unsigned stack_height = 32;        // pieces
constexpr unsigned most_stacks = 16;         // that no thread has, of a size

struct piece {
  piece* next;        // in its stack
  piece* next_stack;  // of the top of one that no thread has
};

struct stack {
  piece* top = nullptr;
  unsigned height = 0;
  void push(void* at) {
    top = new (at) piece{top, nullptr};
    ++height;
  }
  void* pop() {
    --height;
    return std::exchange(top, top->next);
  }
  void free() {
    while (height > 0) ::operator delete(pop());
  }
};

// Full stacks of one size that no thread has.
class depot {
 public:
  stack take() {
    std::lock_guard held(mutex_);
    if (!first_) return {};
    --count_;
    return {std::exchange(first_, first_->next_stack), stack_height};
  }
  void give(stack full) {
    {
      std::lock_guard held(mutex_);
      if (count_ < most_stacks) {
        full.top->next_stack = std::exchange(first_, full.top);
        ++count_;
        return;
      }
    }
    full.free();
  }

 private:
  std::mutex mutex_;
  piece* first_ = nullptr;
  unsigned count_ = 0;
};
constinit std::array<depot, sizes> depots;

constinit thread_local bool gone = false;  // the thread ends: other things of its own may still take and give
constinit thread_local struct per_thread {
  struct two {
    stack current, other;  // the other is full or empty
  };
  std::array<two, sizes> of;
  ~per_thread() {
    for (two& each : of) each.current.free(), each.other.free();
    gone = true;
  }
} mine;

std::size_t index_of(std::size_t size) { return size == 0 ? 0 : (size - 1) / step; }

}  // namespace

void* take_memory(std::size_t size) {
  const std::size_t index = index_of(size);
  if (index >= sizes) return ::operator new(size);
  if (!gone) {
    auto& [current, other] = mine.of[index];
    if (current.height == 0) {
      if (other.height == 0) other = depots[index].take();
      std::swap(current, other);
    }
    if (current.height > 0) return current.pop();
  }
  return ::operator new((index + 1) * step);
}

void give_memory(void* at, std::size_t size) noexcept {
  const std::size_t index = index_of(size);
  if (index >= sizes || gone) return ::operator delete(at);
  auto& [current, other] = mine.of[index];
  if (current.height == stack_height) {
    if (other.height > 0) depots[index].give(std::exchange(other, {}));
    std::swap(current, other);
  }
  current.push(at);
}

#endif

}  // namespace bulkhead::ipc
