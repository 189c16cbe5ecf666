// What a crash report says in words. See bulkhead/crash_report.hpp.
#include <bulkhead/crash_report.hpp>

#include <csignal>
#include <cstdio>
#include <cstring>

namespace bulkhead {

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

std::string crash_report::summary() const {
  std::string text;
  auto killed_by = [&] {
    text = "was killed by " + signal_name(signal);
    if (fault_address || signal == SIGSEGV) {
      char address[32];
      std::snprintf(address, sizeof address, " (address 0x%llx)", static_cast<unsigned long long>(fault_address));
      text += address;
    }
  };
  switch (reason) {
    case exit_reason::exited: text = "exited with status " + std::to_string(exit_code); break;
    case exit_reason::signalled: killed_by(); break;
    case exit_reason::out_of_memory: text = "ran out of memory"; break;
    case exit_reason::violation: text = "did what its policy denies and was killed"; break;
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
