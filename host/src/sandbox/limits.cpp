// See limits.hpp. Limits are hard as well as soft: without capabilities nobody raises them again.
#include "sandbox/limits.hpp"

#include <bulkhead/ipc/system.hpp>

#include <sys/resource.h>

namespace bulkhead::sandbox {

limits::limits(const policy::values& granted, bool own_user_namespace)
    : granted_(granted), count_threads_(own_user_namespace && granted.threads > 0) {
  status_.name = name();
  if (granted.without.contains(name())) {
    status_.detail = "left out by the policy";
    return;
  }
  status_.in_force = true;
  status_.detail = granted.memory ? "memory " + std::to_string(granted.memory >> 20) + " MiB" : "memory unlimited";
  status_.detail += granted.cpu_ms ? ", CPU " + std::to_string((granted.cpu_ms + 999) / 1000) + " s" : "";
  status_.detail +=
      ", " + (count_threads_ ? "threads " + std::to_string(granted.threads) : std::string(threads_not_counted));
}

void limits::apply() {
  if (!status_.in_force) return;
  const auto limit = [](auto resource, rlim_t soft, rlim_t hard) {
    const rlimit both{soft, hard};
    if (::setrlimit(resource, &both) == 0) return;
    // Somebody has set the hard limit lower than that already.
    if (rlimit now{}; ::getrlimit(resource, &now) == 0 && now.rlim_max <= hard) return;
    throw_errno("setrlimit");
  };
  const auto fixed = [&](auto resource, rlim_t value) { limit(resource, value, value); };
  fixed(RLIMIT_CORE, 0);
  fixed(RLIMIT_NOFILE, granted_.descriptors);
  fixed(RLIMIT_MEMLOCK, granted_.syscalls.contains("memory-locks") ? rlim_t{64} << 20 : 0);
  fixed(RLIMIT_MSGQUEUE, 0);
  fixed(RLIMIT_RTPRIO, 0);
#ifndef BULKHEAD_SANITIZED  // a sanitizer reserves terabytes of address space
  if (granted_.memory) fixed(RLIMIT_AS, granted_.memory);
#endif
  if (granted_.cpu_ms) {
    const rlim_t seconds = (granted_.cpu_ms + 999) / 1000;
    limit(RLIMIT_CPU, seconds, seconds + 1);  // SIGXCPU, which the crash handler records; then SIGKILL
  }
  if (granted_.file_size) fixed(RLIMIT_FSIZE, granted_.file_size);
  if (count_threads_) fixed(RLIMIT_NPROC, granted_.threads);
}

}  // namespace bulkhead::sandbox
