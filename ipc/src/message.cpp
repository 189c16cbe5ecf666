// See message.hpp. Envelopes are read by hand from views; only what a caller asks for is ever unpacked into objects.
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/scanner.hpp>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace bulkhead::ipc {
namespace {

constexpr std::size_t id_offset = 3;  // array header, type, uint32 marker, then the id

void put_big_endian(std::uint8_t* at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
}

std::optional<byte_span> take_value(byte_span& rest) {
  const std::size_t size = value_size(rest);
  if (size == 0) return std::nullopt;
  const byte_span value = rest.first(size);
  rest = rest.subspan(size);
  return value;
}

std::optional<std::string_view> take_string(byte_span& rest) {
  const auto value = take_value(rest);
  if (!value) return std::nullopt;
  const std::uint8_t first = (*value)[0];
  const std::size_t header = first >= 0xa0 && first <= 0xbf   ? 1
                             : first >= 0xd9 && first <= 0xdb ? 1 + (std::size_t{1} << (first - 0xd9))
                                                              : 0;
  if (header == 0) return std::nullopt;
  return std::string_view(reinterpret_cast<const char*>(value->data()) + header, value->size() - header);
}

// How many elements an array or a map says it has: `fixed` with up to 15, or `marker` and 2 bytes, or the next one and 4.
std::optional<std::uint32_t> take_count(byte_span& rest, std::uint8_t fixed, std::uint8_t marker) {
  if (rest.empty()) return std::nullopt;
  const std::size_t length = rest[0] == marker ? 2 : rest[0] == marker + 1 ? 4 : 0;
  if ((length == 0 && (rest[0] & 0xf0u) != fixed) || rest.size() < 1 + length) return std::nullopt;
  std::uint32_t count = length == 0 ? rest[0] & 0x0fu : 0;
  for (std::size_t i = 1; i <= length; ++i) count = count << 8 | rest[i];
  rest = rest.subspan(1 + length);
  return count;
}

bool is_array(byte_span value) { return take_count(value, 0x90, 0xdc).has_value(); }

constexpr std::uint32_t most_error_fields = 16;                    // that are looked at
constexpr std::size_t most_spare_bytes = std::size_t{16} << 10;    // of one
constexpr std::size_t most_spare_in_all = std::size_t{128} << 10;  // of a thread
thread_local bool spares_gone = false;  // the thread ends: other things of its own may still give some back
thread_local struct spare_bytes {
  std::array<std::vector<std::uint8_t>, 64> kept;
  std::size_t count = 0, bytes = 0;
  ~spare_bytes() {
    count = 0;
    spares_gone = true;
  }
} spares;

}  // namespace

std::optional<std::uint32_t> take_unsigned(byte_span& rest) {
  if (rest.empty()) return std::nullopt;
  const std::uint8_t first = rest[0];
  if (first <= 0x7f) {
    rest = rest.subspan(1);
    return first;
  }
  if (first < 0xcc || first > 0xce) return std::nullopt;
  const std::size_t length = std::size_t{1} << (first - 0xcc);
  if (rest.size() < 1 + length) return std::nullopt;
  std::uint32_t value = 0;
  for (std::size_t i = 1; i <= length; ++i) value = value << 8 | rest[i];
  rest = rest.subspan(1 + length);
  return value;
}

std::optional<std::uint32_t> take_array(byte_span& rest) { return take_count(rest, 0x90, 0xdc); }

std::vector<std::uint8_t> take_spare_bytes() noexcept {
  if (spares.count == 0) return {};
  spares.bytes -= spares.kept[--spares.count].capacity();
  return std::move(spares.kept[spares.count]);
}

void keep_spare_bytes(std::vector<std::uint8_t>&& used) noexcept {
  if (used.capacity() > most_spare_bytes || spares.count == spares.kept.size() || spares_gone) return;
  if (spares.bytes + used.capacity() > most_spare_in_all) return;
  spares.bytes += used.capacity();
  used.clear();
  spares.kept[spares.count++] = std::move(used);
}

buffer begin_request(std::string_view method) {
  static constexpr std::uint8_t start[] = {0x94, 0x00, 0xce, 0, 0, 0, 0};
  buffer out;
  out.append(start);
  packer(out).pack(method);
  return out;
}

void set_request_id(std::span<std::uint8_t> frame, std::uint32_t id) { put_big_endian(frame.data() + id_offset, id); }

buffer begin_notification(std::string_view method) {
  buffer out;
  packer(out).pack_array(3).pack(2).pack(method);
  return out;
}

buffer make_response(std::uint32_t id, byte_span result) {
  buffer out;
  packer(out).pack_array(4).pack(1).pack(id).pack_nil();
  out.append(result);
  return out;
}

buffer make_error_response(std::uint32_t id, const call_failure& failure) {
  buffer out;
  packer pack(out);
  pack.pack_array(4).pack(1).pack(id).pack_map(failure.data.empty() ? 2 : 3);
  pack.pack("code").pack(to_string(failure.code)).pack("message").pack(failure.message);
  if (!failure.data.empty()) {
    pack.pack("data");
    out.append(failure.data);
  }
  pack.pack_nil();
  return out;
}

std::optional<message> parse_message(byte_span frame) {
  if (frame.size() < 4) return std::nullopt;
  const std::size_t elements = frame[0] & 0x0fu;
  if ((frame[0] & 0xf0) != 0x90 || (elements != 3 && elements != 4)) return std::nullopt;
  byte_span rest = frame.subspan(1);
  const auto kind = take_unsigned(rest);
  if (!kind || *kind > 2 || (*kind == 2) != (elements == 3)) return std::nullopt;
  message parsed;
  parsed.kind = static_cast<message_kind>(*kind);
  if (parsed.kind != message_kind::notification) {
    const auto id = take_unsigned(rest);
    if (!id) return std::nullopt;
    parsed.id = *id;
  }
  if (parsed.kind == message_kind::response) {
    const auto error = take_value(rest);
    if (!error) return std::nullopt;
    parsed.error = *error;
    parsed.result = rest;
  } else {
    const auto method = take_string(rest);
    if (!method || !is_array(rest)) return std::nullopt;
    parsed.method = *method;
    parsed.params = rest;
  }
  if (rest.empty()) return std::nullopt;
  return parsed;  // what is left is the last element: the frame is one value
}

msgpack::object_handle unpack(byte_span bytes) {
  // Each node is at least a byte of input, so bytes.size() bounds every count; depth was checked by the scanner.
  const std::size_t most = bytes.size();
  std::size_t offset = 0;
  bool referenced = false;
  return msgpack::unpack(
      reinterpret_cast<const char*>(bytes.data()), bytes.size(), offset, referenced,
      [](msgpack::type::object_type, std::size_t, void*) { return true; }, nullptr,
      msgpack::unpack_limit(most, most, most, most, most, scanner::max_depth + 1));
}

msgpack::object_handle unpack(byte_span bytes, std::size_t most) {
  struct counter : msgpack::null_visitor {
    std::size_t left;
    explicit counter(std::size_t most_elements) : left(most_elements) {}
    bool take(std::size_t elements) {
      if (elements > left) return false;
      left -= elements;
      return true;
    }
    bool start_array(std::uint32_t elements) { return take(elements); }
    bool start_map(std::uint32_t pairs) { return take(2 * std::size_t{pairs}); }
  } counting(most);
  if (bytes.size() > most && !msgpack::parse(reinterpret_cast<const char*>(bytes.data()), bytes.size(), counting))
    throw std::length_error("more than " + std::to_string(most) + " elements");
  return unpack(bytes);
}

// Read where it lies: as objects, 16 MiB of nils would take 400.
call_failure parse_failure(byte_span error) {
  call_failure failure;
  byte_span whole = error;
  if (const auto text = take_string(whole)) failure.message = sanitised(*text);
  const std::uint32_t fields = take_count(error, 0x80, 0xde).value_or(0);
  for (std::uint32_t left = std::min(fields, most_error_fields); left > 0; --left) {
    const auto name = take_string(error);
    const auto value = take_value(error);
    if (!value) break;
    byte_span rest = *value;
    if (name == "data") failure.data.assign(value->begin(), value->end());
    const auto text = take_string(rest);
    if (text && name == "message") failure.message = sanitised(*text);
    if (text && name == "code") failure.code = outcome_from_string(*text).value_or(outcome::plugin_error);
  }
  if (failure.message.empty()) failure.message = "an error without a text";
  if (failure.code == outcome::ok) failure.code = outcome::plugin_error;
  return failure;
}

std::string sanitised(std::string_view text, std::size_t limit) {
  constexpr std::string_view dots = "...";
  std::string out;
  std::size_t cut = 0;  // where the text ends if not all of it fits: with room for the dots
  auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  auto follows = [&](std::size_t at, unsigned count) {
    for (unsigned i = 1; i <= count; ++i)
      if (at + i >= text.size() || (byte(at + i) & 0xc0) != 0x80) return false;
    return true;
  };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char c = byte(i);
    const unsigned more = c >= 0xc2 && c <= 0xdf ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
    // Surrogates, overlong forms and values past U+10FFFF are no UTF-8; nor are C1 controls (U+0080..U+009F) welcome.
    const unsigned char next = i + 1 < text.size() ? byte(i + 1) : 0;
    const bool bad_second = (c == 0xe0 && next < 0xa0) || (c == 0xed && next > 0x9f) || (c == 0xf0 && next < 0x90) ||
                            (c == 0xf4 && next > 0x8f) || (c == 0xc2 && next < 0xa0);
    if (out.size() + dots.size() <= limit) cut = out.size();
    if (more && follows(i, more) && !bad_second) {
      out.append(text.substr(i, more + 1));
      i += more + 1;
    } else {
      if (c == '\t' || c == '\n' || (c >= 0x20 && c < 0x7f)) {
        out.push_back(static_cast<char>(c));
      } else {
        constexpr char hex[] = "0123456789abcdef";
        out.append({'\\', 'x', hex[c >> 4], hex[c & 15]});
      }
      ++i;
    }
    if (out.size() > limit) return out.replace(cut, std::string::npos, dots);
  }
  return out;
}

}  // namespace bulkhead::ipc
