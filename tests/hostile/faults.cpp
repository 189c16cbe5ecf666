// The host when system calls fail for want of something: each place where it asks the system for a descriptor, memory, a
// process or a thread fails once, then that place and all after it. Whatever fails, every call ends with an outcome or an
// exception, nothing hangs, nothing is left behind, and once the system has what it takes again, so does the host.
//
// The calls are wrapped by the linker (--wrap): those of the host library, not those of the C library's own. Memory from
// `new` runs out on the application's thread alone: on the host's own threads that ends the process, as in most programs.
// BULKHEAD_FAULTS=N,MODE runs one place alone (MODE 0: once, 1: from there on); BULKHEAD_FAULTS_ALL=1 lets each allocation
// fail rather than each ninth.
#include "faults.hpp"

#include "failing_new.hpp"
#include "fixture.hpp"
#include <bulkhead/metrics.hpp>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bulkhead::testing {
std::atomic<bool> no_descriptors_sent{false}, no_duplicates{false};
std::atomic<int> refused_descriptors{0}, duplicates{0};
}  // namespace bulkhead::testing

namespace {

using namespace bulkhead::testing;

enum class mode { once, from_there_on };

// Which of the places to come fails.
std::atomic<bool> armed{false};
std::atomic<long> met{0};
long chosen = -1;
mode how = mode::once;
std::atomic<const char*> last_failed{""};

bool fails(const char* call, int error) {
  if (!armed) return false;
  const long mine = met++;
  if (chosen < 0 || (how == mode::once ? mine != chosen : mine < chosen)) return false;
  last_failed = call;
  errno = error;
  return true;
}

}  // namespace

extern "C" {
int __real_socketpair(int, int, int, int*);
int __wrap_socketpair(int domain, int type, int protocol, int* ends) {
  return fails("socketpair", EMFILE) ? -1 : __real_socketpair(domain, type, protocol, ends);
}
int __real_pipe2(int*, int);
int __wrap_pipe2(int* ends, int flags) { return fails("pipe2", EMFILE) ? -1 : __real_pipe2(ends, flags); }
int __real_memfd_create(const char*, unsigned);
int __wrap_memfd_create(const char* name, unsigned flags) {
  return fails("memfd_create", EMFILE) ? -1 : __real_memfd_create(name, flags);
}
int __real_ftruncate(int, off_t);
int __wrap_ftruncate(int fd, off_t size) { return fails("ftruncate", ENOSPC) ? -1 : __real_ftruncate(fd, size); }
int __real_epoll_create1(int);
int __wrap_epoll_create1(int flags) { return fails("epoll_create1", EMFILE) ? -1 : __real_epoll_create1(flags); }
int __real_timerfd_create(int, int);
int __wrap_timerfd_create(int clock, int flags) {
  return fails("timerfd_create", EMFILE) ? -1 : __real_timerfd_create(clock, flags);
}
int __real_eventfd(unsigned, int);
int __wrap_eventfd(unsigned value, int flags) { return fails("eventfd", EMFILE) ? -1 : __real_eventfd(value, flags); }
int __real_epoll_ctl(int, int, int, epoll_event*);
int __wrap_epoll_ctl(int epoll, int what, int fd, epoll_event* event) {
  return what == EPOLL_CTL_ADD && fails("epoll_ctl", ENOSPC) ? -1 : __real_epoll_ctl(epoll, what, fd, event);
}
int __real_fcntl(int, int, ...);
int __wrap_fcntl(int fd, int what, ...) {
  va_list rest;
  va_start(rest, what);
  void* const argument = va_arg(rest, void*);
  va_end(rest);
  if (what == F_DUPFD_CLOEXEC) {
    ++duplicates;
    if (no_duplicates) return errno = EMFILE, -1;
  }
  if ((what == F_DUPFD_CLOEXEC && fails("fcntl(F_DUPFD_CLOEXEC)", EMFILE)) ||
      (what == F_ADD_SEALS && fails("fcntl(F_ADD_SEALS)", EBUSY)))
    return -1;
  return __real_fcntl(fd, what, argument);
}
int __real_open(const char*, int, ...);
int __wrap_open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t rights = va_arg(rest, mode_t);
  va_end(rest);
  return fails("open", EMFILE) ? -1 : __real_open(path, flags, rights);
}
ssize_t __real_pread(int, void*, size_t, off_t);
ssize_t __wrap_pread(int fd, void* to, size_t size, off_t at) {
  return fails("pread", EIO) ? -1 : __real_pread(fd, to, size, at);
}
ssize_t __real_sendmsg(int, const msghdr*, int);
ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags) {
  if (no_descriptors_sent && message->msg_controllen > 0) {
    ++refused_descriptors;
    return errno = ETOOMANYREFS, -1;
  }
  return fails("sendmsg", ENOBUFS) ? -1 : __real_sendmsg(fd, message, flags);
}
ssize_t __real_send(int, const void*, size_t, int);
ssize_t __wrap_send(int fd, const void* data, size_t size, int flags) {
  return fails("send", ENOBUFS) ? -1 : __real_send(fd, data, size, flags);
}
void* __real_mmap(void*, size_t, int, int, int, off_t);
void* __wrap_mmap(void* at, size_t size, int rights, int flags, int fd, off_t offset) {
  return fails("mmap", ENOMEM) ? MAP_FAILED : __real_mmap(at, size, rights, flags, fd, offset);
}
int __real_posix_spawn(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*, char* const*,
                       char* const*);
