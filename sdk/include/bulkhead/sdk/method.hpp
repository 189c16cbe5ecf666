// How a method is called: its function's parameters are split into what the SDK gives (context, responder, streams) and what
// the caller sends, which is converted for it; what it returns is packed. See sdk.hpp.
#pragma once

#include <bulkhead/sdk/context.hpp>
#include <bulkhead/sdk/responder.hpp>
#include <bulkhead/sdk/stream.hpp>

#include <array>
#include <memory>

namespace bulkhead::detail {

// A method of whatever types, as the plugin keeps it.
struct method_base {
  virtual ~method_base() = default;
  virtual void run(const bulkhead_host_t* host, bulkhead_call_t* call, bytes_view arguments) = 0;
  std::string name, doc, signature;
  std::vector<std::string> names;
  std::uint32_t flags = 0;
};

// Puts the bytes of blobs in the place of references: to all that reads arguments they are bytes and strings like others.
inline void open_blobs(const bulkhead_host_t* host, bulkhead_call_t* call, msgpack::object& value) {
  if (value.type == msgpack::type::ARRAY) {
    for (std::uint32_t i = 0; i < value.via.array.size; ++i) open_blobs(host, call, value.via.array.ptr[i]);
  } else if (value.type == msgpack::type::MAP) {
    for (std::uint32_t i = 0; i < value.via.map.size; ++i) {
      open_blobs(host, call, value.via.map.ptr[i].key);
      open_blobs(host, call, value.via.map.ptr[i].val);
    }
  } else if (value.type == msgpack::type::EXT && value.via.ext.type() == BULKHEAD_EXT_BLOB) {
    bulkhead_blob_t raw{};
    const auto* reference = reinterpret_cast<const std::uint8_t*>(value.via.ext.data());
    if (!host->open_blob(host, call, reference, value.via.ext.size, &raw)) return;
    value.type = reference[0] == 1 ? msgpack::type::STR : msgpack::type::BIN;
    value.via.bin = {static_cast<std::uint32_t>(raw.size), reinterpret_cast<const char*>(raw.data)};
  }
}

// Arguments as objects. Strings and bytes refer to where they are, which outlives the call; the memory of the objects is
// the next call's on this thread.
struct unpacked_arguments {
  unpacked_arguments(const bulkhead_host_t* host, bulkhead_call_t* call, bytes_view packed) : zone(std::move(spare())) {
    if (!zone) zone = std::make_unique<msgpack::zone>();
    bool blobs = false;
    value = msgpack::unpack(
        *zone, reinterpret_cast<const char*>(packed.data()), packed.size(),
        [](msgpack::type::object_type type, std::size_t, void* any) {
          if (type == msgpack::type::EXT) *static_cast<bool*>(any) = true;
          return true;
        },
        &blobs, typed::limit_for(packed.size()));
    if (blobs) open_blobs(host, call, value);
  }
  ~unpacked_arguments() {
    zone->clear();
    zone.swap(spare());
  }
  unpacked_arguments(const unpacked_arguments&) = delete;
  unpacked_arguments& operator=(const unpacked_arguments&) = delete;
  static std::unique_ptr<msgpack::zone>& spare() {
    thread_local std::unique_ptr<msgpack::zone> kept;
    return kept;
  }
  std::unique_ptr<msgpack::zone> zone;
  msgpack::object value;
};

// Splits a function's parameters into those given by us (context, responder, streams) and those sent by the caller.
template <class T>
struct is_responder : std::false_type {};
template <class R>
struct is_responder<responder<R>> : std::true_type {
  using result = R;
};
template <class T>
inline constexpr bool is_ours = std::is_same_v<T, context> || is_responder<T>::value || typed::is_stream<T>;
template <class Parameters>
struct split;
template <class... P>
struct split<std::tuple<P...>> {
  template <class T>
  using if_sent = std::conditional_t<is_ours<T>, std::tuple<>, std::tuple<T>>;
  using sent = decltype(std::tuple_cat(std::declval<if_sent<std::remove_cvref_t<P>>>()...));
  static constexpr bool asynchronous = (is_responder<std::remove_cvref_t<P>>::value || ...);
  static constexpr bool streams = (typed::is_stream<std::remove_cvref_t<P>> || ...);
  static_assert((typed::is_reader<std::remove_cvref_t<P>>::value + ... + 0) < 2 &&
                    (typed::is_writer<std::remove_cvref_t<P>>::value + ... + 0) < 2,
                "a method has one stream of arguments and one of results at most");
  static_assert(!asynchronous || !streams,
                "a method has a responder or streams, not both: streams end when it returns");
};

// A method made of a function: arguments are converted for it, and what it returns is packed.
template <class F>
struct typed_method final : method_base {
  using traits = typed::function_traits<F>;
  using parts = split<typename traits::parameters>;
  using sent = typename parts::sent;

  explicit typed_method(F f) : function(std::move(f)) {}

