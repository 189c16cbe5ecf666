// See stack_recorder.hpp. The stack is unwound by the C++ runtime's own unwinder, which finds its tables without locks
// (_dl_find_object) and allocates nothing. Where that fails, because the stack has been smashed or the code has no
// tables, the stack is looked over for words that are return addresses by what precedes them.
#include "report/stack_recorder.hpp"

#include <bulkhead/error.hpp>

#include <unwind.h>

#include <csetjmp>
#include <csignal>
#include <cstring>

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead {
namespace {

constexpr std::size_t words_looked_over =
    32768;                                 // 256 KiB of stack: what reads the channel has a buffer of 64 KiB there
constexpr unsigned guesses_limit = 256;    // of which the first and the last are kept
constexpr unsigned steps_limit = 300'000;  // of the unwinder: more than a stack of 8 MiB often has

char plugin_file[256];
sigjmp_buf next_step;
std::atomic<long> recording_thread{0};
thread_local sigjmp_buf* stop_climbing = nullptr;

// What a step leaves for the next must not live in registers.
struct walk {
  black_box* box = nullptr;
  std::uint64_t look_from = 0;  // the stack pointer in the last frame found
  unsigned steps = 0;
  bool reached = false, complete = false;
} state;
volatile int next = 0;  // step

#if defined(__x86_64__)
std::uint64_t instruction_pointer(const ucontext_t& of) {
  return static_cast<std::uint64_t>(of.uc_mcontext.gregs[REG_RIP]);
}
std::uint64_t stack_pointer(const ucontext_t& of) { return static_cast<std::uint64_t>(of.uc_mcontext.gregs[REG_RSP]); }
// E8 and a relative address; or FF /2 with a register, or memory in its various forms.
bool follows_a_call(std::uint64_t address) {
  const auto* code = reinterpret_cast<const unsigned char*>(address);
  if (code[-5] == 0xe8) return true;
  for (const int length : {2, 3, 4, 6, 7})
    if (code[-length] == 0xff && (code[1 - length] & 0x38) == 0x10) return true;
  return false;
}
#elif defined(__aarch64__)
std::uint64_t instruction_pointer(const ucontext_t& of) { return of.uc_mcontext.pc; }
std::uint64_t stack_pointer(const ucontext_t& of) { return of.uc_mcontext.sp; }
bool follows_a_call(std::uint64_t address) {
  if (address % 4) return false;
  const auto before = reinterpret_cast<const std::uint32_t*>(address)[-1];
  return (before & 0xfc000000) == 0x94000000 || (before & 0xfffffc1f) == 0xd63f0000;
}
#else
std::uint64_t instruction_pointer(const ucontext_t&) { return 0; }
std::uint64_t stack_pointer(const ucontext_t&) { return 0; }
bool follows_a_call(std::uint64_t) { return false; }
#endif

void read_build_id(black_box::module& out, const ElfW(Ehdr) & header) {
  const auto base = reinterpret_cast<std::uint64_t>(&header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return;
  const auto* segments = reinterpret_cast<const ElfW(Phdr)*>(base + header.e_phoff);
  for (unsigned i = 0; i < header.e_phnum && i < 64; ++i) {
    if (segments[i].p_type != PT_NOTE) continue;
    std::uint64_t at = out.bias + segments[i].p_vaddr;
    const std::uint64_t end = at + segments[i].p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      const auto* note = reinterpret_cast<const ElfW(Nhdr)*>(at);
      const std::uint64_t name = at + sizeof *note;
      const std::uint64_t body = name + (note->n_namesz + std::uint64_t{3}) / 4 * 4;
      if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && note->n_descsz <= sizeof out.build_id &&
          body + note->n_descsz <= end) {
        std::memcpy(out.build_id, reinterpret_cast<const void*>(body), note->n_descsz);
        out.build_id_size = note->n_descsz;
        return;
      }
      at = body + (note->n_descsz + std::uint64_t{3}) / 4 * 4;
    }
  }
}

std::uint16_t module_of(black_box& box, std::uint64_t address) {
  dl_find_object found{};
  if (::_dl_find_object(reinterpret_cast<void*>(address), &found) != 0) return black_box::modules_limit;
  const link_map& map = *found.dlfo_link_map;
  const std::uint32_t known = box.modules_recorded;
  for (std::uint32_t i = 0; i < known && i < black_box::modules_limit; ++i)
    if (box.modules[i].bias == map.l_addr) return static_cast<std::uint16_t>(i);
  if (known >= black_box::modules_limit) return black_box::modules_limit;
  black_box::module& made = box.modules[known];
  made.bias = map.l_addr;
  std::strncpy(made.name, map.l_name, sizeof made.name - 1);
  const code_origin kind = *map.l_name == 0                            ? code_origin::worker
                           : std::strcmp(map.l_name, plugin_file) == 0 ? code_origin::plugin
                                                                       : code_origin::library;
  made.kind = static_cast<std::uint32_t>(kind);
  // The next step must find it even if reading the id crashes.
  box.modules_recorded = known + 1;
  read_build_id(made, *static_cast<const ElfW(Ehdr)*>(found.dlfo_map_start));
  return static_cast<std::uint16_t>(known);
}

void add_frame(black_box& box, std::uint64_t address, bool guessed) {
  const std::uint32_t seen = box.frames_seen;
  black_box::frame& made = box.frames[black_box::place_of(seen)];
  made = {address, black_box::modules_limit, static_cast<std::uint16_t>(guessed), 0};
  box.frames_seen = seen + 1;
  made.module = module_of(box, address);
}

_Unwind_Reason_Code on_frame(_Unwind_Context* context, void* data) {
  walk& w = *static_cast<walk*>(data);
  if (++w.steps > steps_limit) {
    w.complete = true;
    return _URC_END_OF_STACK;
  }
  const std::uint64_t address = ::_Unwind_GetIP(context);
  if (!w.reached) {  // frames of the handler
    if (address != w.box->instruction_pointer) return _URC_NO_REASON;
    w.reached = true;
    return _URC_NO_REASON;  // recorded already
  }
  if (address == 0) {
    w.complete = true;
    return _URC_END_OF_STACK;
  }
  add_frame(*w.box, address, false);
  dl_find_object found{};
  if (::_dl_find_object(reinterpret_cast<void*>(address), &found) != 0) return _URC_END_OF_STACK;  // no code: smashed
  w.look_from = ::_Unwind_GetCFA(context);
  return _URC_NO_REASON;
}

void look_over_stack(black_box& box, std::uint64_t from) {
  const auto* words = reinterpret_cast<const std::uint64_t*>((from + 7) & ~std::uint64_t{7});
  unsigned added = 0;
  for (std::size_t i = 0; i < words_looked_over; ++i) {
    const std::uint64_t word = words[i];
    dl_find_object found{};
    if (::_dl_find_object(reinterpret_cast<void*>(word), &found) != 0) continue;
    if (word - 8 < reinterpret_cast<std::uint64_t>(found.dlfo_map_start) || !follows_a_call(word)) continue;
    add_frame(box, word, true);
    if (++added == guesses_limit) return;
  }
}

// Lets faults through to the handler, which goes on with the next step.
void open_to_faults(sigset_t& before) {
  sigset_t faults;
  ::sigemptyset(&faults);
  ::sigaddset(&faults, SIGSEGV);
  ::sigaddset(&faults, SIGBUS);
  ::sigprocmask(SIG_UNBLOCK, &faults, &before);
}

struct climb {
  std::uint64_t from = 0;
  std::span<std::uint64_t> out;
  std::size_t found = 0;
  bool reached = false;
};

_Unwind_Reason_Code on_caller(_Unwind_Context* context, void* data) {
  climb& c = *static_cast<climb*>(data);
  const std::uint64_t address = ::_Unwind_GetIP(context);
  if (!c.reached) {  // frames of the handler
    c.reached = address == c.from;
    return _URC_NO_REASON;
  }
  dl_find_object found{};
  if (c.found == c.out.size() || ::_dl_find_object(reinterpret_cast<void*>(address), &found) != 0)
    return _URC_END_OF_STACK;
  c.out[c.found++] = address;
  return _URC_NO_REASON;
}

void climb_until_fault(climb& c) {
  sigset_t before;
  open_to_faults(before);
  sigjmp_buf fault;
  stop_climbing = &fault;
  if (sigsetjmp(fault, 1) == 0) ::_Unwind_Backtrace(on_caller, &c);
  stop_climbing = nullptr;
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

void name_plugin_file(const std::string& path) { std::strncpy(plugin_file, path.c_str(), sizeof plugin_file - 1); }

void record_stack(black_box& box, const ucontext_t& crashed) {
  box.instruction_pointer = instruction_pointer(crashed);
  box.stack_pointer = stack_pointer(crashed);
  if (!box.instruction_pointer && !box.stack_pointer) return;
  state.box = &box;
  state.look_from = box.stack_pointer;
  sigset_t before;
  open_to_faults(before);
  recording_thread = ::syscall(SYS_gettid);
  sigsetjmp(next_step, 1);
  const int step = next;
  if (step <= 0) {
    next = 1;
    add_frame(box, box.instruction_pointer, false);
  }
  if (step <= 1) {
    next = 2;
    ::_Unwind_Backtrace(on_frame, &state);
  }
  if (step <= 2 && !state.complete) {
    next = 3;
    look_over_stack(box, state.look_from);
  }
  recording_thread = 0;
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
}

std::span<const std::uint64_t> return_addresses(const ucontext_t& at, std::span<std::uint64_t> out) {
  climb c{instruction_pointer(at), out};
  climb_until_fault(c);
  return out.first(c.found);
}

void resume_recorder() {
  if (stop_climbing) siglongjmp(*stop_climbing, 1);
  if (recording_thread != 0 && recording_thread == ::syscall(SYS_gettid)) siglongjmp(next_step, 1);
}

}  // namespace bulkhead