int __wrap_posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                       const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  return fails("posix_spawn", EAGAIN) ? EAGAIN : __real_posix_spawn(pid, path, actions, attributes, argv, envp);
}
long __real_syscall(long, ...);
long __wrap_syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  long a[6];
  for (long& each : a) each = va_arg(rest, long);
  va_end(rest);
  if ((number == SYS_openat2 && fails("openat2", EMFILE)) || (number == SYS_pidfd_open && fails("pidfd_open", EMFILE)))
    return -1;
  return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#ifndef BULKHEAD_SANITIZED  // whose own runtime stands here; std::thread calls this from its library, so no --wrap
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  using function = decltype(&::pthread_create);
  static const auto real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "pthread_create"));
  return fails("pthread_create", EAGAIN) ? EAGAIN : real(thread, attributes, start, argument);
}
#endif
}

namespace bulkhead::testing {
namespace {

// All that a host does that takes something of the system: start, load, call in both ways, pass a descriptor, die in a
// call, reload, recycle, write a report. What throws, throws; what is left is given back for what comes after.
constexpr int reload_step = 7;

struct stage {
  mailbox<outcome> ended;  // of asynchronous calls; outlives the host, whose end is the last moment for them
  std::size_t asked = 0;
  std::unique_ptr<bulkhead::host> host;
  bulkhead::plugin plugin;
  std::string refused;         // what the first failure said
  int step = 0, starved = -1;  // the step in which an allocation fails
  long allocation = -1;        // which; negative: none
  bool met = false;            // whether there were as many
};

template <class F>
void attempt(stage& on, F&& step) {
  struct scope {
    stage& on;
    explicit scope(stage& of) : on(of) {
      allocations = 0;
      failing_allocation = on.step++ == on.starved ? on.allocation : -1;
    }
    ~scope() {
      on.met = on.met || (failing_allocation >= 0 && allocations > failing_allocation);
      failing_allocation = -1;
    }
  };
  try {
    const scope starved(on);
    step();
  } catch (const std::exception& e) {  // call_error, or system_error where there is no call
    if (on.refused.empty()) on.refused = e.what();
    if (!*e.what()) FAIL("an error without a text");
    if (std::string_view(e.what()).starts_with("WRONG")) FAIL(e.what());
  }
}

load_options hasty() {
  load_options options = untiring();
  options.deadline = 2s;
  options.start_timeout = 2s;
  options.supervision.drain = {.calls = 500ms, .shutdown = 500ms, .undead_after = 1s};
  return options;
}

void play(stage& on, const std::filesystem::path& reports) {
  attempt(on, [&] {
    on.host = std::make_unique<bulkhead::host>(host_options{.crash_dir = reports, .spawns = any_number_of_spawns});
  });
  if (!on.host) return;
  attempt(on, [&] { on.plugin = on.host->load(plugin_path("chaos"), hasty()); });
  if (!on.plugin) return;
  attempt(on, [&] {
    if (on.plugin.call<int>("echo", 7) != 7) throw std::logic_error("WRONG: another call's result");
  });
  attempt(on, [&] {
    const unique_fd null(__real_open("/dev/null", O_RDONLY | O_CLOEXEC));
    on.plugin.call("hold", pass_fd{null.get()});
  });
  attempt(on, [&] {
    on.plugin.async_call<reply>("echo", std::tuple{8},
                                [&](boost::system::error_code, const reply& done) { on.ended.put(done.outcome()); });
    ++on.asked;
  });
  if (on.starved >= 0)
    on.ended.wait_for(on.asked);  // handing over a result is the host's own work, wherever it is done
  attempt(on, [&] {
    if (on.plugin.try_call("misbehave", "segfault").outcome() == outcome::ok) throw std::logic_error("WRONG: ok");
  });
  attempt(on, [&] { on.plugin.recycle(); });
  attempt(on, [&] { on.plugin.reload(plugin_path("chaos")); });
  attempt(on, [&] { on.plugin.call<int>("echo", 9); });
}

std::size_t zombies() {
  siginfo_t left{};
  return ::waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && left.si_pid != 0 ? 1 : 0;
}

void poll_until(const std::function<bool()>& done) {
  const auto limit = std::chrono::steady_clock::now() + 10s;
  while (!done() && std::chrono::steady_clock::now() < limit) std::this_thread::sleep_for(1ms);
}

// Returns whether the place was met at all. With `allocation`, that one fails in that step, and no system call.
bool fail_at(long place, mode when, const std::filesystem::path& reports, int step = -1, long allocation = -1) {
  INFO("place " << place << (when == mode::once ? ", once" : ", from there on") << ", allocation " << allocation
                << " in step " << step);
  bool reached = false;
  const auto fds = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  met = 0;
  chosen = place;
  how = when;
  last_failed = "";
  ::alarm(60);  // what hangs dies of it, and the message says where
  if (step < 0) std::fprintf(stderr, "\rplace %ld %s   ", place, when == mode::once ? "once" : "on  ");
  else std::fprintf(stderr, "\rstep %d, allocation %ld   ", step, allocation);
  {
    stage on;
    on.starved = step;
    on.allocation = allocation;
    armed = true;
    play(on, reports);
    armed = false;
    reached = step < 0 ? met > place : on.met;
    INFO(last_failed.load() << " failed: " << on.refused);
    CHECK(on.ended.wait_for(on.asked));
    CHECK(on.ended.values().size() == on.asked);
    if (on.plugin) {  // all is there again
      on.plugin.reset();
      CHECK(on.plugin.call<int>("echo", 10) == 10);
      const auto none_in_flight = [&] {
        const auto methods = on.plugin.metrics().methods;
        return std::all_of(methods.begin(), methods.end(), [](const auto& each) { return each.in_flight == 0; });
      };
      poll_until(none_in_flight);
      CHECK(none_in_flight());
      poll_until([&] { return on.plugin.workers().size() <= 1; });  // one may still be leaving
      // No memory to tell the version that was replaced to leave: it does so with the plugin.
      CHECK(on.plugin.workers().size() <= (on.starved == reload_step ? 2 : 1));
    }
    if (on.host) {
      on.host->reset();
      CHECK(on.host->load(plugin_path("echo")).call<int>("add", 1, 2) == 3);
    }
  }
  INFO(last_failed.load() << " failed");
  poll_until([&] { return entries("/proc/self/fd") <= fds && entries("/proc/self/task") <= threads; });
  CHECK(entries("/proc/self/fd") == fds);
  CHECK(entries("/proc/self/task") <= threads);  // one that had been joined may have been there still
  CHECK(zombies() == 0);
  CHECK(::waitpid(-1, nullptr, WNOHANG | __WALL) == -1);  // no child
  ::alarm(0);
  return reached;
}

}  // namespace

TEST_CASE(
    "each allocation of the application's thread fails once: nothing hangs or leaks, and all is well afterwards") {
  scratch_folder reports;
  std::thread([] {}).join();
  fail_at(-1, mode::once, reports.path);
  const long every = std::getenv("BULKHEAD_FAULTS_ALL") ? 1 : 9;
  long all = 0;
  for (int step = 0; step < 9; ++step) {
    long allocation = 0;
    while (fail_at(-1, mode::once, reports.path, step, allocation)) allocation += every;
    all += allocation;
  }
  CHECK(all > 50);
}

TEST_CASE("each call to the system fails once, then for good: nothing hangs or leaks, and all is well afterwards") {
  scratch_folder reports;
  std::thread([] {}).join();              // a sanitizer's own thread begins with the first
  fail_at(-1, mode::once, reports.path);  // what is allocated once
  if (const char* one = std::getenv("BULKHEAD_FAULTS")) {
    char* rest = nullptr;
    const long place = std::strtol(one, &rest, 10);
    fail_at(place, *rest == ',' && rest[1] == '1' ? mode::from_there_on : mode::once, reports.path);
    return;
  }
#ifdef BULKHEAD_SANITIZED
  constexpr long every = 7;
#else
  constexpr long every = 1;
#endif
  for (const mode when : {mode::once, mode::from_there_on}) {
    const long step = when == mode::once ? every : 3 * every;  // what fails for good takes up to the calls' deadlines
    long place = 0;
    while (fail_at(place, when, reports.path)) place += step;
    CHECK(place > 50);
  }
}

}  // namespace bulkhead::testing
