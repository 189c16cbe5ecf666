// Names of C++ types as signatures show them (the grammar is in bulkhead/plugin.h), and of the kinds of values that
// arrive, in the same words.
#pragma once

#include <msgpack.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sys/mman.h>

namespace bulkhead {

// Bytes: packed as MessagePack bin.
using bytes = std::vector<std::uint8_t>;
// Bytes that stay where they are: as a parameter, a view into the call's arguments, valid until the call returns.
using bytes_view = std::span<const std::uint8_t>;

// Thrown when an argument or a result does not have the type asked for. The text names it.
class type_mismatch : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

namespace typed {

// Copies bytes into memory of the vector's own. A lot of them goes into huge pages, where the kernel has some to give: to
// touch 64 MiB for the first time takes ten times as long in small ones as to copy them (docs/performance.md).
template <class T, class A>
void assign_bytes(std::vector<T, A>& to, bytes_view from) {
  constexpr std::size_t a_lot = std::size_t{4} << 20, page = 4096;
  if (from.size() >= a_lot && to.capacity() < from.size()) {
    std::vector<T, A>(to.get_allocator()).swap(to);
    to.reserve(from.size());
    const auto begin = (reinterpret_cast<std::uintptr_t>(to.data()) + page - 1) / page * page;
    ::madvise(reinterpret_cast<void*>(begin), from.size() / page * page - page, MADV_HUGEPAGE);  // or it stays as it is
  }
  const T* const first = reinterpret_cast<const T*>(from.data());
  to.assign(first, first + from.size());
}

template <class T, class = void>
struct type_name {  // a type of the author's own, packed with MSGPACK_DEFINE_MAP or an adaptor
  static std::string get() { return "any"; }
};
template <class T>
std::string name_of() {
  return type_name<std::remove_cvref_t<T>>::get();
}
template <>
struct type_name<void> {
  static std::string get() { return "nil"; }
};
template <>
struct type_name<bool> {
  static std::string get() { return "bool"; }
};
template <class T>
struct type_name<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  static std::string get() { return "int"; }
};
template <class T>
struct type_name<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static std::string get() { return "float"; }
};
template <class T>
struct type_name<T, std::enable_if_t<std::is_convertible_v<T, std::string_view>>> {
  static std::string get() { return "str"; }
};
template <class T>
concept byte_like = std::is_same_v<T, char> || std::is_same_v<T, unsigned char> || std::is_same_v<T, std::byte>;
template <class T, class A>
struct type_name<std::vector<T, A>> {
  static std::string get() {
    if constexpr (byte_like<T>) return "bin";
    else return "array<" + name_of<T>() + ">";
  }
};
template <>
struct type_name<bytes_view> {
  static std::string get() { return "bin"; }
};
template <class T, std::size_t N>
struct type_name<std::array<T, N>> {
  static std::string get() { return type_name<std::vector<T>>::get(); }
};
template <class... T>
struct type_name<std::tuple<T...>> {
  static std::string get() { return "array"; }
};
template <class A, class B>
struct type_name<std::pair<A, B>> {
  static std::string get() { return "array"; }
};
template <class K, class V, class... R>
struct type_name<std::map<K, V, R...>> {
  static std::string get() { return "map<" + name_of<K>() + "," + name_of<V>() + ">"; }
};
template <class K, class V, class... R>
struct type_name<std::unordered_map<K, V, R...>> : type_name<std::map<K, V>> {};
template <class T>
struct type_name<std::optional<T>> {
  static std::string get() { return name_of<T>() + "?"; }
};

// What a received value is, in the same words.
inline const char* kind_of(const msgpack::object& value) {
  switch (value.type) {
    case msgpack::type::NIL: return "nil";
    case msgpack::type::BOOLEAN: return "bool";
    case msgpack::type::POSITIVE_INTEGER:
    case msgpack::type::NEGATIVE_INTEGER: return "int";
    case msgpack::type::FLOAT32:
    case msgpack::type::FLOAT64: return "float";
    case msgpack::type::STR: return "str";
    case msgpack::type::BIN: return "bin";
    case msgpack::type::ARRAY: return "array";
    case msgpack::type::MAP: return "map";
    case msgpack::type::EXT: return "ext";
  }
  return "unknown";
}

}  // namespace typed
}  // namespace bulkhead
