// Ctrl-C (and SIGTERM) while a method is being called: the first cancels the call, the second ends the program. Outside
// a call the first one ends it. A thread takes the signals, so nothing has to be async-signal-safe.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <atomic>
#include <stop_token>
#include <thread>

namespace bulkhead::cli {

class interrupts {
 public:
  // Before any other thread is started: those inherit which signals are blocked.
  interrupts();
  ~interrupts();
  interrupts(const interrupts&) = delete;
  interrupts& operator=(const interrupts&) = delete;

  // From now on the first Ctrl-C requests a stop instead of ending the program.
  void call_begins() { calling_ = true; }
  std::stop_token token() const { return source_.get_token(); }

 private:
  void watch();

  unique_fd signals_, end_;
  std::stop_source source_;
  std::atomic<bool> calling_{false};
  std::thread thread_;
};

}  // namespace bulkhead::cli
