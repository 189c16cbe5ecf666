// See files.hpp.
#include "files.hpp"

#include <bulkhead/ipc/system.hpp>

#include <stdexcept>

#include <fcntl.h>

namespace bulkhead::cli {

std::vector<std::uint8_t> read_file(const std::string& path, std::size_t limit) {
  const bool standard = path == "-";
  const std::string name = standard ? "the standard input" : path;
  unique_fd opened(standard ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!standard && !opened)
    throw std::runtime_error(name + " can't be opened: " + std::generic_category().message(errno));
  const int fd = standard ? 0 : opened.get();
  std::vector<std::uint8_t> bytes;
  constexpr std::size_t chunk = std::size_t{64} << 10;
  for (;;) {
    const std::size_t size = bytes.size();
    bytes.resize(size + chunk);
    const ssize_t n = ::read(fd, bytes.data() + size, chunk);
    if (n < 0 && errno == EINTR) {
      bytes.resize(size);
      continue;
    }
    if (n < 0) throw std::runtime_error(name + " can't be read: " + std::generic_category().message(errno));
    bytes.resize(size + static_cast<std::size_t>(n));
    if (bytes.size() > limit)
      throw std::runtime_error(name + " is too large: at most " + std::to_string(limit >> 20) + " MiB are read");
    if (n == 0) return bytes;
  }
}

void write_file(const std::string& path, std::span<const std::uint8_t> bytes) {
  const bool standard = path == "-";
  const std::string name = standard ? "the standard output" : path;
  unique_fd opened(standard ? -1 : ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666));
  if (!standard && !opened)
    throw std::runtime_error(name + " can't be opened: " + std::generic_category().message(errno));
  const int fd = standard ? 1 : opened.get();
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::runtime_error(name + " can't be written: " + std::generic_category().message(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace bulkhead::cli
