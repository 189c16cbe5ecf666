// See lane.hpp. Cursors count bytes and wrap around at 2^32; offsets are their low bits.
#include <bulkhead/ipc/lane.hpp>

#include <bit>
#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace bulkhead::ipc {
namespace {

constexpr int all_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

// What mapped_region asks of a thing that can be mapped.
struct mappable {
  int fd;
  boost::interprocess::mapping_handle_t get_mapping_handle() const { return {fd, false}; }
};

std::size_t size_of(int fd) {
  struct stat file {};
  checked(::fstat(fd, &file), "fstat of a lane");
  return static_cast<std::size_t>(file.st_size);
}

}  // namespace

unique_fd lane_memory::make(std::size_t ring) {
  if (!std::has_single_bit(ring) || ring < least_ring || ring > most_ring)
    throw std::invalid_argument("lane_options::ring must be a power of two from 4096 to 16777216, not " +
                                std::to_string(ring));
  unique_fd fd(checked(::memfd_create("bulkhead-lane", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  const auto size = static_cast<off_t>(control_size + ring);
  checked(::ftruncate(fd.get(), size), "ftruncate");
  // All of it now: a page that can't be had later would end the process that touches it.
  checked(::fallocate(fd.get(), 0, 0, size), "fallocate of a lane");
  checked(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), "fcntl(F_ADD_SEALS)");
  return fd;
}

void lane_memory::seal(int fd) {
  checked(::fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), "fcntl(F_ADD_SEALS)");
}

bool lane_memory::sealed(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & all_seals) == all_seals;
}

lane_memory::lane_memory(int fd, bool writable)
    : region_(mappable{fd}, writable ? boost::interprocess::read_write : boost::interprocess::read_only, 0, size_of(fd),
              nullptr, MAP_SHARED | MAP_POPULATE) {
  // A child of the plugin's has no business here.
  ::madvise(region_.get_address(), region_.get_size(), MADV_DONTFORK);
  ::madvise(region_.get_address(), region_.get_size(), MADV_DONTDUMP);
}

bool lane_writer::room(std::uint32_t& bytes, std::uint32_t enough) {
  bytes = size_ - (tail_ - head_);
  if (bytes >= enough) return true;
  const std::uint32_t head = theirs_.head.load(std::memory_order_acquire);
  if (head - head_ > tail_ - head_) return false;  // back, or past what was written
  head_ = head;
  bytes = size_ - (tail_ - head_);
  return true;
}

void lane_writer::put(byte_span bytes) {
  const std::uint32_t at = tail_ & (size_ - 1);
  const std::size_t first = std::min<std::size_t>(bytes.size(), size_ - at);
  if (first > 0) std::memcpy(ring_ + at, bytes.data(), first);
  if (first < bytes.size()) std::memcpy(ring_, bytes.data() + first, bytes.size() - first);
  tail_ += static_cast<std::uint32_t>(bytes.size());
}

bool lane_reader::available(std::uint32_t& bytes) {
  const std::uint32_t tail = theirs_.tail.load(std::memory_order_acquire);
  bytes = tail - head_;
  if (bytes > size_ || bytes < tail_ - head_) return false;  // more than fits, or back
  tail_ = tail;
  return true;
}

void lane_reader::take(std::span<std::uint8_t> into) {
  const std::uint32_t at = head_ & (size_ - 1);
  const std::size_t first = std::min<std::size_t>(into.size(), size_ - at);
  if (first > 0) std::memcpy(into.data(), ring_ + at, first);
  if (first < into.size()) std::memcpy(into.data() + first, ring_, into.size() - first);
  head_ += static_cast<std::uint32_t>(into.size());
  control_.head.store(head_, std::memory_order_release);
}

}  // namespace bulkhead::ipc
