// See violation_trap.hpp. All of this runs in signal handlers inside a process whose memory is hostile, so it is async-
// signal-safe, reads memory only after asking the kernel whether it may, and decides nothing: the filter has denied the
// call already, whatever becomes of the report.
#include "sandbox/violation_trap.hpp"

#include "report/stack_recorder.hpp"
#include "sandbox/violation_line.hpp"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <span>

#include <dlfcn.h>
#include <link.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)
// A system call whose address the filter knows. It gives nothing away: in enforcing policies the filter lets it do no
// more than any other instruction.
extern "C" long bulkhead_known_syscall(long number, long a, long b, long c, long d, long e, long f);
extern "C" const char bulkhead_after_known_syscall[];
asm(".text\n"
    ".globl bulkhead_known_syscall\n.type bulkhead_known_syscall,@function\n"
    "bulkhead_known_syscall:\n"
    "  mov %rdi,%rax\n  mov %rsi,%rdi\n  mov %rdx,%rsi\n  mov %rcx,%rdx\n  mov %r8,%r10\n  mov %r9,%r8\n  mov 8(%rsp),%r9\n"
    "  syscall\n"
    ".globl bulkhead_after_known_syscall\nbulkhead_after_known_syscall:\n"
    "  ret\n"
    ".size bulkhead_known_syscall,.-bulkhead_known_syscall\n");
#endif

namespace bulkhead::sandbox {
namespace {

constexpr int denied_by_filter = 1;    // SYS_SECCOMP of the kernel's asm-generic/siginfo.h, which glibc 2.36 lacks
constexpr int traced = 1;              // in si_errno: a call that is only looked at
constexpr long denied_within = -4000;  // of a call that is made once more, by the filter; the kernel has no such error
constexpr unsigned reports_per_second = 100;

black_box* box = nullptr;
bool kills = false, learns = false;
thread_local bool looking = false;  // a call is being made once more
std::atomic<std::int64_t> second{0};
std::atomic<unsigned> reports{0};

struct call_state : denied_call {
  unsigned long pc = 0;
};

#if defined(__x86_64__)
call_state state_of(const siginfo_t& info, const ucontext_t& context) {
  const auto& r = context.uc_mcontext.gregs;
  const auto at = [&](int which) { return static_cast<unsigned long>(r[which]); };
  return {{info.si_arch, info.si_syscall, {at(REG_RDI), at(REG_RSI), at(REG_RDX), at(REG_R10), at(REG_R8), at(REG_R9)}},
          at(REG_RIP)};
}
void set_result(ucontext_t& context, long value) { context.uc_mcontext.gregs[REG_RAX] = value; }
long again(const call_state& s) {
  const auto a = [&](int i) { return static_cast<long>(s.arguments[i]); };
  // The filter may deny it; a thread sanitizer's runtime lets no signal interrupt a handler, whatever sigaction() says.
  const std::uint64_t denial = std::uint64_t{1} << (SIGSYS - 1);
  ::syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &denial, nullptr, sizeof denial);
  looking = true;
  const long result = bulkhead_known_syscall(s.number, a(0), a(1), a(2), a(3), a(4), a(5));
  looking = false;
  return result;
}
bool is_again(const call_state& s) {
  return looking && s.pc == reinterpret_cast<unsigned long>(&bulkhead_after_known_syscall);
}
// What files and ports are refused for by others than the filter. The first two open files.
constexpr int looked_at[] = {SYS_openat, SYS_open,     SYS_creat,     SYS_mkdir,    SYS_mkdirat,   SYS_rmdir,
                             SYS_unlink, SYS_unlinkat, SYS_rename,    SYS_renameat, SYS_renameat2, SYS_link,
                             SYS_linkat, SYS_symlink,  SYS_symlinkat, SYS_truncate, SYS_connect,   SYS_bind};
#elif defined(__aarch64__)
call_state state_of(const siginfo_t& info, const ucontext_t& context) {
  const auto* r = context.uc_mcontext.regs;
  return {{info.si_arch, info.si_syscall, {r[0], r[1], r[2], r[3], r[4], r[5]}}, context.uc_mcontext.pc};
}
void set_result(ucontext_t& context, long value) {
  context.uc_mcontext.regs[0] = static_cast<unsigned long long>(value);
}
long again(const call_state&) { return -EPERM; }
bool is_again(const call_state&) { return false; }
#endif

// Whether 8 bytes can be read there: the kernel says EFAULT before it says that the request makes no sense.
bool readable(unsigned long address) {
  return address >= 4096 && (::syscall(SYS_rt_sigprocmask, ~0L, address, nullptr, 8L) == 0 || errno != EFAULT);
}

// The path or the socket address that a call names, as far as it can be read.
void add_object(violation_line& out, const denied_call& call) {
  const auto [at, most, address] = object_of(call);
  if (!at || !most || !readable(at)) return out.text("-");
  for (std::size_t i = 0; i < most; ++i) {
    if (((at + i) & 4095) == 0 && !readable(at + i)) break;
    const char c = reinterpret_cast<const char*>(at)[i];
    if (c == 0 && !address) break;
    out.encoded(c);
  }
}

void add_frame(violation_line& out, unsigned long pc) {
  dl_find_object where{};
  out.text(" ");
  if (::_dl_find_object(reinterpret_cast<void*>(pc), &where) != 0) return out.hex(pc);
  const char* name = where.dlfo_link_map->l_name;
  const char* slash = std::strrchr(name, '/');
  out.word(slash ? slash + 1 : *name ? name : "bulkhead-worker", 60);
  out.text("+");
  out.hex(pc - reinterpret_cast<unsigned long>(where.dlfo_map_start));
}

bool within_rate() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  if (second.exchange(now.tv_sec) != now.tv_sec) reports = 0;
  return reports.fetch_add(1) < reports_per_second;
}

