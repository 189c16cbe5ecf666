// The table of kinds, and those that are a line or two.
#include "kinds.hpp"

#include "faults.h"

#include <csignal>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <unistd.h>

namespace chaos {

void sleep_forever() {
  for (;;) ::pause();
}

namespace {

void uncaught_exception_in_thread() {
  std::thread([] { throw std::runtime_error("nobody catches this"); }).detach();
  sleep_forever();
}

void deadlock() {
  // Twice by the same thread: the default kind of POSIX mutex waits for itself. pthread rather than std::mutex, whose
  // misuse a compiler or a sanitizer may make something else of.
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  ::pthread_mutex_lock(&mutex);
  ::pthread_mutex_lock(&mutex);
}

void thread_stack_overflow() {
  std::thread(chaos_stack_overflow).detach();
  sleep_forever();
}

void endless_loop() {
  volatile bool forever = true;
  while (forever) {
  }
}

void fork_children() {
  for (int i = 0; i < 20; ++i)
    if (::fork() == 0) sleep_forever();
  chaos_segfault();
}

constexpr kind table[] = {
    {"segfault", chaos_segfault},
    {"abort", [] { std::abort(); }},
    {"stack_overflow", chaos_stack_overflow},
    {"divide_by_zero", chaos_divide_by_zero},
    {"bus_error", chaos_bus_error},
    {"illegal_instruction", chaos_illegal_instruction},
    {"exit_0", [] { std::exit(0); }},
    {"exit_3", [] { std::exit(3); }},
    {"_exit_0", [] { ::_exit(0); }},
    {"uncaught_exception_in_thread", uncaught_exception_in_thread},
    {"exception", [] { throw std::runtime_error("chaos was asked for an exception"); }},
    {"foreign_exception", [] { throw 42; }},
    {"terminate", [] { std::terminate(); }},
    {"deadlock", deadlock},
    {"endless_loop", endless_loop},
    {"ignore_cancel", sleep_forever},
    {"memory_bomb", memory_bomb},
    {"stdout_flood", stdout_flood},
    {"stderr_lines", stderr_lines},
    {"close_all_fds", close_all_fds},
    {"close_channel", close_channel},
    {"garbage_on_channel", garbage_on_channel},
    {"forged_response", forged_response},
    {"fork_children", fork_children},
    {"raise_sigterm", [] { ::raise(SIGTERM); }},
    {"raise_sigkill", [] { ::raise(SIGKILL); }},
    {"sigstop_self", [] { ::raise(SIGSTOP); }},
    {"double_free", chaos_double_free},
    {"jump_to_null", chaos_jump_to_null},
    {"smashed_stack", chaos_smashed_stack},
    {"smashed_return", chaos_smashed_return},
    {"smashed_everything", chaos_smashed_everything},
    {"thread_stack_overflow", thread_stack_overflow},
    {"write_to_code", chaos_write_to_code},
};

}  // namespace

std::span<const kind> kinds() { return table; }

const kind* find(std::string_view name) {
  for (const kind& each : table)
    if (each.name == name) return &each;
  return nullptr;
}

}  // namespace chaos
