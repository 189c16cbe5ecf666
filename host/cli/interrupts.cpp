// See interrupts.hpp.
#include "interrupts.hpp"

#include "exit_codes.hpp"

#include <csignal>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

namespace bulkhead::cli {

interrupts::interrupts() : end_(checked(::eventfd(0, EFD_CLOEXEC), "eventfd")) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  signals_.reset(checked(::signalfd(-1, &set, SFD_CLOEXEC), "signalfd"));
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { watch(); });
}

interrupts::~interrupts() {
  ::eventfd_write(end_.get(), 1);
  thread_.join();
}

void interrupts::watch() {
  for (;;) {
    pollfd fds[] = {{signals_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents) return;
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) continue;
    // _exit: the workers see their channels close and end; there is nothing else to put in order.
    if (!calling_ || source_.stop_requested()) ::_exit(exit_interrupted);
    source_.request_stop();
  }
}

}  // namespace bulkhead::cli