  std::string make_signature() { return make_signature(static_cast<typename traits::parameters*>(nullptr)); }
  template <class... P>
  std::string make_signature(std::tuple<P...>*) {
    if constexpr (parts::asynchronous) {
      std::string text;
      auto find = [&]<class T>(std::type_identity<T>) {
        if constexpr (is_responder<T>::value)
          text = typed::signature<typename is_responder<T>::result>(names, static_cast<sent*>(nullptr));
      };
      (find(std::type_identity<std::remove_cvref_t<P>>{}), ...);
      return text;
    } else {
      std::string text = typed::signature<typename traits::result>(names, static_cast<sent*>(nullptr));
      (typed::add_stream<std::remove_cvref_t<P>>(text), ...);
      return text;
    }
  }

  void run(const bulkhead_host_t* host, bulkhead_call_t* call, bytes_view packed) override {
    context cx(host, call);
    const auto with = [&](sent& arguments) { run(cx, arguments, static_cast<typename traits::parameters*>(nullptr)); };
    if constexpr (typed::is_plain<sent>)
      if (sent arguments; typed::take_all(packed, arguments)) return with(arguments);
    const unpacked_arguments unpacked(host, call, packed);
    sent arguments = convert_all(unpacked.value, cx, static_cast<sent*>(nullptr));
    with(arguments);
  }

  template <class... A>
  std::tuple<A...> convert_all(const msgpack::object& packed, const context& cx, std::tuple<A...>*) {
    return typed::arguments<A...>(name, packed, names, [&]<class T>(std::type_identity<T>, const msgpack::object& o) {
      return convert_one<T>(cx, o);
    });
  }

  template <class T>
  static T convert_one(const context& cx, const msgpack::object& value) {
    if constexpr (std::is_same_v<T, handle>) {
      if (value.type == msgpack::type::EXT && value.via.ext.type() == BULKHEAD_EXT_HANDLE && value.via.ext.size == 1) {
        const int fd = cx.raw()->take_handle(cx.raw(), cx.call(), static_cast<std::uint8_t>(value.via.ext.data()[0]));
        if (fd >= 0) return handle(fd);
        throw type_mismatch("expected a handle, got one that was not sent or was taken already");
      }
      throw type_mismatch(std::string("expected handle, got ") + typed::kind_of(value));
    } else if constexpr (std::is_same_v<T, blob>) {
      return blob(typed::convert<bytes_view>(value));
    } else {
      return typed::convert<T>(value);
    }
  }

  template <class... P, class... A>
  void run(context& cx, std::tuple<A...>& arguments, std::tuple<P...>*) {
    std::shared_ptr<open_answer> answer;  // of an asynchronous method
    std::shared_ptr<stream_use> streams;
    auto invoke = [&]<std::size_t... I>(std::index_sequence<I...>)->decltype(auto) {
      return function(parameter<P, sent_before<I, P...>()>(cx, arguments, answer, streams)...);
    };
    using indices = std::index_sequence_for<P...>;
    if constexpr (parts::asynchronous) {
      static_assert(std::is_void_v<typename traits::result>, "a method with a responder returns void");
      answer = std::make_shared<open_answer>(cx);
      try {
        invoke(indices{});
      } catch (...) {
        if (answer->claim()) throw;  // it becomes the answer, whatever a responder that lives on does later
        host_api(cx).log(BULKHEAD_LOG_WARNING, name + " threw an exception after it had answered");
      }
    } else {
      struct cut_off {
        std::shared_ptr<stream_use>& of;
        ~cut_off() {
          if (of) of->cut_off();
        }
      };
      if constexpr (parts::streams) streams = std::make_shared<stream_use>(cx, name);
      auto reply = [&](const auto& result) {
        result_buffer packed(cx.raw());
        pack_result(cx, packed, result);
        cx.raw()->reply(cx.raw(), cx.call(), packed.data(), packed.size());
      };
      const auto returned = [&]() -> decltype(auto) {
        const cut_off at_the_end{streams};
        return invoke(indices{});
      };
      if constexpr (std::is_void_v<typename traits::result>) {
        returned();
        reply(msgpack::type::nil_t{});
      } else {
        reply(returned());
      }
    }
  }

  // How many of the parameters before the I-th were sent by the caller: the index into the arguments.
  template <std::size_t I, class... P>
  static constexpr std::size_t sent_before() {
    constexpr std::array<bool, sizeof...(P)> ours{is_ours<std::remove_cvref_t<P>>...};
    std::size_t count = 0;
    for (std::size_t i = 0; i < I; ++i) count += !ours[i];
    return count;
  }

  template <class P, std::size_t Index, class... A>
  static decltype(auto) parameter(context& cx, std::tuple<A...>& arguments, const std::shared_ptr<open_answer>& answer,
                                  const std::shared_ptr<stream_use>& streams) {
    using plain = std::remove_cvref_t<P>;
    if constexpr (std::is_same_v<plain, context>) {
      return (cx);
    } else if constexpr (is_responder<plain>::value) {
      return plain(cx, answer);
    } else if constexpr (typed::is_stream<plain>) {
      return plain(streams);
    } else if constexpr (std::is_lvalue_reference_v<P>) {
      return (std::get<Index>(arguments));
    } else {
      return std::move(std::get<Index>(arguments));
    }
  }

  F function;
};

}  // namespace bulkhead::detail
