// bulkhead-worker: started by a host as fork server or as process server (BULKHEAD_FORK_SERVER_FD or
// BULKHEAD_PROCESS_SERVER_FD names the control channel), or by any parent as a single worker:
// BULKHEAD_CHANNEL_FD=n BULKHEAD_PROTOCOL=1 bulkhead-worker PLUGIN.so
#include "bootstrap.hpp"
#include "fork_server.hpp"
#include "process/process_server.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef BULKHEAD_SANITIZED
// Looking for leaks takes ptrace, which no worker has.
extern "C" __attribute__((visibility("default"))) int __lsan_is_turned_off();
extern "C" int __lsan_is_turned_off() { return 1; }
#endif

namespace {

constexpr int exit_usage = 64;  // EX_USAGE

// Whom the workers or children of a host that is root run as.
unsigned worker_user() {
  const char* user = std::getenv("BULKHEAD_WORKER_USER");
  return user ? static_cast<unsigned>(std::atoi(user)) : 65534;
}

// Whatever the host had open without close-on-exec is none of ours.
int take_over_control(const char* number) {
  constexpr int control = 3;
  const int given = std::atoi(number);
  if (given != control && ::dup2(given, control) < 0) return -1;
  ::fcntl(control, F_SETFD, FD_CLOEXEC);
  ::syscall(SYS_close_range, control + 1, ~0u, 0);
  return control;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (const char* number = std::getenv("BULKHEAD_FORK_SERVER_FD")) {
      const int control = take_over_control(number);
      const bool network = std::getenv("BULKHEAD_WORKER_NETWORK") != nullptr;
      const unsigned user = worker_user();
      ::clearenv();
      return control < 0 ? exit_usage : bulkhead::serve_fork_requests(control, network, user);
    }
    if (const char* number = std::getenv("BULKHEAD_PROCESS_SERVER_FD")) {
      const int control = take_over_control(number);
      const char* name = std::getenv("BULKHEAD_PROCESS_SERVER");
      const std::string_view kind = name ? name : "";
      using bulkhead::process_server_kind;
      const process_server_kind which = kind == "plain"      ? process_server_kind::plain
                                        : kind == "isolated" ? process_server_kind::isolated
                                                             : process_server_kind::networked;
      const bool detached = std::getenv("BULKHEAD_PROCESS_SERVER_DETACHED") != nullptr;
      const unsigned user = worker_user();
      ::clearenv();
      return control < 0 ? exit_usage : bulkhead::serve_process_requests(control, which, detached, user);
    }
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
      std::fprintf(stderr, "usage: BULKHEAD_CHANNEL_FD=n BULKHEAD_PROTOCOL=1 %s PLUGIN.so\n", argv[0]);
      return exit_usage;
    }
    return bulkhead::run_worker_alone(argc == 2 ? argv[1] : "");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bulkhead-worker: %s\n", e.what());
    return 70;  // EX_SOFTWARE
  }
}
