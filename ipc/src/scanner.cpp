// See scanner.hpp. The format is the MessagePack specification's (github.com/msgpack/msgpack, spec.md).
#include <bulkhead/ipc/scanner.hpp>

#include <algorithm>
#include <limits>

namespace bulkhead::ipc {

scanner::scanner(const limits& limits) : frame_limit_(limits.frame), depth_limit_(std::min(limits.depth, max_depth)) {}

void scanner::reset() {
  depth_ = header_have_ = header_need_ = handles_ = 0;
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
    const std::uint8_t byte = bytes[used++];
    ++size_;
    header_[header_have_++] = byte;
    if (header_have_ == 1) {
      result = header(byte);
    } else if (header_have_ == header_need_) {
      const std::uint8_t type = header_[0];
      const unsigned length = header_need_ - 1;
      header_have_ = 0;
      if (type == 0xdc || type == 0xdd) {
        result = container(big_endian(length));
      } else if (type == 0xde || type == 0xdf) {
        result = container(2 * big_endian(length));
      } else if (type >= 0xd4 && type <= 0xd8) {  // fixext: type byte, then 1, 2, 4, 8 or 16 bytes
        if (header_[1] == 1) ++handles_;
        result = payload_ahead(std::uint64_t{1} << (type - 0xd4));
      } else if (type >= 0xc7 && type <= 0xc9) {  // ext: length, then the type byte
        if (header_[length] == 1) ++handles_;
        result = payload_ahead(big_endian(length - 1));
      } else {  // str and bin with a length
        result = payload_ahead(big_endian(length));
      }
    }
  }
  return result;
}

scanner::status scanner::header(std::uint8_t first) {
  auto more = [&](unsigned bytes) {
    header_need_ = 1 + bytes;
    return status::need_more;
  };
  if (first >= 0xc4 && first <= 0xc6) return more(1u << (first - 0xc4));        // bin 8, 16, 32
  if (first >= 0xc7 && first <= 0xc9) return more((1u << (first - 0xc7)) + 1);  // ext 8, 16, 32
  if (first >= 0xd4 && first <= 0xd8) return more(1);                           // fixext
  if (first >= 0xd9 && first <= 0xdb) return more(1u << (first - 0xd9));        // str 8, 16, 32
  if (first == 0xdc || first == 0xde) return more(2);                           // array, map 16
  if (first == 0xdd || first == 0xdf) return more(4);                           // array, map 32
  header_have_ = 0;
  if (first == 0xc1) return refuse("a byte (0xc1) that MessagePack never uses");
  if (first <= 0x7f || first >= 0xe0) return value_done();            // small integers
  if (first <= 0x8f) return container(2 * std::uint64_t{first & 0x0fu});  // small map
  if (first <= 0x9f) return container(first & 0x0fu);                 // small array
  if (first <= 0xbf) return payload_ahead(first & 0x1fu);             // small string
  if (first == 0xca) return payload_ahead(4);                         // float
  if (first == 0xcb) return payload_ahead(8);
  if (first >= 0xcc && first <= 0xcf) return payload_ahead(1u << (first - 0xcc));  // unsigned
  if (first >= 0xd0 && first <= 0xd3) return payload_ahead(1u << (first - 0xd0));  // signed
  return value_done();                                                             // nil, false, true
}

scanner::status scanner::payload_ahead(std::uint64_t bytes) {
  if (size_ + bytes + (promised_ ? promised_ - 1 : 0) > frame_limit_) return refuse("a message larger than the frame limit");
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

std::uint64_t scanner::big_endian(unsigned bytes) const {
  std::uint64_t value = 0;
  for (unsigned i = 1; i <= bytes; ++i) value = value << 8 | header_[i];
  return value;
}

std::size_t value_size(std::span<const std::uint8_t> bytes) {
  limits unlimited;
  unlimited.frame = std::numeric_limits<std::uint32_t>::max();
  scanner scan(unlimited);
  std::size_t used = 0;
  return scan.feed(bytes, used) == scanner::status::complete ? used : 0;
}

}  // namespace bulkhead::ipc
