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
#include <bulkhead/sdk/method.hpp>
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
    auto added = std::make_unique<detail::typed_method<F>>(std::move(function));
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
  static void invoke(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                     const std::uint8_t* arguments, std::size_t size) noexcept;
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
  // False if it throws; then `error` says what.
  template <class F>
  bool attempt(const char** error, F what) noexcept {
    try {
      what();
      return true;
    } catch (...) {
      error_ = text_of_exception();
    }
    *error = error_.c_str();
    return false;
  }

  host_api host_;
  std::vector<std::unique_ptr<detail::method_base>> methods_;
  std::function<void()> init_, destroy_;
  std::function<void(msgpack::sbuffer&)> save_;
  std::function<void(const msgpack::object&)> restore_;
  std::vector<bulkhead_method_t> table_;
  bulkhead_plugin_t plugin_{};
  std::string error_;  // of the last attempt
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
  return me.attempt(error, [&] {
    if (me.init_) me.init_();
  });
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
  return me.attempt(error, [&] {
    msgpack::sbuffer packed;
    me.save_(packed);
    take(to, packed.data(), packed.size());
  });
}

inline bool plugin_definition::restore(const bulkhead_plugin_t* plugin, const std::uint8_t* state, std::size_t size,
                                       const char** error) noexcept {
  auto& me = self(plugin);
  return me.attempt(error, [&] { me.restore_(typed::unpack({state, size}).get()); });
}

inline void plugin_definition::invoke(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method,
                                      bulkhead_call_t* call, const std::uint8_t* arguments, std::size_t size) noexcept {
  const bulkhead_host_t* host = self(plugin).host_.raw();
  auto fail = [&](std::string_view text, const std::vector<char>& details = {}) {
    host->fail(host, call, text.data(), text.size(), details.empty() ? nullptr : details.data(), details.size());
  };
  try {
    static_cast<detail::method_base*>(method->method_data)->run(host, call, {arguments, size});
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
