// A plugin that does ordinary things with files, sockets, threads and children, and says what came of it.
#include <bulkhead/sdk.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

BULKHEAD_MANIFEST(license, "license=MIT");
#ifdef BULKHEAD_TEST_ASKED
BULKHEAD_MANIFEST(asked, "request=read:" BULKHEAD_TEST_ASKED);
#endif

namespace {

[[noreturn]] void failed() { throw bulkhead::error(::strerrorname_np(errno)); }

std::string read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  if (fd < 0) failed();
  char text[256];
  const ssize_t n = ::read(fd, text, sizeof text);
  ::close(fd);
  if (n < 0) failed();
  return {text, static_cast<std::size_t>(n)};
}

int write_file(const std::string& path, int flags, int bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | flags, 0600);
  if (fd < 0) failed();
  const std::string text(static_cast<std::size_t>(bytes), 'x');
  const ssize_t n = ::write(fd, text.data(), text.size());
  ::close(fd);
  if (n < 0) failed();
  return static_cast<int>(n);
}

void change(const std::string& how, const std::string& path) {
  const char* to = path.c_str();
  const long result = how == "mkdir"     ? ::mkdir(to, 0700)
                      : how == "unlink"  ? ::unlink(to)
                      : how == "rename"  ? ::rename("/etc/ld.so.cache", to)
                      : how == "symlink" ? ::symlink("/nowhere", to)
                                         : ::truncate(to, 0);
  if (result != 0) failed();
}

void truncate_file(const std::string& path) {
  if (::truncate(path.c_str(), 0) != 0) failed();
}

void open_flags(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags);
  if (fd < 0) failed();
  ::close(fd);
}

// Asks whether it would be allowed.
void signal_to(int pid) {
  if (::kill(pid, 0) != 0) failed();
}

// What a grant of system calls is for.
void use(const std::string& grant) {
  static char locked[16];
  if (grant == "udp") {
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) failed();
    ::close(fd);
  } else if (grant == "jit") {
    void* got = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) failed();
    ::munmap(got, 4096);
  } else if (grant == "memory-locks" ? ::syscall(SYS_mlock, locked, sizeof locked) != 0
                                     : ::syscall(SYS_munlockall) != 0) {  // sanitizers take the C library's for theirs
    failed();
  }
}

void make_link(const std::string& target, const std::string& path) {
  if (::symlink(target.c_str(), path.c_str()) != 0) failed();
}

void connect_to(int port, bool fast) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) failed();
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto* address = reinterpret_cast<const sockaddr*>(&to);
  const ssize_t result =
      fast ? ::sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, address, sizeof to) : ::connect(fd, address, sizeof to);
  ::close(fd);
  if (result < 0) failed();
}

// Serves there from then on.
void listen_on(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) failed();
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<std::uint16_t>(port));
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 || ::listen(fd, 8) != 0) failed();
}

// Differences are what counts: a clock that goes on, bytes that are not all the same.
bool clock_and_random() {
  timespec first{}, second{};
  unsigned char bytes[64]{};
  if (::clock_gettime(CLOCK_MONOTONIC, &first) != 0 || ::getrandom(bytes, sizeof bytes, 0) != sizeof bytes) failed();
  const timespec moment{0, 1000};
  if (::nanosleep(&moment, nullptr) != 0) failed();
  if (::clock_gettime(CLOCK_MONOTONIC, &second) != 0) failed();
  return (second.tv_sec > first.tv_sec || second.tv_nsec > first.tv_nsec) &&
         std::count(bytes, bytes + sizeof bytes, bytes[0]) < static_cast<std::ptrdiff_t>(sizeof bytes);
}

void* wait_forever(void*) {
  for (;;) ::pause();
}

// How many of them could be made.
int make_threads(int wanted) {
  pthread_attr_t small;
  ::pthread_attr_init(&small);
  ::pthread_attr_setstacksize(&small, 64 << 10);
  int made = 0;
  for (pthread_t thread; made < wanted && ::pthread_create(&thread, &small, wait_forever, nullptr) == 0;) ++made;
  return made;
}

// Touched by the kernel: under a sanitizer, the program's own access would take shadow memory as well.
bool take_memory(int megabytes) {
  const std::size_t size = static_cast<std::size_t>(megabytes) << 20;
  return ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) != MAP_FAILED;
}

