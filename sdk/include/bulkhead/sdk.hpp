// The SDK: what a plugin author includes. A plugin is a body that declares typed methods; names, argument types and
// result types of the methods come from the functions' own signatures.
//
//   #include <bulkhead/sdk.hpp>
//
//   BULKHEAD_PLUGIN("stats", "1.0.0") {
//     plugin.method("mean", [](std::vector<double> const& xs) { ... return mean; }, "Arithmetic mean", {"xs"});
//   }
//
// Parameters may be bool, integers, floats, std::string, std::string_view, bytes, bytes_view, blob, handle, vectors,
// maps, optionals (may be left out at the end), tuples, types with MSGPACK_DEFINE_MAP, and msgpack::object for
// anything. A first parameter `bulkhead::context&` gives the call's deadline, cancellation, progress, log and host
// functions. A parameter `bulkhead::responder<R>` makes the method asynchronous: it returns at once, and the answer
// is given later from any thread. Parameters `bulkhead::reader<T>` and `bulkhead::writer<T>`, one of each at most, are a
// stream of arguments and a stream of results. An exception fails the call (outcome plugin_error) with its text.
#pragma once

#include <bulkhead/sdk/context.hpp>
#include <bulkhead/sdk/responder.hpp>
#include <bulkhead/sdk/stream.hpp>

#include <cstring>
#include <memory>

namespace bulkhead {

// What the body of BULKHEAD_PLUGIN fills.
class plugin_definition {
 public:
  // Made by BULKHEAD_PLUGIN.
  explicit plugin_definition(const bulkhead_host_t* host) : host_(host) {}

  // Declares a method. `doc` is one sentence; `names` are the parameters' names, for people and error texts.
  template <class F>
  plugin_definition& method(std::string name, F function, std::string doc = "", std::vector<std::string> names = {}) {
    auto added = std::make_unique<typed_method<F>>(std::move(function));
    added->name = std::move(name);
    added->doc = std::move(doc);
    added->names = std::move(names);
    added->signature = added->make_signature();
    methods_.push_back(std::move(added));
    return *this;
  }
  // The method declared last may safely run twice; it may be retried after a crash.
  plugin_definition& idempotent() {
    if (methods_.empty()) throw std::logic_error("idempotent() comes after the method it is about");
    methods_.back()->flags |= BULKHEAD_METHOD_IDEMPOTENT;
    return *this;
  }

  // Runs once before the first call; an exception from it means the plugin can't start, and says why.
  plugin_definition& on_init(std::function<void()> function) { return init_ = std::move(function), *this; }
  // Runs once, when the worker exits in good order.
  plugin_definition& on_destroy(std::function<void()> function) { return destroy_ = std::move(function), *this; }

  // Lets a successor (a new version, or the next worker after a crash) begin with what this plugin knows. `save` returns
  // it as a value of any type that methods may return; `restore` gets it as its one parameter, after on_init and before
  // the first call. An exception from `save` keeps the state saved last, one from `restore` means that the worker can't
  // start. Both run on the dispatch thread, between calls; in a thread-safe plugin other calls may be in progress.
  template <class Save, class Restore>
  plugin_definition& state(Save save, Restore restore) {
    using saved = std::remove_cvref_t<std::tuple_element_t<0, typename typed::function_traits<Restore>::parameters>>;
    save_ = [save = std::move(save)](msgpack::sbuffer& to) { msgpack::pack(to, save()); };
    restore_ = [restore = std::move(restore)](const msgpack::object& from) { restore(typed::convert<saved>(from)); };
    return *this;
  }

  // Log, events and host functions outside a call, from any thread.
  host_api host() const { return host_; }

  // Makes the C ABI's plugin; used by BULKHEAD_PLUGIN.
  static const bulkhead_plugin_t* create(const bulkhead_host_t* host, void (*define)(plugin_definition&)) noexcept;

 private:
  struct method_base {
    virtual ~method_base() = default;
    virtual void run(const bulkhead_host_t* host, bulkhead_call_t* call, bytes_view arguments) = 0;
    std::string name, doc, signature;
    std::vector<std::string> names;
    std::uint32_t flags = 0;
  };

