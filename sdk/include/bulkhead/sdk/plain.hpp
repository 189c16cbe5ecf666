// Values of plain types read from MessagePack where they lie, without an object for each. It takes what fits exactly and
// says no to all else, be it unusual or wrong: then the value is unpacked and converted as typed.hpp does, which has the
// words for it. Bytes may come from anyone: nothing is read past the end, and no length is believed before so much is there.
#pragma once

#include <bulkhead/sdk/type_names.hpp>

#include <cstring>
#include <limits>

namespace bulkhead::typed {

// Plain types: bool, numbers, text, bytes, and optionals, lists, tuples and maps of plain types.
template <class T>
struct plain : std::false_type {};  // else also: static bool take(packed&, T&)
template <class T>
inline constexpr bool is_plain = plain<T>::value;

// What is left of packed values. Each function takes one off the front, or says no and leaves them in disorder.
class packed {
 public:
  explicit packed(bytes_view values) : rest_(values) {}
  bool empty() const { return rest_.empty(); }
  std::uint8_t first() const { return rest_.empty() ? 0xc1 : rest_[0]; }  // 0xc1 begins no value

  bool nil() { return first() == 0xc0 && skip(1); }
  bool boolean(bool& out) {
    out = first() == 0xc3;
    return (first() == 0xc2 || out) && skip(1);
  }
  template <class T>
  bool integer(T& out) {
    const std::uint8_t head = first();
    if (head <= 0x7f) return fits(std::uint64_t{head}, out) && skip(1);
    if (head >= 0xe0) return fits(std::int64_t{static_cast<std::int8_t>(head)}, out) && skip(1);
    if (head < 0xcc || head > 0xd3) return false;
    const std::size_t size = std::size_t{1} << (head & 3);
    if (rest_.size() <= size) return false;
    const std::uint64_t raw = big_endian(1, size);
    const unsigned unused = 64 - 8 * static_cast<unsigned>(size);
    const bool fine = head < 0xd0 ? fits(raw, out) : fits(static_cast<std::int64_t>(raw << unused) >> unused, out);
    return fine && skip(1 + size);
  }
  template <class T>
  bool floating(T& out) {
    if (first() == 0xca && rest_.size() > 4) out = static_cast<T>(read_as<float, std::uint32_t>());
    else if (first() == 0xcb && rest_.size() > 8) out = static_cast<T>(read_as<double, std::uint64_t>());
    else return false;
    return skip(first() == 0xca ? 5 : 9);
  }
  bool text(std::string_view& out) {
    const std::uint8_t head = first();
    std::uint64_t size = head & 0x1f;
    if ((head & 0xe0) == 0xa0 ? !skip(1) : !length(0xd9, size)) return false;
    return body(size, [&](bytes_view all) { out = {reinterpret_cast<const char*>(all.data()), all.size()}; });
  }
  bool binary(bytes_view& out) {
    std::uint64_t size = 0;
    return length(0xc4, size) && body(size, [&](bytes_view all) { out = all; });
  }
  // Headers; each element is a byte at least.
  bool array(std::uint64_t& elements) { return counted(0x90, 0xdc, 1, elements); }
  bool map(std::uint64_t& pairs) { return counted(0x80, 0xde, 2, pairs); }

