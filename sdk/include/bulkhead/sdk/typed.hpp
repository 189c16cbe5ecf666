// Typed calls over MessagePack: names of C++ types as signatures show them, arguments checked and converted one by
// one, and functions of any signature wrapped so that they can be called with packed arguments. Used by the SDK for
// a plugin's methods and by the host library for the functions it lends to plugins; needs msgpack-c only.
#pragma once

#include <bulkhead/sdk/type_names.hpp>

#include <functional>

namespace bulkhead::typed {

// --- one value ------------------------------------------------------------------------------------------------------

// For unpacking so many bytes: no header is believed that promises more than they can hold, for memory is taken at its
// word; and to read what is nested deeper takes more stack than there is.
inline msgpack::unpack_limit limit_for(std::size_t bytes) { return {bytes, bytes, bytes, bytes, bytes, 512}; }

// As msgpack::unpack(), within that limit. Throws msgpack::unpack_error.
inline msgpack::object_handle unpack(std::span<const std::uint8_t> packed, msgpack::unpack_reference_func f = nullptr) {
  return msgpack::unpack(reinterpret_cast<const char*>(packed.data()), packed.size(), f, nullptr,
                         limit_for(packed.size()));
}

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

// Bytes that are owned; a bytes_view is read on its own.
template <class T>
struct is_byte_vector : std::false_type {};
template <class T, class A>
struct is_byte_vector<std::vector<T, A>> : std::bool_constant<byte_like<T>> {};
template <class T>
struct is_byte_array : std::false_type {};
template <class T, std::size_t N>
struct is_byte_array<std::array<T, N>> : std::bool_constant<byte_like<T>> {};

template <class T>
struct is_list : std::false_type {};
template <class T, class A>
struct is_list<std::vector<T, A>> : std::bool_constant<!byte_like<T>> {};

template <class T>
struct is_map : std::false_type {};
template <class K, class V, class... R>
struct is_map<std::map<K, V, R...>> : std::true_type {};
template <class K, class V, class... R>
struct is_map<std::unordered_map<K, V, R...>> : std::true_type {};

// Arrays whose size is part of the type: each element with a type of its own, or all with the same.
template <class T>
struct is_tuple : std::false_type {};
template <class... T>
struct is_tuple<std::tuple<T...>> : std::true_type {};
template <class A, class B>
struct is_tuple<std::pair<A, B>> : std::true_type {};
template <class T, std::size_t N>
struct is_tuple<std::array<T, N>> : std::bool_constant<!byte_like<T>> {};

// What a value is that is not of the type asked for: its kind, that it is out of range, or which element is at fault.
struct misfit {
  std::string got;
};

// The value as a T. Throws misfit.
template <class T>
T read(const msgpack::object& value);

// An element of a value: what is wrong with it is told with its place. `place` makes the text for it.
template <class T, class Place>
T read_element(const msgpack::object& element, Place&& place) {
  try {
    return read<T>(element);
  } catch (misfit& found) {
    found.got += place();
    throw;
  }
}

template <class T>
T read_indexed(const msgpack::object_array& array, std::size_t i) {
  return read_element<T>(array.ptr[i], [&] { return " at index " + std::to_string(i); });
}

template <class T>
T read_list(const msgpack::object_array& array) {
  T list;
  list.reserve(array.size);
  for (std::uint32_t i = 0; i < array.size; ++i) list.push_back(read_indexed<typename T::value_type>(array, i));
  return list;
}

template <class T>
T read_tuple(const msgpack::object_array& array) {
  constexpr std::size_t size = std::tuple_size_v<T>;
  if (array.size != size)
    throw misfit{"an array of " + std::to_string(array.size) + " instead of " + std::to_string(size)};
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return T{read_indexed<std::tuple_element_t<I, T>>(array, I)...};
  }
  (std::make_index_sequence<size>{});
}

template <class T>
T read_map(const msgpack::object_map& pairs) {
  T map;
  for (std::uint32_t i = 0; i < pairs.size; ++i) {
    const auto& [packed_key, packed_value] = pairs.ptr[i];
    auto key = read_element<typename T::key_type>(packed_key, [&] { return " as key of entry " + std::to_string(i); });
    map.insert_or_assign(std::move(key), read_element<typename T::mapped_type>(packed_value, [&, &k = packed_key] {
                           return k.type == msgpack::type::STR ? " at key '" + k.as<std::string>() + "'"
                                                               : " in entry " + std::to_string(i);
                         }));
  }
  return map;
}

template <class T>
T read(const msgpack::object& value) {
  if constexpr (std::is_same_v<T, msgpack::object>) {
    return value;
  } else if constexpr (std::is_same_v<T, bytes_view>) {
    if (value.type == msgpack::type::BIN)
      return {reinterpret_cast<const std::uint8_t*>(value.via.bin.ptr), value.via.bin.size};
  } else if constexpr (is_byte_vector<T>::value) {
    if (value.type == msgpack::type::BIN) {
      T out;
      assign_bytes(out, read<bytes_view>(value));
      return out;
    }
  } else if constexpr (is_optional<T>::value) {
    if (value.type == msgpack::type::NIL) return std::nullopt;
    return read<typename T::value_type>(value);
  } else if constexpr (is_list<T>::value) {
    if (value.type == msgpack::type::ARRAY) return read_list<T>(value.via.array);
  } else if constexpr (is_tuple<T>::value) {
    if (value.type == msgpack::type::ARRAY) return read_tuple<T>(value.via.array);
  } else if constexpr (is_map<T>::value) {
    if (value.type == msgpack::type::MAP) return read_map<T>(value.via.map);
  } else {
    // msgpack-c takes bin for a string and a string for bytes; a plugin should not have to wonder which it got.
    constexpr bool wants_text = std::is_convertible_v<T, std::string_view>;
    if (!(wants_text && value.type == msgpack::type::BIN) &&
        !(is_byte_array<T>::value && value.type == msgpack::type::STR)) {
      try {
        return value.as<T>();
      } catch (const msgpack::type_error&) {
      }
    }
  }
  std::string got = kind_of(value);
  if (std::is_integral_v<T> && !std::is_same_v<T, bool> && got == "int") got = "an int out of range";
  if (name_of<T>() == "any" && got == "map") got += ", a field of which does not fit";
  throw misfit{std::move(got)};
}

// Converts one value, or throws type_mismatch "expected X, got Y".
template <class T>
T convert(const msgpack::object& value) {
  try {
    return read<T>(value);
  } catch (const misfit& found) {
    const std::string expected = name_of<T>();
    throw type_mismatch("expected " + (expected == "any" ? "a structure" : expected) + ", got " + found.got);
  }
}

// --- functions ------------------------------------------------------------------------------------------------------

template <class F>
struct function_traits : function_traits<decltype(&F::operator())> {};
template <class R, class... A>
struct function_traits<R (*)(A...)> {
  using result = R;
  using parameters = std::tuple<A...>;
};
template <class R, class... A>
struct function_traits<R (*)(A...) noexcept> : function_traits<R (*)(A...)> {};
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

}  // namespace bulkhead::typed
