// What a crash report says in words. See bulkhead/crash_report.hpp.
#include "sandbox/argument_text.hpp"
#include <bulkhead/crash_report.hpp>

#include <csignal>
#include <cstdio>
#include <cstring>

namespace bulkhead {
namespace {

struct signal_code {
  int signal, code;
  const char* name;
};
constexpr int any_signal = 0;

// sigaction(2); the numbers are of the kernel's asm-generic/siginfo.h, where the C library may lack the name.
constexpr signal_code signal_codes[] = {
    {SIGSEGV, SEGV_MAPERR, "SEGV_MAPERR"},
    {SIGSEGV, SEGV_ACCERR, "SEGV_ACCERR"},
    {SIGSEGV, SEGV_BNDERR, "SEGV_BNDERR"},
    {SIGSEGV, SEGV_PKUERR, "SEGV_PKUERR"},
    {SIGSEGV, 5, "SEGV_ACCADI"},
    {SIGSEGV, 6, "SEGV_ADIDERR"},
    {SIGSEGV, 7, "SEGV_ADIPERR"},
    {SIGSEGV, 8, "SEGV_MTEAERR"},
    {SIGSEGV, 9, "SEGV_MTESERR"},
    {SIGSEGV, 10, "SEGV_CPERR"},
    {SIGBUS, BUS_ADRALN, "BUS_ADRALN"},
    {SIGBUS, BUS_ADRERR, "BUS_ADRERR"},
    {SIGBUS, BUS_OBJERR, "BUS_OBJERR"},
    {SIGBUS, BUS_MCEERR_AR, "BUS_MCEERR_AR"},
    {SIGBUS, BUS_MCEERR_AO, "BUS_MCEERR_AO"},
    {SIGILL, ILL_ILLOPC, "ILL_ILLOPC"},
    {SIGILL, ILL_ILLOPN, "ILL_ILLOPN"},
    {SIGILL, ILL_ILLADR, "ILL_ILLADR"},
    {SIGILL, ILL_ILLTRP, "ILL_ILLTRP"},
    {SIGILL, ILL_PRVOPC, "ILL_PRVOPC"},
    {SIGILL, ILL_PRVREG, "ILL_PRVREG"},
    {SIGILL, ILL_COPROC, "ILL_COPROC"},
    {SIGILL, ILL_BADSTK, "ILL_BADSTK"},
    {SIGFPE, FPE_INTDIV, "FPE_INTDIV"},
    {SIGFPE, FPE_INTOVF, "FPE_INTOVF"},
    {SIGFPE, FPE_FLTDIV, "FPE_FLTDIV"},
    {SIGFPE, FPE_FLTOVF, "FPE_FLTOVF"},
    {SIGFPE, FPE_FLTUND, "FPE_FLTUND"},
    {SIGFPE, FPE_FLTRES, "FPE_FLTRES"},
    {SIGFPE, FPE_FLTINV, "FPE_FLTINV"},
    {SIGFPE, FPE_FLTSUB, "FPE_FLTSUB"},
    {SIGTRAP, TRAP_BRKPT, "TRAP_BRKPT"},
    {SIGTRAP, TRAP_TRACE, "TRAP_TRACE"},
    {SIGSYS, 1, "SYS_SECCOMP"},
    {any_signal, SI_USER, "SI_USER"},
    {any_signal, SI_KERNEL, "SI_KERNEL"},
    {any_signal, SI_QUEUE, "SI_QUEUE"},
    {any_signal, SI_TIMER, "SI_TIMER"},
    {any_signal, SI_MESGQ, "SI_MESGQ"},
    {any_signal, SI_ASYNCIO, "SI_ASYNCIO"},
    {any_signal, SI_SIGIO, "SI_SIGIO"},
    {any_signal, SI_TKILL, "SI_TKILL"},
};

}  // namespace

std::string_view to_string(phase value) {
  switch (value) {
    case phase::spawn: return "spawn";
    case phase::limits: return "limits";
    case phase::hello: return "hello";
    case phase::sandbox: return "sandbox";
    case phase::load: return "load";
    case phase::init: return "init";
    case phase::ready: return "ready";
    case phase::call: return "call";
    case phase::shutdown: return "shutdown";
  }
  return "unknown";
}

std::string_view to_string(exit_reason value) {
  switch (value) {
    case exit_reason::exited: return "exited";
    case exit_reason::signalled: return "signalled";
    case exit_reason::out_of_memory: return "out_of_memory";
    case exit_reason::violation: return "violation";
    case exit_reason::protocol: return "protocol";
    case exit_reason::hung: return "hung";
    case exit_reason::closed: return "closed";
    case exit_reason::shut_down: return "shut_down";
    case exit_reason::start_timeout: return "start_timeout";
    case exit_reason::unknown: return "unknown";
  }
  return "unknown";
}

std::string_view to_string(code_origin value) {
  switch (value) {
    case code_origin::unknown: return "unknown";
    case code_origin::plugin: return "plugin";
    case code_origin::worker: return "worker";
    case code_origin::library: return "library";
  }
  return "unknown";
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

std::string signal_code_name(int signal, int code) {
  for (const signal_code& each : signal_codes)
    if (each.code == code && (each.signal == signal || each.signal == any_signal)) return each.name;
  return "code " + std::to_string(code);
}

std::string crash_report::summary() const {
  std::string text;
  auto killed_by = [&] {
    text = "was killed by " + signal_name(signal);
    if (signal != SIGSEGV && signal != SIGBUS && signal != SIGILL && signal != SIGFPE) return;
    if (!signal_code) return;
    text += " (" + signal_code_name(signal, *signal_code);
    if (*signal_code > 0 && *signal_code != SI_KERNEL) text += ", address " + sandbox::hexadecimal(fault_address);
    text += ")";
  };
  switch (reason) {
    case exit_reason::exited: text = "exited with status " + std::to_string(exit_code); break;
    case exit_reason::signalled: killed_by(); break;
    case exit_reason::out_of_memory: text = "ran out of memory"; break;
    case exit_reason::violation:
      text = "did what its policy denies" + (system_call.empty() ? "" : " (" + system_call + ")") + " and was killed";
      break;
    case exit_reason::protocol: text = "broke the protocol and was killed"; break;
    case exit_reason::hung: text = "did not stop when asked to and was killed"; break;
    case exit_reason::closed: text = "closed its channel and was killed"; break;
    case exit_reason::shut_down: text = "was shut down"; break;
    case exit_reason::start_timeout: text = "was not ready in time and was killed"; break;
    case exit_reason::unknown: text = "ended, its status is unknown (another wait() took it)"; break;
  }
  if (phase == bulkhead::phase::call && !method.empty()) text += " in method '" + method + "'";
  else text += " in phase " + std::string(to_string(phase));
  if (!message.empty()) text += ": " + message;
  return text;
}

}  // namespace bulkhead
