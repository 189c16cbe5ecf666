// A plugin that attacks its host through the memory it shares with it: addresses come from the test, which sees the
// worker's map.
#include <bulkhead/sdk.hpp>

#include <chrono>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace {

// Whether each way to write to a mapped lane that may only be read works: its rights, those of a copy of the mapping, a
// new mapping by any descriptor of a file of that size.
std::vector<int> ways_to_write(std::uint64_t address, std::uint64_t size) {
  void* const lane = reinterpret_cast<void*>(address);
  const auto opens = [&](void* mapped) { return ::mprotect(mapped, size, PROT_READ | PROT_WRITE) == 0; };
  std::vector<int> worked = {opens(lane)};
  void* const copy = ::mremap(lane, 0, size, MREMAP_MAYMOVE);
  worked.push_back(copy != MAP_FAILED && opens(copy));
  worked.push_back(0);
  for (int fd = 0; fd < 1024; ++fd) {
    struct stat file {};
    if (::fstat(fd, &file) == 0 && file.st_size == static_cast<off_t>(size) &&
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
      worked.back() = 1;
  }
  return worked;
}

// Nil bytes with 16 descriptors each, on the socket beside the lanes and with no message in the ring.
void send_descriptors(int socket, int times) {
  constexpr std::size_t size = 16 * sizeof(int);
  std::uint8_t nil = 0xc0;
  iovec part{&nil, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(size)] = {};  // each of them 0, which is /dev/null
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(size);
  for (int i = 0; i < times; ++i)
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) != 1) return;  // as many are on their way as the kernel allows
}

// Random words and bytes all over the memory, or over its first page, where the control words are. That others use it
// meanwhile is the point of it.
__attribute__((no_sanitize("thread"))) void scribble(std::uint64_t address, std::uint64_t size, unsigned seed,
                                                     std::chrono::milliseconds time) {
  auto* const bytes = reinterpret_cast<volatile std::uint8_t*>(address);
  auto* const words = reinterpret_cast<volatile std::uint32_t*>(address);
  std::mt19937 random(seed);
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < 1000; ++i) {
      const auto what = static_cast<std::uint32_t>(random());
      switch (what % 4) {
        case 0: bytes[what / 4 % size] = static_cast<std::uint8_t>(random()); break;
        case 1: words[what / 4 % 64] = static_cast<std::uint32_t>(random()); break;
        case 2: words[what / 4 % 64] = words[what / 4 % 64] + what % 64; break;
        default: words[what / 4 % (size / 4)] = 0x01930194u;
      }
    }
  } while (std::chrono::steady_clock::now() < end);
}

}  // namespace

BULKHEAD_PLUGIN("lane_attacker", "1.0.0") {
  plugin.method("scribble", [](std::uint64_t address, std::uint64_t size, unsigned seed, int ms) {
    scribble(address, size, seed, std::chrono::milliseconds(ms));
    return true;
  });
  // The same on a thread of its own, over each of several memories in turn, while methods run.
  plugin.method("scribble_along",
                [](std::vector<std::pair<std::uint64_t, std::uint64_t>> memories, unsigned seed, int ms) {
                  std::thread([memories = std::move(memories), seed, ms] {
                    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
                    for (unsigned i = 0; std::chrono::steady_clock::now() < end; ++i) {
                      const auto& [address, size] = memories[i % memories.size()];
                      scribble(address, size, seed + i, std::chrono::milliseconds(0));
                    }
                  }).detach();
                });
  plugin.method("flow",
                [](bulkhead::context& cx, bulkhead::reader<bulkhead::bytes> in, bulkhead::writer<bulkhead::bytes> out) {
                  while (auto next = in.next()) {
                    cx.emit("item", next->size());
                    out.send(*next);
                  }
                });
  plugin.method("send_descriptors", [](int socket, int times) {
    send_descriptors(socket, times);
    std::this_thread::sleep_for(std::chrono::minutes(1));
  });
  plugin.method("ways_to_write",
                [](std::uint64_t address, std::uint64_t size) { return ways_to_write(address, size); });
  plugin.method("write", [](std::uint64_t address) { *reinterpret_cast<volatile std::uint8_t*>(address) = 1; });
  plugin.method("echo", [](bulkhead::bytes data) { return data; });
}
