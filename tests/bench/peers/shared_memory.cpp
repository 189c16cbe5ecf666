// Floors: shared memory with nothing to keep two processes apart. `spin`: both sides look until something is there.
// `futex`: both sleep, and are woken for each message.
#include "peer.hpp"

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstring>
#include <stdexcept>

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

using peer::bytes_view;
using counter = std::atomic<std::uint32_t>;

void futex(counter& word, int operation, std::uint32_t value) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, nullptr, nullptr, 0);
}

constexpr std::size_t slots = 64, slot_size = 64;

// One direction: messages are counted; a short one lies in its slot, a long one in the place for the only one that there
// may be.
struct direction {
  alignas(64) counter count;
  struct slot {
    std::uint32_t size;
    std::uint8_t data[slot_size - sizeof(std::uint32_t)];
  };
  alignas(64) slot ring[slots];
};
constexpr std::size_t short_size = sizeof(direction::slot::data);

struct area {
  direction to, from;
  alignas(64) counter awake;
};

class shared_memory_link final : public peer::link {
 public:
  shared_memory_link(std::size_t largest, bool park)
      : park_(park), largest_(largest), memory_(sizeof(area) + 2 * largest), server_([this] { serve(); }) {}

  bytes_view call(bytes_view payload) override {
    put(memory().to, large(0), sent_++, payload);
    wait(memory().from.count, sent_);
    return get(memory().from, large(1), sent_ - 1);
  }

  bool many(bytes_view payload, std::size_t count, std::size_t outstanding) override {
    if (park_ || payload.size() > short_size || outstanding > slots) return false;
    const std::uint32_t begin = sent_;
    for (std::uint32_t got = 0; got < count;) {
      const std::uint32_t now = memory().from.count.load(std::memory_order_acquire) - begin;
      for (; got < now; ++got)
        if (get(memory().from, large(1), begin + got).size() != payload.size()) return false;
      while (sent_ - begin < count && sent_ - begin - got < outstanding) put(memory().to, large(0), sent_++, payload);
    }
    return true;
  }

  void awake(bool now) override {
    memory().awake.store(now);
    futex(memory().awake, FUTEX_WAKE, INT_MAX);
  }

  pid_t worker() const override { return server_.pid(); }

 private:
  struct mapping {
    void* at;
    std::size_t size;
    explicit mapping(std::size_t bytes)
        : at(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)), size(bytes) {
      if (at == MAP_FAILED) throw std::runtime_error("mmap");
    }
    ~mapping() { ::munmap(at, size); }
  };

  area& memory() { return *static_cast<area*>(memory_.at); }
  std::uint8_t* large(std::size_t which) {
    return static_cast<std::uint8_t*>(memory_.at) + sizeof(area) + which * largest_;
  }

  void put(direction& way, std::uint8_t* large, std::uint32_t number, bytes_view payload) {
    auto& slot = way.ring[number % slots];
    slot.size = static_cast<std::uint32_t>(payload.size());
    std::memcpy(payload.size() <= short_size ? slot.data : large, payload.data(), payload.size());
    way.count.store(number + 1, std::memory_order_release);
    if (park_) futex(way.count, FUTEX_WAKE, 1);
  }

  static bytes_view get(direction& way, std::uint8_t* large, std::uint32_t number) {
    auto& slot = way.ring[number % slots];
    return {slot.size <= short_size ? slot.data : large, slot.size};
  }

  // Until so many messages have come.
  void wait(counter& count, std::uint32_t wanted) {
    for (;;) {
      const std::uint32_t now = count.load(std::memory_order_acquire);
      if (now == wanted) return;
      if (park_) futex(count, FUTEX_WAIT, now);
      else __builtin_ia32_pause();
    }
  }

  void serve() {
    for (std::uint32_t number = 0;;) {
      if (park_) wait(memory().to.count, number + 1);
      while (memory().to.count.load(std::memory_order_acquire) == number) {
        if (!memory().awake.load(std::memory_order_relaxed)) futex(memory().awake, FUTEX_WAIT, 0);
        else __builtin_ia32_pause();
      }
      put(memory().from, large(1), number, get(memory().to, large(0), number));
      ++number;
    }
  }

  bool park_;
  std::size_t largest_;
  mapping memory_;
  std::uint32_t sent_ = 0;
  peer::forked server_;
};

}  // namespace

int main(int argc, char** argv) {
  const bool park = argc > 1 && std::strcmp(argv[1], "futex") == 0;
  return peer::obey({.name = park ? "futex" : "spin", .version = "", .connect = [park](std::size_t largest) {
                       return std::make_unique<shared_memory_link>(largest, park);
                     }});
}