  // Splits a function's parameters into those given by us (context, responder, streams) and those sent by the caller.
  template <class T>
  struct is_responder : std::false_type {};
  template <class R>
  struct is_responder<responder<R>> : std::true_type {
    using result = R;
  };
  template <class T>
  static constexpr bool is_ours = std::is_same_v<T, context> || is_responder<T>::value || typed::is_stream<T>;
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
      const auto with = [&](sent& arguments) {
        run(cx, arguments, static_cast<typename traits::parameters*>(nullptr));
      };
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
        if (value.type == msgpack::type::EXT && value.via.ext.type() == BULKHEAD_EXT_HANDLE &&
            value.via.ext.size == 1) {
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
    static decltype(auto) parameter(context& cx, std::tuple<A...>& arguments,
                                    const std::shared_ptr<open_answer>& answer,
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

  static void invoke(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                     const std::uint8_t* arguments, std::size_t size) noexcept;
  // Arguments as objects. Strings and bytes refer to where they are, which outlives the call; the memory of the objects is
  // the next call's on this thread.
  struct unpacked_arguments {
    unpacked_arguments(const bulkhead_host_t* host, bulkhead_call_t* call, bytes_view packed);
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
  static void open_blobs(const bulkhead_host_t* host, bulkhead_call_t* call, msgpack::object& value);
  static bool init(const bulkhead_plugin_t* plugin, const char** error) noexcept;
  static void destroy(const bulkhead_plugin_t* plugin) noexcept;
  static const void* get_extension(const bulkhead_plugin_t* plugin, const char* id) noexcept;
  static bool save(const bulkhead_plugin_t* plugin, void (*take)(void*, const void*, std::size_t), void* to,
                   const char** error) noexcept;
  static bool restore(const bulkhead_plugin_t* plugin, const std::uint8_t* state, std::size_t size,
                      const char** error) noexcept;
  static plugin_definition& self(const bulkhead_plugin_t* plugin) {
    return *static_cast<plugin_definition*>(plugin->plugin_data);
  }

  host_api host_;
  std::vector<std::unique_ptr<method_base>> methods_;
  std::function<void()> init_, destroy_;
  std::function<void(msgpack::sbuffer&)> save_;
  std::function<void(const msgpack::object&)> restore_;
  std::vector<bulkhead_method_t> table_;
  bulkhead_plugin_t plugin_{};
  std::string error_;  // of init, save or restore
};

inline const bulkhead_plugin_t* plugin_definition::create(const bulkhead_host_t* host,
                                                          void (*define)(plugin_definition&)) noexcept {
  try {
    auto made = std::make_unique<plugin_definition>(host);
    define(*made);
    for (const auto& method : made->methods_)
      made->table_.push_back({method->name.c_str(), method->signature.c_str(), method->doc.c_str(), method->flags,
                              method.get(), &plugin_definition::invoke});
    made->plugin_ = {made.get(),
                     made->table_.data(),
                     made->table_.size(),
                     &plugin_definition::init,
                     &plugin_definition::destroy,
                     &plugin_definition::get_extension};
    return &made.release()->plugin_;
  } catch (...) {
    host_api(host).log(BULKHEAD_LOG_ERROR, text_of_exception());
    return nullptr;
  }
}

inline bool plugin_definition::init(const bulkhead_plugin_t* plugin, const char** error) noexcept {
  auto& me = self(plugin);
  try {
    if (me.init_) me.init_();
    return true;
  } catch (...) {
    me.error_ = text_of_exception();
  }
  *error = me.error_.c_str();
  return false;
}

inline void plugin_definition::destroy(const bulkhead_plugin_t* plugin) noexcept {
  const std::unique_ptr<plugin_definition> me(&self(plugin));
  try {
    if (me->destroy_) me->destroy_();
  } catch (...) {
    me->host_.log(BULKHEAD_LOG_ERROR, "on_destroy: " + text_of_exception());
  }
}

inline const void* plugin_definition::get_extension(const bulkhead_plugin_t* plugin, const char* id) noexcept {
  static constexpr bulkhead_state_t state{&plugin_definition::save, &plugin_definition::restore};
  if (std::strcmp(id, BULKHEAD_READS_BLOBS) == 0) return &state;
  return self(plugin).save_ && std::strcmp(id, BULKHEAD_STATE) == 0 ? &state : nullptr;
}

inline bool plugin_definition::save(const bulkhead_plugin_t* plugin, void (*take)(void*, const void*, std::size_t),
                                    void* to, const char** error) noexcept {
  auto& me = self(plugin);
  try {
    msgpack::sbuffer packed;
    me.save_(packed);
    take(to, packed.data(), packed.size());
    return true;
  } catch (...) {
    me.error_ = text_of_exception();
  }
  *error = me.error_.c_str();
  return false;
}

inline bool plugin_definition::restore(const bulkhead_plugin_t* plugin, const std::uint8_t* state, std::size_t size,
                                       const char** error) noexcept {
  auto& me = self(plugin);
  try {
    const msgpack::object_handle unpacked = typed::unpack({state, size});
    me.restore_(unpacked.get());
    return true;
  } catch (...) {
    me.error_ = text_of_exception();
  }
  *error = me.error_.c_str();
  return false;
}

// Puts the bytes of blobs in the place of references: to all that reads arguments they are bytes and strings like others.
inline void plugin_definition::open_blobs(const bulkhead_host_t* host, bulkhead_call_t* call, msgpack::object& value) {
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

inline plugin_definition::unpacked_arguments::unpacked_arguments(const bulkhead_host_t* host, bulkhead_call_t* call,
                                                                 bytes_view packed)
    : zone(std::move(spare())) {
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

inline void plugin_definition::invoke(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method,
                                      bulkhead_call_t* call, const std::uint8_t* arguments, std::size_t size) noexcept {
  const bulkhead_host_t* host = self(plugin).host_.raw();
  auto fail = [&](std::string_view text, const std::vector<char>& details = {}) {
    host->fail(host, call, text.data(), text.size(), details.empty() ? nullptr : details.data(), details.size());
  };
  try {
    static_cast<method_base*>(method->method_data)->run(host, call, {arguments, size});
  } catch (const error& e) {
    fail(e.what(), e.details());
  } catch (const std::bad_alloc&) {
    fail("out of memory");
  } catch (...) {
    fail(text_of_exception());
  }
}

}  // namespace bulkhead

// Defines the plugin of this library: id and version, then a body in which `plugin` is a plugin_definition.
#define BULKHEAD_PLUGIN(id, version)                                                      \
  BULKHEAD_MANIFEST_BEGIN(id, version);                                                   \
  static void bulkhead_define_plugin(::bulkhead::plugin_definition& plugin);              \
  extern "C" {                                                                            \
  BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;                           \
  const bulkhead_entry_t bulkhead_entry = {                                               \
      BULKHEAD_ABI_VERSION, [](const bulkhead_host_t* host) -> const bulkhead_plugin_t* { \
        return ::bulkhead::plugin_definition::create(host, &bulkhead_define_plugin);      \
      }};                                                                                 \
  }                                                                                       \
  static void bulkhead_define_plugin([[maybe_unused]] ::bulkhead::plugin_definition& plugin)
