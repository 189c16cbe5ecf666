// The worker's own pthread_sigmask() and sigprocmask(), which its plugin's calls are bound to: they never block SIGSYS.
// A denied system call in a thread that blocks every signal would otherwise not fail but kill, for the kernel can't call
// the handler then. This protects nothing, which is the filter's business; it makes honest plugins fail in the way that was
// promised.
#include <cerrno>
#include <csignal>

#include <dlfcn.h>

namespace {

template <class F>
F* next(const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}

bool blocks(int how, const sigset_t* set) {
  return set && (how == SIG_BLOCK || how == SIG_SETMASK) && ::sigismember(set, SIGSYS) == 1;
}

}  // namespace

#define BULKHEAD_OVERRIDE extern "C" __attribute__((visibility("default")))

BULKHEAD_OVERRIDE int pthread_sigmask(int how, const sigset_t* set, sigset_t* before) noexcept {
  static const auto original = next<int(int, const sigset_t*, sigset_t*)>("pthread_sigmask");
  sigset_t changed;
  if (blocks(how, set)) {
    changed = *set;
    ::sigdelset(&changed, SIGSYS);
    set = &changed;
  }
  return original(how, set, before);
}

// Looked up before there are threads and handlers: dlsym() takes the loader's lock, which a plugin's constructor holds.
__attribute__((constructor)) static void look_up() { pthread_sigmask(SIG_BLOCK, nullptr, nullptr); }

BULKHEAD_OVERRIDE int sigprocmask(int how, const sigset_t* set, sigset_t* before) noexcept {
  const int error = pthread_sigmask(how, set, before);
  if (error == 0) return 0;
  errno = error;
  return -1;
}