// Children hold so many MiB each until they are killed, then this process does; how many children did.
int hold_memory(int own, int children, int megabytes) {
  int pipe[2];
  if (::pipe(pipe) != 0) return -1;
  for (int i = 0; i < children; ++i) {
    if (::fork() != 0) continue;
    take_memory(megabytes);
    [[maybe_unused]] const ssize_t n = ::write(pipe[1], "x", 1);
    for (;;) ::pause();
  }
  ::close(pipe[1]);
  int holding = 0;
  for (char c; holding < children && ::read(pipe[0], &c, 1) == 1;) ++holding;
  ::close(pipe[0]);
  take_memory(own);
  return holding;
}

// How long so many seconds of CPU time take.
double seconds_for(double cpu_seconds) {
  const auto begin = std::chrono::steady_clock::now();
  timespec used{};
  do ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  while (static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec) < cpu_seconds);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Children, grandchildren and so on; each waits to be killed.
int make_children(int wanted) {
  int made = 0;
  for (; made < wanted; ++made) {
    const pid_t child = ::fork();
    if (child < 0) break;
    if (child == 0) {
      if (made % 2) ::setsid();
      if (made % 3 == 0 && ::fork() == 0) wait_forever(nullptr);
      wait_forever(nullptr);
    }
  }
  return made;
}

// A child that leaves the worker's session and waits to be killed; its pid.
int leave_child() {
  const pid_t child = ::fork();
  if (child < 0) failed();
  if (child == 0) {
    ::setsid();
    wait_forever(nullptr);
  }
  return child;
}

