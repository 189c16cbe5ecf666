// What a plugin can do to the channel behind the worker's back: its descriptor is in the same process.
#include "kinds.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace chaos {
namespace {

int find_channel() {
  for (int fd = 3; fd < 1024; ++fd) {
    struct stat file {};
    int type = 0;
    socklen_t size = sizeof type;
    if (::fstat(fd, &file) == 0 && S_ISSOCK(file.st_mode) && ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
        type == SOCK_STREAM)
      return fd;
  }
  return -1;
}

void write_all(int fd, const std::vector<std::uint8_t>& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return;
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace

void close_channel() {
  ::close(find_channel());
  sleep_forever();
}

void close_all_fds() {
  ::syscall(SYS_close_range, 0u, ~0u, 0u);
  sleep_forever();
}

void garbage_on_channel() {
  std::minstd_rand random(2024);  // the same in each run
  std::vector<std::uint8_t> bytes(4096);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 8);
  write_all(find_channel(), bytes);
  sleep_forever();
}

void forged_response() {
  // [1, 0x7fffffff, nil, "forged"]
  write_all(find_channel(), {0x94, 0x01, 0xce, 0x7f, 0xff, 0xff, 0xff, 0xc0, 0xa6, 'f', 'o', 'r', 'g', 'e', 'd'});
  sleep_forever();
}

}  // namespace chaos