// `mode`: as in violation_line.
void report(const call_state& s, long result, char mode, const ucontext_t& context) {
  if (!within_rate()) return;
  violation_line out;
  out.begin(s, static_cast<int>(result < 0 ? -result : 0), mode);
  char method[sizeof box->method];
  std::memcpy(method, box->method, sizeof method);
  method[sizeof method - 1] = 0;
  out.word(box->in_call.load() ? method : "", sizeof method);
  out.text(" ");
  add_object(out, s);
  add_frame(out, s.pc);
  std::uint64_t callers[6];
  for (const std::uint64_t each : return_addresses(context, callers)) add_frame(out, each);
  const std::string_view all = out.finish();
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, all.data(), all.size());
}

// Refused by the root or by Landlock; a file that is not granted may not even be seen.
bool refused(const call_state& s, long result) {
  if (result == -EACCES || result == -EPERM) return true;
  return (result == -EROFS || result == -ENOENT) && !object_of(s).address;
}

void on_denied(int, siginfo_t* info, void* context) {
  const int saved = errno;
  auto& ucontext = *static_cast<ucontext_t*>(context);
  if (info->si_code != denied_by_filter) return;  // sent by somebody: nothing was denied
  const call_state s = state_of(*info, ucontext);
  if (is_again(s)) return set_result(ucontext, denied_within);
  long result = -s.error();
  if (learns && s.native()) {
    result = again(s);
    // A file that is not there is no need of the plugin's.
    if (result >= 0 || info->si_errno != traced) report(s, result, 'l', ucontext);
    set_result(ucontext, result);
    errno = saved;
    return;
  }
  if (info->si_errno == traced) {
    const long made = again(s);
    if (made != denied_within) {
      if (refused(s, made)) report(s, made, ' ', ucontext);
      set_result(ucontext, made);
      errno = saved;
      return;
    }
  }
  box->violations.fetch_add(1, std::memory_order_relaxed);
  report(s, result, kills ? 'k' : ' ', ucontext);
  if (kills) {
    std::uint32_t unrecorded = 0;
    if (box->recorded.compare_exchange_strong(unrecorded, 1)) {
      box->signal = SIGSYS;
      box->code = info->si_code;
      box->system_call = s.number;
      box->system_call_arch = s.arch;
      box->recorded.store(2, std::memory_order_release);
      record_stack(*box, ucontext);
      box->stack_done.store(1, std::memory_order_release);
    }
    ::syscall(SYS_exit_group, 128 + SIGSYS);
  }
  set_result(ucontext, result);
  errno = saved;
}

}  // namespace

void add_trap_prologue(std::vector<sock_filter>& program, const policy::values& granted) {
  if (!native_arch) return;
  constexpr std::uint32_t number_at = offsetof(seccomp_data, nr), arch_at = offsetof(seccomp_data, arch),
                          pc_at = offsetof(seccomp_data, instruction_pointer),
                          argument_at = offsetof(seccomp_data, args);
  std::vector<sock_filter> front;
  std::vector<std::size_t> to_end;  // jumps whose "false" side leads past the prologue
  const auto load = [&](std::uint32_t at) { front.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)); };
  // Skips `otherwise` instructions unless equal.
  const auto unless_equal_skip = [&](std::uint32_t value, std::uint8_t otherwise) {
    front.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise));
  };
  const auto unless_equal_end = [&](std::uint32_t value) {
    to_end.push_back(front.size());
    unless_equal_skip(value, 0);
  };
  const auto give = [&](std::uint32_t action) { front.push_back(BPF_STMT(BPF_RET | BPF_K, action)); };

  load(arch_at);
  unless_equal_end(native_arch);
  // Low half only, which is all that the kernel looks at: a signal number with high bits is SIGSYS all the same.
  load(number_at);
  unless_equal_skip(SYS_rt_sigaction, 3);
  load(argument_at);
  unless_equal_skip(SIGSYS, 1);
  give(SECCOMP_RET_TRAP);
#if defined(__x86_64__)
  if (granted.explain || granted.learn) {
    const auto known = reinterpret_cast<std::uint64_t>(&bulkhead_after_known_syscall);
    // Learning, all but opens are denied to begin with.
    const auto numbers = std::span(looked_at).first(granted.learn ? 2 : std::size(looked_at));
    load(pc_at);
    unless_equal_skip(static_cast<std::uint32_t>(known), 3);
    load(pc_at + 4);
    if (granted.learn) {
      unless_equal_skip(static_cast<std::uint32_t>(known >> 32), 1);
      give(SECCOMP_RET_ALLOW);
    } else {
      // Those that it makes once more go on to the filter proper; they are calls like any other there.
      unless_equal_skip(static_cast<std::uint32_t>(known >> 32), 1);
      front.push_back(BPF_STMT(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(1 + 2 * numbers.size())));
    }
    load(number_at);
    for (const int number : numbers) {
      unless_equal_skip(static_cast<std::uint32_t>(number), 1);
      give(SECCOMP_RET_TRAP | traced);
    }
  }
#endif
  for (const std::size_t at : to_end) front[at].jf = static_cast<std::uint8_t>(front.size() - at - 1);
  program.insert(program.begin(), front.begin(), front.end());
}

void install_violation_trap(const policy::values& granted, black_box& shared) {
  box = &shared;
  kills = granted.kill;
  learns = granted.learn;
  struct sigaction action {};
  action.sa_sigaction = on_denied;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSYS, &action, nullptr);
}

}  // namespace bulkhead::sandbox
