// The black box: two shared pages that a worker keeps current and that outlives it. The host makes it (a sealed memfd)
// and reads it with pread() only, so nothing the worker does to it can fault the host. Everything in it is hostile
// once a plugin is loaded: it is copied, checked and believed only for reports, and for "that call has not begun".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace bulkhead {

struct black_box {
  static constexpr std::size_t size = 8192;
  static constexpr std::size_t frames_limit = 64, modules_limit = 24;
  static constexpr std::size_t frames_first = 48;  // the rest of them are the last ones, in a ring

  // A file that code was loaded from.
  struct module {
    std::uint64_t bias;  // what its addresses at run time are above those in the file
    std::uint32_t kind;  // enum class code
    std::uint32_t build_id_size;
    unsigned char build_id[20];
    char name[156];
  };
  struct frame {
    std::uint64_t address;
    std::uint16_t module;   // index; modules_limit or more: none
    std::uint16_t guessed;  // 1: found by looking over the stack, not by unwinding it
    std::uint32_t unused;
  };

  // Where the frame after `seen` others is kept.
  static constexpr std::size_t place_of(std::uint64_t seen) {
    return seen < frames_limit ? seen : frames_first + (seen - frames_first) % (frames_limit - frames_first);
  }

  std::atomic<std::uint32_t> phase;    // enum phase
  std::atomic<std::uint32_t> in_call;  // methods that run now
  std::atomic<std::uint64_t> begun;    // calls taken up so far, in the order in which they were sent
  char method[64];                     // the one that began last
  std::atomic<std::uint32_t> call;     // its id

  // Filled in by the crash handler, `recorded` last.
  std::atomic<std::uint32_t> recorded;
  std::int32_t signal;
  std::int32_t code;
  std::uint32_t out_of_memory;
  std::uint64_t fault_address;
  std::int32_t system_call;  // SIGSYS of a filter: the call that it denied, by the table of
  std::uint32_t system_call_arch;
  char crashed_method[64];  // of the thread that crashed; empty: it ran none
  std::uint32_t crashed_call;

  std::atomic<std::uint32_t> violations;  // system calls denied so far, by the signal handler
  std::uint32_t supervised_violations;    // and by the fork server, which counts for itself

  char message[512];  // an uncaught exception's text, or why the worker could not start

  // Where it crashed, by the stack recorder; the innermost frame first. `recorded` is not held up for them.
  std::uint64_t instruction_pointer, stack_pointer;
  std::atomic<std::uint32_t> frames_seen, modules_recorded, stack_done;
  frame frames[frames_limit];
  module modules[modules_limit];
};
static_assert(sizeof(black_box) <= black_box::size);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace bulkhead
