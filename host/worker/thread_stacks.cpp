// The worker's own pthread_create(), which its plugin's calls are bound to: each thread gets a signal stack of its own,
// so that the crash handler can run, and tell, when that thread's stack has overflowed. Without it the kernel ends the
// worker on the spot.

#ifndef BULKHEAD_SANITIZED  // a sanitizer has put its own there, and does the same

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>

namespace {

constexpr std::size_t signal_stack_size = std::size_t{32} << 10;

struct thread_start {
  void* (*run)(void*);
  void* argument;
};

struct signal_stack {
  void* memory = MAP_FAILED;
  signal_stack() {
    memory = ::mmap(nullptr, signal_stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    stack_t stack{};
    stack.ss_sp = memory;
    stack.ss_size = signal_stack_size;
    ::sigaltstack(&stack, nullptr);
  }
  // Also when the thread ends by pthread_exit() or is cancelled: both unwind.
  ~signal_stack() {
    if (memory == MAP_FAILED) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    if (::sigaltstack(&none, nullptr) == 0) ::munmap(memory, signal_stack_size);
  }
};

void* run_thread(void* given) {
  const thread_start start = *static_cast<thread_start*>(given);
  std::free(given);
  const signal_stack stack;
  return start.run(start.argument);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int pthread_create(pthread_t* thread,
                                                                     const pthread_attr_t* attributes,
                                                                     void* (*run)(void*), void* argument) noexcept {
  static const auto original = reinterpret_cast<decltype(&::pthread_create)>(::dlsym(RTLD_NEXT, "pthread_create"));
  auto* start = static_cast<thread_start*>(std::malloc(sizeof(thread_start)));
  if (!start) return EAGAIN;
  *start = {run, argument};
  const int error = original(thread, attributes, run_thread, start);
  if (error) std::free(start);
  return error;
}

#endif
