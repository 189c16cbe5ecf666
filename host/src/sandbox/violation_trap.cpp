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

#include <dlfcn.h>
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

constexpr int denied_by_filter = 1;  // SYS_SECCOMP of the kernel's asm-generic/siginfo.h, which glibc 2.36 lacks
constexpr int traced = 1;            // in si_errno: a call that is only looked at
constexpr unsigned reports_per_second = 100;

black_box* box = nullptr;
bool kills = false, learns = false, writes = false;
std::atomic<std::int64_t> second{0};
std::atomic<unsigned> reports{0};

struct call_state : denied_call {
  unsigned long pc = 0, frame = 0;
};

#if defined(__x86_64__)
call_state state_of(const siginfo_t& info, const ucontext_t& context) {
  const auto& r = context.uc_mcontext.gregs;
  const auto at = [&](int which) { return static_cast<unsigned long>(r[which]); };
  return {{info.si_arch, info.si_syscall, {at(REG_RDI), at(REG_RSI), at(REG_RDX), at(REG_R10), at(REG_R8), at(REG_R9)}},
          at(REG_RIP),
          at(REG_RBP)};
}
void set_result(ucontext_t& context, long value) { context.uc_mcontext.gregs[REG_RAX] = value; }
long again(const call_state& s) {
  const auto a = [&](int i) { return static_cast<long>(s.arguments[i]); };
  return bulkhead_known_syscall(s.number, a(0), a(1), a(2), a(3), a(4), a(5));
}
#elif defined(__aarch64__)
call_state state_of(const siginfo_t& info, const ucontext_t& context) {
  const auto* r = context.uc_mcontext.regs;
  return {{info.si_arch, info.si_syscall, {r[0], r[1], r[2], r[3], r[4], r[5]}}, context.uc_mcontext.pc, r[29]};
}
void set_result(ucontext_t& context, long value) {
  context.uc_mcontext.regs[0] = static_cast<unsigned long long>(value);
}
long again(const call_state&) { return -EPERM; }
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
  Dl_info where{};
  out.text(" ");
  if (::dladdr(reinterpret_cast<void*>(pc), &where) && where.dli_fname) {
    const char* slash = std::strrchr(where.dli_fname, '/');
    out.word(slash ? slash + 1 : where.dli_fname, 60);
    out.text("+");
    out.hex(pc - reinterpret_cast<unsigned long>(where.dli_fbase));
  } else {
    out.hex(pc);
  }
}

bool within_rate() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  if (second.exchange(now.tv_sec) != now.tv_sec) reports = 0;
  return reports.fetch_add(1) < reports_per_second;
}

void report(const call_state& s, long result) {
  if (!within_rate()) return;
  violation_line out;
  out.begin(s, static_cast<int>(result < 0 ? -result : 0), kills && result < 0 ? 'k' : learns ? 'l' : ' ');
  char method[sizeof box->method];
  std::memcpy(method, box->method, sizeof method);
  method[sizeof method - 1] = 0;
  out.word(box->in_call.load() ? method : "", sizeof method);
  out.text(" ");
  add_object(out, s);
  add_frame(out, s.pc);
  unsigned long frame = s.frame;
  for (int depth = 0; depth < 6 && frame % sizeof(long) == 0 && readable(frame) && readable(frame + sizeof(long));
       ++depth) {
    const auto* words = reinterpret_cast<const unsigned long*>(frame);
    if (words[1] < 4096) break;
    add_frame(out, words[1]);
    if (words[0] <= frame) break;
    frame = words[0];
  }
  const std::string_view all = out.finish();
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, all.data(), all.size());
}

void on_denied(int, siginfo_t* info, void* context) {
  const int saved = errno;
  auto& ucontext = *static_cast<ucontext_t*>(context);
  if (info->si_code != denied_by_filter) return;  // sent by somebody: nothing was denied
  const call_state s = state_of(*info, ucontext);
  long result = -s.error();
  if (learns && s.native()) {
    result = again(s);
    // A file that is not there is no need of the plugin's.
    if (result >= 0 || info->si_errno != traced) report(s, result);
    set_result(ucontext, result);
    errno = saved;
    return;
  }
  if (info->si_errno == traced && (writes || !s.writes())) {
    result = again(s);
    const bool refused = result == -EACCES || result == -EPERM || result == -EROFS || result == -ENOENT;
    if (refused) report(s, result);
    set_result(ucontext, result);
    errno = saved;
    return;
  }
  box->violations.fetch_add(1, std::memory_order_relaxed);
  report(s, result);
  if (kills) {
    std::uint32_t unrecorded = 0;
    if (box->recorded.compare_exchange_strong(unrecorded, 1)) {
      box->signal = SIGSYS;
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
    load(pc_at);
    unless_equal_skip(static_cast<std::uint32_t>(known), 3);
    load(pc_at + 4);
    if (granted.learn) {
      unless_equal_skip(static_cast<std::uint32_t>(known >> 32), 1);
      give(SECCOMP_RET_ALLOW);
    } else {
      // Its own opens go on to the filter proper; they are calls like any other there.
      unless_equal_skip(static_cast<std::uint32_t>(known >> 32), 1);
      front.push_back(BPF_STMT(BPF_JMP | BPF_JA, 5));
    }
    load(number_at);
    unless_equal_skip(SYS_openat, 1);
    give(SECCOMP_RET_TRAP | traced);
    unless_equal_skip(SYS_open, 1);
    give(SECCOMP_RET_TRAP | traced);
  }
#endif
  for (const std::size_t at : to_end) front[at].jf = static_cast<std::uint8_t>(front.size() - at - 1);
  program.insert(program.begin(), front.begin(), front.end());
}

void install_violation_trap(const policy::values& granted, black_box& shared) {
  box = &shared;
  kills = granted.kill;
  learns = granted.learn;
  writes = !granted.write.empty() || !granted.create.empty() || granted.private_tmp ||
           granted.syscalls.contains("files-write");
  struct sigaction action {};
  action.sa_sigaction = on_denied;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSYS, &action, nullptr);
}

}  // namespace bulkhead::sandbox
