// See scanner.hpp. The format is the MessagePack specification's (github.com/msgpack/msgpack, spec.md).
#include <bulkhead/ipc/scanner.hpp>

#include <algorithm>
#include <limits>

namespace bulkhead::ipc {
namespace {

// How long the header of a value is, by its first byte: that byte, then a length or a type or both.
constexpr auto header_sizes = [] {
  std::array<std::uint8_t, 256> sizes{};
  sizes.fill(1);
  sizes[0xc4] = sizes[0xd9] = 2;  // bin 8, str 8
  sizes[0xc5] = sizes[0xda] = 3;
  sizes[0xc6] = sizes[0xdb] = 5;
  sizes[0xc7] = 3, sizes[0xc8] = 4, sizes[0xc9] = 6;  // ext
  for (std::size_t fixext = 0xd4; fixext <= 0xd8; ++fixext) sizes[fixext] = 2;
  sizes[0xdc] = sizes[0xde] = 3;  // array 16, map 16
  sizes[0xdd] = sizes[0xdf] = 5;
  return sizes;
}();

std::uint64_t big_endian(const std::uint8_t* at, unsigned bytes) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value = value << 8 | at[i];
  return value;
}

}  // namespace

scanner::scanner(const limits& limits) : frame_limit_(limits.frame), depth_limit_(std::min(limits.depth, max_depth)) {}

void scanner::reset() {
  depth_ = header_have_ = handles_ = blobs_ = 0;
  promised_ = skip_ = 0;
  size_ = 0;
}

scanner::status scanner::refuse(const char* why) {
  violation_ = why;
  return status::violation;
}

scanner::status scanner::feed(std::span<const std::uint8_t> bytes, std::size_t& used) {
  used = 0;
  status result = status::need_more;
  while (used < bytes.size() && result == status::need_more) {
    if (skip_ > 0) {
      const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, bytes.size() - used));
      used += take;
      size_ += take;
      skip_ -= take;
      if (skip_ == 0) result = value_done();
      continue;
    }
    const std::uint8_t* at = bytes.data() + used;
    const std::size_t need = header_sizes[header_have_ > 0 ? header_[0] : *at];
    if (header_have_ == 0 && bytes.size() - used >= need) {
      used += need;
      size_ += need;
      result = header(at);
    } else {  // in pieces
      header_[header_have_++] = *at;
      ++used;
      ++size_;
      if (header_have_ < need) continue;
      header_have_ = 0;
      result = header(header_.data());
    }
  }
  return result;
}

scanner::status scanner::header(const std::uint8_t* at) {
  const std::uint8_t first = at[0];
  if (first <= 0x7f || first >= 0xe0) return value_done();                // small integers
  if (first <= 0x8f) return container(2 * std::uint64_t{first & 0x0fu});  // small map
  if (first <= 0x9f) return container(first & 0x0fu);                     // small array
  if (first <= 0xbf) return payload_ahead(first & 0x1fu);                 // small string
  const std::uint64_t length = big_endian(at + 1, header_sizes[first] - 1u);
  switch (first) {
    case 0xc1: return refuse("a byte (0xc1) that MessagePack never uses");
    case 0xc4:
    case 0xc5:
    case 0xc6:  // bin 8, 16, 32
    case 0xd9:
    case 0xda:
    case 0xdb: return payload_ahead(length);  // str
    case 0xdc:
    case 0xdd: return container(length);  // array 16, 32
    case 0xde:
    case 0xdf: return container(2 * length);  // map
    case 0xca: return payload_ahead(4);       // float
    case 0xcb: return payload_ahead(8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf: return payload_ahead(1u << (first - 0xcc));  // unsigned
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: return payload_ahead(1u << (first - 0xd0));  // signed
    case 0xc7:
    case 0xc8:
    case 0xc9:  // ext: a length, then the type
      if ((length & 0xff) == 1) ++handles_;
      if ((length & 0xff) == 2) ++blobs_;
      return payload_ahead(length >> 8);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:  // fixext: the type
      if (length == 1) ++handles_;
      return payload_ahead(std::uint64_t{1} << (first - 0xd4));
    default: return value_done();  // nil, false, true
  }
}

scanner::status scanner::payload_ahead(std::uint64_t bytes) {
  if (size_ + bytes + (promised_ ? promised_ - 1 : 0) > frame_limit_)
    return refuse("a message larger than the frame limit");
  if (bytes == 0) return value_done();
  skip_ = bytes;
  return status::need_more;
}

scanner::status scanner::container(std::uint64_t elements) {
  if (elements == 0) return value_done();
  if (depth_ == depth_limit_) return refuse("a message nested deeper than the depth limit");
  if (size_ + elements + (promised_ ? promised_ - 1 : 0) > frame_limit_)
    return refuse("a message that promises more elements than the frame limit has bytes");
  owed_[depth_++] = elements;
  promised_ += elements;
  return status::need_more;
}

// One value is complete, and with it each container whose last element it was.
scanner::status scanner::value_done() {
  if (size_ > frame_limit_) return refuse("a message larger than the frame limit");
  while (depth_ > 0) {
    --promised_;
    if (--owed_[depth_ - 1] > 0) return status::need_more;
    --depth_;
  }
  return status::complete;
}

std::size_t value_size(std::span<const std::uint8_t> bytes) {
  if (!bytes.empty() && (bytes[0] <= 0x7f || bytes[0] >= 0xe0 || bytes[0] == 0xc0)) return 1;  // the most frequent
  limits unlimited;
  unlimited.frame = std::numeric_limits<std::uint32_t>::max();
  scanner scan(unlimited);
  std::size_t used = 0;
  return scan.feed(bytes, used) == scanner::status::complete ? used : 0;
}

}  // namespace bulkhead::ipc
