// See blob.hpp.
#include <bulkhead/ipc/blob.hpp>

#include <algorithm>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace bulkhead::ipc {
namespace {

void put(std::uint8_t* at, std::uint64_t value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; ++i) at[i] = static_cast<std::uint8_t>(value >> (8 * (bytes - 1 - i)));
}

std::uint64_t get(const std::uint8_t* at, unsigned bytes) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value = value << 8 | at[i];
  return value;
}

}  // namespace

// --- references -----------------------------------------------------------------------------------------------------

std::array<std::uint8_t, blob_reference::packed_size> blob_reference::pack() const {
  std::array<std::uint8_t, packed_size> out{};
  out[0] = text;
  put(out.data() + 1, arena, 4);
  put(out.data() + 5, offset, 8);
  put(out.data() + 13, length, 8);
  return out;
}

std::optional<blob_reference> blob_reference::read(byte_span payload) {
  if (payload.size() != packed_size || payload[0] > 1) return std::nullopt;
  return blob_reference{payload[0] == 1, static_cast<std::uint32_t>(get(payload.data() + 1, 4)),
                        get(payload.data() + 5, 8), get(payload.data() + 13, 8)};
}

void append_reference(buffer& to, const blob_reference& reference) {
  const auto payload = reference.pack();
  packer(to)
      .pack_ext(payload.size(), ext_blob)
      .pack_ext_body(reinterpret_cast<const char*>(payload.data()), payload.size());
}

std::optional<packed_bytes> next_bytes(byte_span& rest) {
  while (!rest.empty()) {
    const std::uint8_t first = rest[0];
    std::size_t header = 1, size = 0;
    packed_bytes found;
    bool any = true;
    const auto length = [&](unsigned bytes) {
      header += bytes;
      if (rest.size() >= header) size = static_cast<std::size_t>(get(rest.data() + 1, bytes));
    };
    if (first >= 0xa0 && first <= 0xbf) {
      found.kind = packed_bytes::kind::text;
      size = first & 0x1fu;
    } else if (first >= 0xd9 && first <= 0xdb) {
      found.kind = packed_bytes::kind::text;
      length(1u << (first - 0xd9));
    } else if (first >= 0xc4 && first <= 0xc6) {
      length(1u << (first - 0xc4));
    } else if (first >= 0xc7 && first <= 0xc9) {
      found.kind = packed_bytes::kind::ext;
      length(1u << (first - 0xc7));
      ++header;
    } else if (first >= 0xd4 && first <= 0xd8) {
      found.kind = packed_bytes::kind::ext;
      size = std::size_t{1} << (first - 0xd4);
      ++header;
    } else {  // all else is skipped; what containers hold follows their header
      any = false;
      if (first == 0xca) size = 4;
      else if (first == 0xcb) size = 8;
      else if (first >= 0xcc && first <= 0xcf) size = std::size_t{1} << (first - 0xcc);
      else if (first >= 0xd0 && first <= 0xd3) size = std::size_t{1} << (first - 0xd0);
      else if (first == 0xdc || first == 0xde) size = 2;
      else if (first == 0xdd || first == 0xdf) size = 4;
    }
    if (rest.size() < header || rest.size() - header < size) {
      rest = {};
      return std::nullopt;
    }
    found.whole = rest.first(header + size);
    found.contents = found.whole.subspan(header);
    if (found.kind == packed_bytes::kind::ext) found.type = static_cast<std::int8_t>(rest[header - 1]);
    rest = rest.subspan(header + size);
    if (any) return found;
  }
  return std::nullopt;
}

std::optional<blob_reference> reference_in(const packed_bytes& found) {
  if (found.kind != packed_bytes::kind::ext || found.type != ext_blob) return std::nullopt;
  return blob_reference::read(found.contents);
}

std::vector<std::uint8_t> without_references(
    byte_span value, const std::function<std::optional<byte_span>(const blob_reference&)>& bytes_of) {
  buffer out;
  const std::uint8_t* copied = value.data();
  const auto copy_to = [&](const std::uint8_t* end) { out.append({copied, end}); };
  byte_span rest = value;
  while (const auto found = next_bytes(rest)) {
    const auto reference = reference_in(*found);
    const auto bytes = reference ? bytes_of(*reference) : std::nullopt;
    if (!bytes) continue;
    copy_to(found->whole.data());
    copied = found->whole.data() + found->whole.size();
    packer pack(out);
    const auto size = static_cast<std::uint32_t>(bytes->size());
    reference->text ? pack.pack_str(size) : pack.pack_bin(size);
    out.append(*bytes);
  }
  copy_to(value.data() + value.size());
  return out.take();
}

// --- memory ---------------------------------------------------------------------------------------------------------

shared_memory& shared_memory::operator=(shared_memory&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

shared_memory::~shared_memory() {
  if (data_) ::munmap(data_, size_);
}

void shared_memory::map_here(int fd, std::size_t size, bool writable) {
  void* const at = ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) throw_errno("mmap of " + std::to_string(size) + " bytes of shared memory");
  data_ = static_cast<std::uint8_t*>(at);
  size_ = size;
}

shared_memory shared_memory::make(const char* name, std::size_t size, bool writable) {
  shared_memory made;
  made.fd_.reset(checked(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  checked(::ftruncate(made.fd(), static_cast<off_t>(size)), "ftruncate of shared memory");
  checked(::fcntl(made.fd(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), "fcntl(F_ADD_SEALS)");
  made.map_here(made.fd(), size, writable);
  return made;
}

shared_memory shared_memory::map(int fd, std::size_t size, bool writable) {
  shared_memory made;
  made.map_here(fd, size, writable);
  return made;
}

void shared_memory::seal() {
  checked(::fcntl(fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), "fcntl(F_ADD_SEALS)");
}

void shared_memory::freeze() {
  ::munmap(std::exchange(data_, nullptr), size_);
  seal();
  map_here(fd(), size_, false);
}

bool shared_memory::fill() noexcept {
#ifdef MADV_POPULATE_WRITE
  if (::madvise(data_, size_, MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;  // a kernel before 5.14 does not know it
#endif
  for (std::size_t at = 0; at < size_; at += range_allocator::unit) data_[at] = 0;
  return true;
}

bool shared_memory::filled() const noexcept { return ::lseek(fd(), 0, SEEK_HOLE) == static_cast<off_t>(size_); }

// --- ranges ---------------------------------------------------------------------------------------------------------

std::optional<std::size_t> range_allocator::take(std::size_t size) {
  const std::size_t wanted = std::max<std::size_t>(1, (size + unit - 1) / unit) * unit;
  for (auto each = free_.begin(); each != free_.end(); ++each) {
    const auto [offset, there] = *each;
    if (there < wanted) continue;
    taken_.emplace(offset, wanted);  // first: all that takes memory
    auto rest = free_.extract(each);
    if (there == wanted) return offset;
    rest.key() = offset + wanted;
    rest.mapped() = there - wanted;
    free_.insert(std::move(rest));
    return offset;
  }
  return std::nullopt;
}

bool range_allocator::give(std::size_t offset) noexcept {
  auto given = taken_.extract(offset);
  if (!given) return false;
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && offset + given.mapped() == next->first) {
    given.mapped() += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin())
    if (const auto before = std::prev(next); before->first + before->second == offset) {
      before->second += given.mapped();
      return true;
    }
  free_.insert(std::move(given));
  return true;
}

}  // namespace bulkhead::ipc
