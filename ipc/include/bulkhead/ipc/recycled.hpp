// Memory of the small objects that each asynchronous call is made of: who lets go of one leaves its memory to the next that
// is made, so that calls come and go without the allocator, and no more is kept than some of them need at once.
#pragma once

#include <bulkhead/export.hpp>

#include <cstddef>
#include <new>

namespace bulkhead::ipc {

// At least `size` bytes, as aligned as any. Of more than 512 bytes nothing is kept. Throws std::bad_alloc. Thread-safe, and
// blocks only while another thread hands over a bundle of what it does not need.
BULKHEAD_PUBLIC void* take_memory(std::size_t size);
// Gives back what take_memory(size) gave, on any thread.
BULKHEAD_PUBLIC void give_memory(void* at, std::size_t size) noexcept;

// The base of classes whose objects come and go with calls. One of a stricter alignment is the allocator's.
struct recycled {
  // Memory for an object of a derived class.
  static void* operator new(std::size_t size) { return take_memory(size); }
  // For one of a stricter alignment: the allocator's.
  static void* operator new(std::size_t size, std::align_val_t align) { return ::operator new(size, align); }
  // Takes it back.
  static void operator delete(void* at, std::size_t size) noexcept { give_memory(at, size); }
  // Gives it back to the allocator.
  static void operator delete(void* at, std::size_t, std::align_val_t align) noexcept { ::operator delete(at, align); }

 protected:
  ~recycled() = default;
};

// The same for std::allocate_shared.
template <class T>
struct recycling_allocator {
  static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
  using value_type = T;  // what it has memory for
  recycling_allocator() = default;
  // As allocators have it: all are alike.
  template <class U>
  recycling_allocator(const recycling_allocator<U>&) noexcept {}
  // Memory for `count` objects.
  T* allocate(std::size_t count) { return static_cast<T*>(take_memory(count * sizeof(T))); }
  // Takes it back.
  void deallocate(T* at, std::size_t count) noexcept { give_memory(at, count * sizeof(T)); }
  friend bool operator==(recycling_allocator, recycling_allocator) noexcept { return true; }
};

}  // namespace bulkhead::ipc
