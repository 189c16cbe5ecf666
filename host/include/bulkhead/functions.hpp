// Functions of the application that a plugin may call. A plugin sees those that it was loaded with and no others.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/sdk/typed.hpp>

#include <chrono>
#include <memory>

namespace BULKHEAD_PUBLIC bulkhead {

template <>
struct typed::type_name<unique_fd> {
  static std::string get() { return "handle"; }
};

// Descriptors on their way between a plugin and a function that the application lends it.
struct passed_handles {
  std::vector<unique_fd>
      in;  // came with the arguments, by the index that stands for them there; what is left is closed
  std::vector<unique_fd> out;  // to go with the result, which has to refer to each of them once
};

// A set of named functions, typed by their own signatures:
//
//   functions{}.add("lookup", [&](std::string key) { return table.at(key); })
//
// They run on the host's handler threads, several at once, and may block; what they throw goes back to the plugin as
// an error with its text, and so does `overloaded` in the place of a result that the worker's queue (limits::queued_bytes)
// has no room for. Arguments come from a worker: they have the declared types, and nothing else is certain.
//
// A parameter may be a unique_fd: a descriptor from a plugin whose policy grants handles; expect any kind of file, one
// that never gets ready and one whose last close blocks. A result that is a unique_fd goes to the plugin, whatever its
// policy: it can do with it what it was opened for.
//
// One that runs on behalf of a call ends in vain once that call's time is up, so calls of plugins that it makes, on its own
// thread, end by then, too; so does whatever it limits by current_deadline(). The worker says how much time is left, so a
// hostile one can say anything: that ends only its own functions' calls earlier, or no earlier than without.
class functions {
 public:
  // A function without types: its arguments as one array, its result as one packed value.
  using packed_function = std::function<ipc::buffer(const msgpack::object& arguments)>;
  // The same with descriptors.
  using handle_function = std::function<ipc::buffer(const msgpack::object& arguments, passed_handles& handles)>;

  // Adds one; its parameters and result may be of the types that plugins' methods take. Throws std::invalid_argument
  // for a name that is reserved or taken.
  template <class F>
  functions& add(std::string name, F function) {
    using traits = typed::function_traits<F>;
    auto wrapped = [name, function = std::move(function)](const msgpack::object& packed,
                                                          passed_handles& handles) mutable {
      return invoke(name, function, packed, handles, static_cast<typename traits::parameters*>(nullptr));
    };
    return insert(std::move(name), std::move(wrapped));
  }

  // The untyped form: the arguments as they came, one array; the result as one packed value.
  functions& add_packed(std::string name, packed_function function) {
    return insert(std::move(name), [function = std::move(function)](const msgpack::object& arguments, passed_handles&) {
      return function(arguments);
    });
  }
  // The same with descriptors.
  functions& add_packed(std::string name, handle_function function) {
    return insert(std::move(name), std::move(function));
  }

  // Whether there are none.
  bool empty() const { return table_.empty(); }
  // The one of that name, or null.
  const handle_function* find(const std::string& name) const {
    const auto found = table_.find(name);
    return found == table_.end() ? nullptr : &found->second;
  }

 private:
  functions& insert(std::string name, handle_function function) {
    if (name.starts_with("$/")) throw std::invalid_argument("functions: names that begin with $/ are reserved");
    if (!table_.emplace(name, std::move(function)).second)
      throw std::invalid_argument("functions: '" + name + "' is there already");
    return *this;
  }

  template <class F, class... P>
  static ipc::buffer invoke(const std::string& name, F& function, const msgpack::object& packed,
                            passed_handles& handles, std::tuple<P...>*) {
    auto convert = [&]<class T>(std::type_identity<T>, const msgpack::object& value) {
      if constexpr (std::is_same_v<T, unique_fd>) return take(value, handles);
      else return typed::convert<T>(value);
    };
    auto arguments = typed::arguments<std::remove_cvref_t<P>...>(name, packed, {}, convert);
    ipc::buffer out;
    using result = typename typed::function_traits<F>::result;
    if constexpr (std::is_void_v<result>) {
      std::apply(function, std::move(arguments));
      ipc::packer(out).pack_nil();
    } else if constexpr (std::is_same_v<result, unique_fd>) {
      handles.out.push_back(std::apply(function, std::move(arguments)));
      if (!handles.out.back()) throw std::runtime_error("'" + name + "' has no file to give");
      const char index = 0;
      ipc::packer(out).pack_ext(1, ipc::ext_handle).pack_ext_body(&index, 1);
    } else {
      ipc::packer(out).pack(std::apply(function, std::move(arguments)));
    }
    return out;
  }

  static unique_fd take(const msgpack::object& value, passed_handles& from) {
    if (value.type != msgpack::type::EXT || value.via.ext.type() != ipc::ext_handle || value.via.ext.size != 1)
      throw type_mismatch(std::string("expected handle, got ") + typed::kind_of(value));
    const auto index = static_cast<std::uint8_t>(value.via.ext.data()[0]);
    if (index >= from.in.size() || !from.in[index])
      throw type_mismatch("expected a handle, got one that was not sent or was taken already");
    return std::move(from.in[index]);
  }

  std::map<std::string, handle_function> table_;
};

// In a lent function, on its thread: until when the call that the plugin makes it for has time, as the plugin says.
// time_point::max() elsewhere, and when there is no such limit. Never blocks.
std::chrono::steady_clock::time_point current_deadline();

}  // namespace bulkhead
