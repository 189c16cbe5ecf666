// See crash_handler.hpp. A worker is pid 1 of its PID namespace: signals it sends to itself with the default action are
// ignored by the kernel (pid_namespaces(7)), so an abort() would end as SIGSEGV. The handler therefore owns every fatal
// signal, records it as it came, and leaves by exit_group; the host takes the signal from the record.
// Everything here is async-signal-safe.
#include "crash_handler.hpp"

#include "report/stack_recorder.hpp"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <typeinfo>

#include <cxxabi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead {
namespace {

black_box* box = nullptr;
bool limited = false;
alignas(16) char main_stack[64 << 10];
thread_local const char* method = nullptr;
thread_local std::uint32_t call = 0;

// Whether the address space is used up: then a crash is most likely a failed allocation that nobody checked.
bool out_of_memory() {
  constexpr std::size_t probe = std::size_t{8} << 20;
  void* mapped = ::mmap(nullptr, probe, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return true;
  ::munmap(mapped, probe);
  return false;
}

void on_fatal_signal(int signal, siginfo_t* info, void* context) {
  resume_recorder();
  std::uint32_t unrecorded = 0;
  if (box->recorded.compare_exchange_strong(unrecorded, 1)) {  // the first thread to crash tells the story
    box->signal = signal;
    box->code = info->si_code;
    // Of a signal that somebody sent, the sender is told in the same place; and SI_KERNEL means that it is not known.
    const bool has_address = (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE) &&
                             info->si_code > 0 && info->si_code != SI_KERNEL;
    box->fault_address = has_address ? reinterpret_cast<std::uint64_t>(info->si_addr) : 0;
    if (signal == SIGSYS && info->si_code > 0) {
      box->system_call = info->si_syscall;
      box->system_call_arch = info->si_arch;
    }
    if (method) {
      std::strncpy(box->crashed_method, method, sizeof box->crashed_method - 1);
      box->crashed_call = call;
    }
    box->out_of_memory = limited && out_of_memory();
    box->recorded.store(2, std::memory_order_release);
    record_stack(*box, *static_cast<const ucontext_t*>(context));
    box->stack_done.store(1, std::memory_order_release);
  } else {
    // Another thread is recording; leave the exit to it, for a moment.
    for (int i = 0; i < 10'000'000 && !box->stack_done.load(std::memory_order_acquire); ++i) {
    }
  }
  ::syscall(SYS_exit_group, 128 + signal);
}

void note(const char* text, const char* more = "") {
  const std::size_t room = sizeof box->message - 1;
  std::strncpy(box->message, text, room);
  std::strncat(box->message, more, room - std::strlen(box->message));
}

[[noreturn]] void on_terminate() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  if (!type) {
    note("std::terminate was called");
  } else {
    int status = 0;
    char* name = abi::__cxa_demangle(type->name(), nullptr, nullptr, &status);
    try {
      throw;
    } catch (const std::exception& e) {
      note("uncaught ", name ? name : type->name());
      const std::size_t used = std::strlen(box->message);
      std::strncat(box->message, ": ", sizeof box->message - 1 - used);
      std::strncat(box->message, e.what(), sizeof box->message - 1 - std::strlen(box->message));
    } catch (...) {
      note("uncaught exception of type ", name ? name : type->name());
    }
  }
  std::abort();
}

void use_stack(void* memory, std::size_t size) {
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = size;
  ::sigaltstack(&stack, nullptr);
}

}  // namespace

crash_stack::crash_stack() : memory_(new char[sizeof main_stack]) { use_stack(memory_.get(), sizeof main_stack); }

crash_stack::~crash_stack() {
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  ::sigaltstack(&none, nullptr);
}

void note_method(const char* name, std::uint32_t of) {
  method = name;
  call = of;
}

void install_crash_handlers(black_box& shared, bool memory_limited) {
  box = &shared;
  limited = memory_limited;
  use_stack(main_stack, sizeof main_stack);
  struct sigaction action {};
  action.sa_sigaction = on_fatal_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigfillset(&action.sa_mask);
  for (const int signal :
       {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP, SIGTERM, SIGQUIT, SIGXCPU, SIGXFSZ})
    ::sigaction(signal, &action, nullptr);
  std::set_terminate(on_terminate);
}

}  // namespace bulkhead