int run(const std::string& program) {
  const pid_t child = ::fork();
  if (child < 0) failed();
  if (child == 0) {
    ::execl(program.c_str(), program.c_str(), nullptr);
    ::_exit(126);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// Made with vfork(), whose caller must not have much of its own.
pid_t vforked() {
  const pid_t child = ::vfork();
  if (child == 0) ::_exit(0);
  return child;
}

// A child that ends at once, made in one of the ways there are; 0, or the error, which of system() is 127.
int make_child(const std::string& how) {
  if (how == "spawn") {
    const char* argv[] = {"/bin/true", nullptr};
    pid_t child = -1;
    const int error = ::posix_spawn(&child, argv[0], nullptr, nullptr, const_cast<char**>(argv), nullptr);
    if (error == 0) ::waitpid(child, nullptr, 0);
    return error;
  }
  if (how == "system") {
    const int status = ::system("exit 7");
    return status == -1 ? errno : WEXITSTATUS(status) == 7 ? 0 : WEXITSTATUS(status);
  }
  const pid_t child = how == "fork" ? ::fork()
                      : how == "vfork"
                          ? vforked()
                          : static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (child == 0) ::_exit(0);
  if (child < 0) return errno;
  ::waitpid(child, nullptr, 0);
  return 0;
}

// The error of a system call in a child that executes nothing.
int call_in_child(long number) {
  const pid_t child = ::fork();
  if (child < 0) failed();
  if (child == 0) ::_exit(::syscall(number, AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// How many of so many calls of socket() a child is denied.
int sockets(int count) {
  int pipe[2];
  if (::pipe(pipe) != 0) failed();
  const pid_t child = ::fork();
  if (child < 0) failed();
  if (child == 0) {
    int denied = 0;
    for (int i = 0; i < count; ++i) denied += ::socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM;
    ::_exit(::write(pipe[1], &denied, sizeof denied) == sizeof denied ? 0 : 1);
  }
  int denied = -1;
  if (::read(pipe[0], &denied, sizeof denied) != sizeof denied) denied = -1;
  ::close(pipe[0]);
  ::close(pipe[1]);
  ::waitpid(child, nullptr, 0);
  return denied;
}

int socket_in_child() { return call_in_child(SYS_socket); }

int shell(const std::string& command) {
  const pid_t child = ::fork();
  if (child < 0) failed();
  if (child == 0) {
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(126);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// glibc binds a new thread to its CPUs with all signals blocked.
int thread_on_cpu() {
  cpu_set_t first;
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setaffinity_np(&attributes, sizeof first, &first);
  pthread_t thread;
  const int error = ::pthread_create(
      &thread, &attributes, [](void*) -> void* { return nullptr; }, nullptr);
  if (error == 0) ::pthread_join(thread, nullptr);
  return error;
}

int open_with_all_signals_blocked(const std::string& path) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (fd >= 0) ::close(fd);
  return path.empty() && fd < 0 ? error : 0;
}

bulkhead::handle open_to_read(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  if (fd < 0) throw bulkhead::error("can't open it");
  return bulkhead::handle(fd);
}

// How often that is in this process's own memory. `masked`: each of its bytes inverted, so that it is not found itself.
int times_in_memory(const bulkhead::bytes& masked) {
  std::vector<std::pair<const volatile char*, std::size_t>> writable;
  std::ifstream maps("/proc/self/maps");
  if (!maps) failed();
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    char kind[5]{};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, kind) == 3 && !std::strcmp(kind, "rw-p"))
      writable.emplace_back(reinterpret_cast<const volatile char*>(begin), end - begin);
  }
  int found = 0;
  for (const auto& [begin, size] : writable)
    for (std::size_t at = 0; at + masked.size() <= size; ++at) {
      std::size_t same = 0;
      while (same < masked.size() && begin[at + same] == static_cast<char>(~masked[same])) ++same;
      found += same == masked.size();
    }
  return found;
}

}  // namespace

BULKHEAD_PLUGIN("guest", "1.0.0") {
  plugin.method("read_file", read_file);
  plugin.method("write_file", write_file);
  plugin.method("change", change);
  plugin.method("truncate_file", truncate_file);
  plugin.method("open_flags", open_flags);
  plugin.method("signal", signal_to);
  plugin.method("use", use);
  plugin.method("dumpable", [] { return ::prctl(PR_GET_DUMPABLE); });
  plugin.method("hold", [](bulkhead::handle fd) { fd.release(); });
  plugin.method("make_link", make_link);
  plugin.method("connect_to", connect_to);
  plugin.method("listen_on", listen_on);
  plugin.method("clock_and_random", clock_and_random);
  plugin.method("make_threads", make_threads);
  plugin.method("make_children", make_children);
  plugin.method("leave_child", leave_child);
  plugin.method("hold_memory", hold_memory);
  plugin.method("open_file", open_to_read);
  plugin.method("emit_file", [](bulkhead::context& cx, const std::string& path) {
    const bulkhead::handle file = open_to_read(path);
    return cx.emit("file", std::tie(path, file));
  });
  plugin.method("emit_file_twice", [](bulkhead::context& cx, const std::string& path) {
    const bulkhead::handle file = open_to_read(path);
    return cx.emit("twice", std::tie(file, file));
  });
  plugin.method("emit_closed", [](bulkhead::context& cx) { return cx.emit("file", bulkhead::handle()); });
  plugin.method("lend_file", [](bulkhead::context& cx, const std::string& path) {
    return cx.call_host<std::string>("read", open_to_read(path), 5);
  });
  plugin.method("borrow_file", [](bulkhead::context& cx, const std::string& name) {
    const auto file = cx.call_host<bulkhead::handle>("open", name);
    char begin[5]{};
    const ssize_t n = ::read(file.fd(), begin, sizeof begin);
    return std::string(begin, n > 0 ? static_cast<std::size_t>(n) : 0);
  });
  // What the C ABI lets through: a reference without a descriptor, in an event, a call, progress; a descriptor without one.
  plugin.method("refer_to_nothing", [](bulkhead::context& cx) {
    const auto* host = cx.raw();
    const auto* handles = static_cast<const bulkhead_handles_t*>(host->get_extension(host, BULKHEAD_HANDLES));
    const char reference[] = "\x91\xd4\x01", nothing[] = "\x90";  // [handle 0], []
    const int fd = 0;
    std::vector<std::string> refused;
    if (!host->emit(host, "e", reference, 4)) refused.emplace_back("emit");
    if (!handles->emit(host, "e", nothing, 1, &fd, 1)) refused.emplace_back("emit with");
    bulkhead_answer_t answer{};
    if (host->call_host(host, cx.call(), "open", reference, 4, &answer) == BULKHEAD_REJECTED)
      refused.emplace_back("call");
    host->release_answer(host, &answer);
    if (handles->call_host(host, cx.call(), "open", nothing, 1, &fd, 1, &answer) == BULKHEAD_REJECTED)
      refused.emplace_back("call with");
    if (handles->take(host, &answer, 0) == -1) refused.emplace_back("take");
    host->release_answer(host, &answer);
    host->progress(host, cx.call(), reference, 4);
    return refused;
  });
  plugin.method("make_child", make_child);
  plugin.method("call_in_child", call_in_child);
  plugin.method("socket_in_child", socket_in_child);
  plugin.method("sockets", sockets);
  plugin.method("shell", shell);
  plugin.method("thread_on_cpu", thread_on_cpu);
  plugin.method("seconds_for", seconds_for);
  plugin.method("run", run);
  plugin.method("blocked", open_with_all_signals_blocked);
  plugin.method("spin", [] {
    std::atomic<bool> forever{true};
    while (forever) {
    }
  });
  plugin.method("times_in_memory", times_in_memory);
  plugin.method("variable", [](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return std::string(value ? value : "");
  });
}
