// Typed calls over MessagePack: names of C++ types as signatures show them, arguments checked and converted one by
// one, and functions of any signature wrapped so that they can be called with packed arguments. Used by the SDK for
// a plugin's methods and by the host library for the functions it lends to plugins; needs msgpack-c only.
#pragma once

#include <msgpack.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
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

// --- names of types, as in the signature grammar of bulkhead/plugin.h -----------------------------------------------

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

// --- one value ------------------------------------------------------------------------------------------------------

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};

template <class T>
T convert(const msgpack::object& value);

// What is wrong with a value that is not a T: its kind, that it is out of range, or which element is at fault.
template <class T>
std::string described(const msgpack::object& value) {
  const std::string kind = kind_of(value);
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (kind == "int") return "an int out of range";
  } else if constexpr (is_vector<T>::value) {
    for (std::uint32_t i = 0; value.type == msgpack::type::ARRAY && i < value.via.array.size; ++i) {
      try {
        convert<typename T::value_type>(value.via.array.ptr[i]);
      } catch (const type_mismatch&) {
        return described<typename T::value_type>(value.via.array.ptr[i]) + " at index " + std::to_string(i);
      }
    }
  }
  return kind;
}

// Converts one value, or throws type_mismatch "expected X, got Y".
template <class T>
T convert(const msgpack::object& value) {
  if constexpr (std::is_same_v<T, msgpack::object>) {
    return value;
  } else if constexpr (std::is_same_v<T, bytes_view>) {
    if (value.type == msgpack::type::BIN)
      return {reinterpret_cast<const std::uint8_t*>(value.via.bin.ptr), value.via.bin.size};
  } else {
    // msgpack-c takes bin for a string and a string for bytes; a plugin should not have to wonder which it got.
    constexpr bool wants_text = std::is_convertible_v<T, std::string_view>;
    if (!(wants_text && value.type == msgpack::type::BIN)) {
      try {
        return value.as<T>();
      } catch (const msgpack::type_error&) {
      }
    }
  }
  throw type_mismatch("expected " + name_of<T>() + ", got " + described<T>(value));
}

// --- functions ------------------------------------------------------------------------------------------------------

template <class F>
struct function_traits : function_traits<decltype(&F::operator())> {};
template <class R, class... A>
struct function_traits<R (*)(A...)> {
  using result = R;
  using parameters = std::tuple<A...>;
};
template <class C, class R, class... A>
struct function_traits<R (C::*)(A...)> : function_traits<R (*)(A...)> {};
template <class C, class R, class... A>
struct function_traits<R (C::*)(A...) const> : function_traits<R (*)(A...)> {};
template <class C, class R, class... A>
struct function_traits<R (C::*)(A...) noexcept> : function_traits<R (*)(A...)> {};
template <class C, class R, class... A>
struct function_traits<R (C::*)(A...) const noexcept> : function_traits<R (*)(A...)> {};

// "(int width, bin) -> map": `names` may be shorter than the parameters.
template <class R, class... A>
std::string signature(std::span<const std::string> names, std::tuple<A...>*) {
  std::string text = "(";
  std::size_t index = 0;
  [[maybe_unused]] auto add = [&](const std::string& type) {
    if (index) text += ", ";
    text += type;
    if (index < names.size()) text += " " + names[index];
    ++index;
  };
  (add(name_of<A>()), ...);
  return text + ") -> " + name_of<R>();
}

// The arguments of `function`, each converted by `convert_one(std::type_identity<T>, object)`. Trailing optionals may
// be missing. Throws type_mismatch naming function, position, expected and got.
template <class... A, class Convert>
std::tuple<A...> arguments(std::string_view function, const msgpack::object& packed, std::span<const std::string> names,
                           Convert&& convert_one) {
  if (packed.type != msgpack::type::ARRAY)
    throw type_mismatch(std::string(function) + ": arguments must be an array, got " + kind_of(packed));
  const std::size_t given = packed.via.array.size;
  std::size_t required = 0, position = 0;
  ((++position, required = is_optional<A>::value ? required : position), ...);
  if (given < required || given > sizeof...(A)) {
    std::string wanted = std::to_string(required);
    if (required != sizeof...(A)) wanted += " to " + std::to_string(sizeof...(A));
    throw type_mismatch(std::string(function) + ": takes " + wanted + (wanted == "1" ? " argument" : " arguments") +
                        ", got " + std::to_string(given));
  }
  std::size_t index = 0;
  const msgpack::object absent;
  [[maybe_unused]] auto one = [&]<class T>(std::type_identity<T> type) -> T {
    const std::size_t at = index++;
    try {
      return convert_one(type, at < given ? packed.via.array.ptr[at] : absent);
    } catch (const type_mismatch& mismatch) {
      std::string where = std::string(function) + ": argument " + std::to_string(at + 1);
      if (at < names.size()) where += " (" + names[at] + ")";
      throw type_mismatch(where + ": " + mismatch.what());
    }
  };
  return std::tuple<A...>{one(std::type_identity<A>{})...};  // braces: evaluated in order
}

}  // namespace typed
}  // namespace bulkhead
