// A floor: a process that answers through shared memory, with nothing in between. It spins, or sleeps on a futex until it is
// woken.
#pragma once

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

class shared_memory_echo {
 public:
  explicit shared_memory_echo(bool sleeps) : sleeps_(sleeps) {
    void* place = ::mmap(nullptr, sizeof(area), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) throw std::runtime_error("mmap");
    area_ = static_cast<area*>(place);
    area_->awake = 1;
    child_ = ::fork();
    if (child_ == 0) serve();
  }
  ~shared_memory_echo() {
    say(area_->request, last);
    awake(true);
    ::waitpid(child_, nullptr, 0);
    ::munmap(area_, sizeof(area));
  }
  shared_memory_echo(const shared_memory_echo&) = delete;
  shared_memory_echo& operator=(const shared_memory_echo&) = delete;

  // There and back, with so many bytes that both sides copy.
  void once(std::span<const std::uint8_t> bytes = {}) {
    const std::uint32_t before = area_->answer;
    area_->size = std::min(bytes.size(), most);
    if (area_->size > 0) std::memcpy(area_->bytes, bytes.data(), area_->size);
    say(area_->request, before + 1);
    wait(area_->answer, before);
  }

  // Whether it looks for the next one; else it takes no CPU from others meanwhile, and must not be asked.
  void awake(bool now) {
    area_->awake = now;
    wake(area_->awake);
  }

  static constexpr std::size_t most = std::size_t{64} << 10;

 private:
  static constexpr std::uint32_t last = 0xffffffff;
  using word = std::atomic<std::uint32_t>;
  struct area {
    alignas(64) word request;
    alignas(64) word answer;
    alignas(64) word awake;
    std::size_t size;
    alignas(64) std::uint8_t bytes[most];
  };

  [[noreturn]] void serve() {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::vector<std::uint8_t> copy(most);
    for (std::uint32_t seen = 0;;) {
      while (!sleeps_ && area_->request.load(std::memory_order_acquire) == seen) {
        if (area_->awake.load(std::memory_order_relaxed) == 0) sleep(area_->awake, 0);
        else __builtin_ia32_pause();
      }
      seen = wait(area_->request, seen);
      if (seen == last) ::_exit(0);
      if (area_->size > 0) std::memcpy(copy.data(), area_->bytes, area_->size);
      say(area_->answer, seen);
    }
  }

  std::uint32_t wait(word& of, std::uint32_t old) const {
    while (of.load(std::memory_order_acquire) == old) {
      if (sleeps_) sleep(of, old);
      else __builtin_ia32_pause();
    }
    return of;
  }
  void say(word& to, std::uint32_t value) const {
    to.store(value);
    if (sleeps_) wake(to);
  }
  static void sleep(word& on, std::uint32_t while_it_is) {
    ::syscall(SYS_futex, &on, FUTEX_WAIT, while_it_is, nullptr, nullptr, 0);
  }
  static void wake(word& who_sleeps_on) { ::syscall(SYS_futex, &who_sleeps_on, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

  const bool sleeps_;
  area* area_ = nullptr;
  pid_t child_ = -1;
};

}  // namespace bench
