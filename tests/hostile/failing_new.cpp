// See failing_new.hpp.
#include "failing_new.hpp"

#include <cstdlib>
#include <new>

namespace bulkhead::testing {
thread_local long allocations = 0, failing_allocation = -1;
thread_local bool all_after = false;
}  // namespace bulkhead::testing

namespace {

void* allocate(std::size_t size) {
  using namespace bulkhead::testing;
  if (failing_allocation >= 0) {
    const long mine = allocations++;
    if (all_after ? mine >= failing_allocation : mine == failing_allocation) throw std::bad_alloc();
  }
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
