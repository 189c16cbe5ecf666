// While one lives, its thread blocks all signals, and so do threads it starts: the application's signal handlers have no
// business on ours.
#pragma once

#include <csignal>

namespace bulkhead {

class signals_blocked {
 public:
  signals_blocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~signals_blocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  signals_blocked(const signals_blocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace bulkhead