 private:
  bool skip(std::uint64_t bytes) {
    rest_ = rest_.subspan(bytes);
    return true;
  }
  std::uint64_t big_endian(std::size_t at, std::size_t size) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value = value << 8 | rest_[at + i];
    return value;
  }
  template <class Float, class Bits>
  Float read_as() const {
    const Bits bits = static_cast<Bits>(big_endian(1, sizeof(Bits)));
    Float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  template <class T>
  static bool fits(std::uint64_t value, T& out) {
    out = static_cast<T>(value);
    return value <= static_cast<std::uint64_t>(std::numeric_limits<T>::max());
  }
  template <class T>
  static bool fits(std::int64_t value, T& out) {
    if (value >= 0) return fits(static_cast<std::uint64_t>(value), out);
    out = static_cast<T>(value);
    return std::is_signed_v<T> && value >= static_cast<std::int64_t>(std::numeric_limits<T>::min());
  }
  // A length of 1, 2 or 4 bytes after one of three heads in a row.
  bool length(std::uint8_t head, std::uint64_t& out) {
    if (first() < head || first() > head + 2) return false;
    const std::size_t size = std::size_t{1} << (first() - head);
    if (rest_.size() <= size) return false;
    out = big_endian(1, size);
    return skip(1 + size);
  }
  bool counted(std::uint8_t small, std::uint8_t large, std::uint64_t least, std::uint64_t& out) {
    const std::uint8_t head = first();
    out = head & 0x0f;
    if ((head & 0xf0) == small) {
      skip(1);
    } else {
      if (head != large && head != large + 1) return false;
      const std::size_t size = head == large ? 2 : 4;
      if (rest_.size() <= size) return false;
      out = big_endian(1, size);
      skip(1 + size);
    }
    return out * least <= rest_.size();
  }
  template <class Take>
  bool body(std::uint64_t size, Take&& take) {
    if (size > rest_.size()) return false;
    take(rest_.first(size));
    return skip(size);
  }

  bytes_view rest_;
};

template <>
struct plain<bool> : std::true_type {
  static bool take(packed& from, bool& out) { return from.boolean(out); }
};
template <class T>
requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) struct plain<T> : std::true_type {
  static bool take(packed& from, T& out) { return from.integer(out); }
};
template <class T>
requires std::is_floating_point_v<T>
struct plain<T> : std::true_type {
  static bool take(packed& from, T& out) { return from.floating(out); }
};
template <>
struct plain<std::string_view> : std::true_type {
  static bool take(packed& from, std::string_view& out) { return from.text(out); }
};
template <>
struct plain<std::string> : std::true_type {
  static bool take(packed& from, std::string& out) {
    std::string_view text;
    if (!from.text(text)) return false;
    out = text;
    return true;
  }
};
template <>
struct plain<bytes_view> : std::true_type {
  static bool take(packed& from, bytes_view& out) { return from.binary(out); }
};
template <class T>
struct plain<std::optional<T>> : std::bool_constant<is_plain<T>> {
  static bool take(packed& from, std::optional<T>& out) { return from.nil() || plain<T>::take(from, out.emplace()); }
};
template <class T, class A>
struct plain<std::vector<T, A>> : std::bool_constant<byte_like<T> || is_plain<T>> {
  static bool take(packed& from, std::vector<T, A>& out) {
    if constexpr (byte_like<T>) {
      bytes_view all;
      if (!from.binary(all)) return false;
      assign_bytes(out, all);
    } else {
      std::uint64_t count = 0;
      if (!from.array(count)) return false;
      out.reserve(count);
      for (; count > 0; --count) {
        T each{};
        if (!plain<T>::take(from, each)) return false;
        out.push_back(std::move(each));
      }
    }
    return true;
  }
};
// Each as long as its type says.
template <class T>
bool take_tuple(packed& from, T& out) {
  std::uint64_t count = 0;
  if (!from.array(count) || count != std::tuple_size_v<T>) return false;
  return std::apply([&]<class... E>(E&... each) { return (plain<E>::take(from, each) && ...); }, out);
}
template <class... T>
struct plain<std::tuple<T...>> : std::bool_constant<(is_plain<T> && ...)> {
  static bool take(packed& from, std::tuple<T...>& out) { return take_tuple(from, out); }
};
template <class A, class B>
struct plain<std::pair<A, B>> : std::bool_constant<is_plain<A> && is_plain<B>> {
  static bool take(packed& from, std::pair<A, B>& out) { return take_tuple(from, out); }
};
template <class T, std::size_t N>
struct plain<std::array<T, N>> : std::bool_constant<!byte_like<T> && is_plain<T>> {
  static bool take(packed& from, std::array<T, N>& out) { return take_tuple(from, out); }
};
template <class M>
bool take_map(packed& from, M& out) {
  std::uint64_t count = 0;
  if (!from.map(count)) return false;
  for (; count > 0; --count) {
    typename M::key_type key{};
    typename M::mapped_type value{};
    if (!plain<typename M::key_type>::take(from, key) || !plain<typename M::mapped_type>::take(from, value))
      return false;
    out.insert_or_assign(std::move(key), std::move(value));
  }
  return true;
}
template <class K, class V, class... R>
struct plain<std::map<K, V, R...>> : std::bool_constant<is_plain<K> && is_plain<V>> {
  static bool take(packed& from, std::map<K, V, R...>& out) { return take_map(from, out); }
};
template <class K, class V, class... R>
struct plain<std::unordered_map<K, V, R...>> : std::bool_constant<is_plain<K> && is_plain<V>> {
  static bool take(packed& from, std::unordered_map<K, V, R...>& out) { return take_map(from, out); }
};

// One value that is all of `value`. False: it does not fit; `out` is in disorder then.
template <class T>
bool take_all(bytes_view value, T& out) {
  packed from(value);
  return plain<T>::take(from, out) && from.empty();
}

}  // namespace bulkhead::typed
