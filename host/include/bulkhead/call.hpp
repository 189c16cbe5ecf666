// One call: its options, its arguments packed, and its reply.
#pragma once

#include <bulkhead/blob.hpp>
#include <bulkhead/error.hpp>
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/recycled.hpp>
#include <bulkhead/ipc/stream.hpp>
#include <bulkhead/ipc/system.hpp>
#include <bulkhead/sdk/plain.hpp>
#include <bulkhead/sdk/typed.hpp>

#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>

namespace BULKHEAD_PUBLIC bulkhead {

// For call_options::deadline: however long it takes.
inline constexpr std::chrono::nanoseconds no_deadline = std::chrono::nanoseconds::max();

// What sticky dispatch goes by: a number or a text, of which a hash is kept.
class call_key {
 public:
  constexpr call_key() = default;
  // A number, as it is.
  template <std::integral T>
  constexpr call_key(T number) : value_(static_cast<std::uint64_t>(number)) {}
  // A text: its hash.
  call_key(std::string_view text) : value_(std::hash<std::string_view>{}(text)) {}
  // The same.
  call_key(const std::string& text) : call_key(std::string_view(text)) {}
  // The same; ends with a zero byte.
  call_key(const char* text) : call_key(std::string_view(text)) {}
  // What equal keys have in common.
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

// How one call is to be made. All of it is optional.
struct call_options {
  // From now. When it passes, the call ends with `timeout` and the plugin is asked to stop; if it has not within the
  // grace (1 s), its worker is killed. Unset: the plugin's default. `no_deadline`: wait for as long as it takes.
  std::optional<std::chrono::nanoseconds> deadline{};
  // Ends the call with `cancelled` when a stop is requested, in the same manner.
  std::stop_token stop{};
  // For load_options::dispatch: calls with equal keys go to the same worker.
  call_key key{};
  // Called with each value that the method reports as progress, in order and one at a time: on the host's handler threads,
  // and at the end of a synchronous call on the caller's own for what has not been told by then. So a synchronous call
  // returns when the last of it has, and it may refer to the caller's locals; of an asynchronous call it may still come
  // when the call has completed. An exception is logged.
  std::function<void(const msgpack::object&)> on_progress{};
  // Of plugin::open(): bytes of streamed results that are kept until they are taken; a larger one can't be sent. At most
  // 16 MiB, and less than one message may have (limits::frame).
  std::size_t stream_window = ipc::default_stream_window;
};

// A file descriptor to pass along as an argument. Borrowed: it is duplicated at once, the worker gets its own copy.
struct pass_fd {
  int fd;  // not negative
};

// Arguments as they travel: one MessagePack array, descriptors, and the blobs that the array refers to, in order.
struct packed_arguments {
  ipc::buffer params;              // the array
  std::vector<unique_fd> handles;  // what its handles (ext type 1) refer to, by index
  ipc::held_blobs blobs;           // kept until the call has ended

  // The array with the blobs' bytes in it.
  std::vector<std::uint8_t> plain() const;
  // Bytes of it, those of blobs included.
  std::size_t size() const;
};

namespace detail {

unique_fd duplicate(int fd);

template <class T>
void pack_argument(packed_arguments& out, ipc::packer& packer, const T& value, blob_source* source = nullptr) {
  if constexpr (std::is_same_v<T, pass_fd>) {
    const char index = static_cast<char>(out.handles.size());
    out.handles.push_back(duplicate(value.fd));
    packer.pack_ext(1, ipc::ext_handle);
    packer.pack_ext_body(&index, 1);
  } else if constexpr (std::is_same_v<T, shared_blob>) {
    const bytes_view view = value;
    if (source && source->owns(*value.place())) {
      out.blobs.push_back(std::const_pointer_cast<ipc::held_blob>(value.place()));
      ipc::append_reference(out.params, value.place()->reference());
    } else {  // another plugin's, or a result: workers of this one have no way to see it
      pack_argument(out, packer, view, source);
    }
  } else if constexpr (std::is_convertible_v<const T&, bytes_view> && !std::is_same_v<T, bytes>) {
    const bytes_view view = value;
    packer.pack_bin(static_cast<std::uint32_t>(view.size()));
    packer.pack_bin_body(reinterpret_cast<const char*>(view.data()), static_cast<std::uint32_t>(view.size()));
  } else {
    packer.pack(value);
  }
}

}  // namespace detail

// Packs arguments. With `source` (plugin::blobs()) those that are blobs of that plugin are only referred to, and long ones
// are put into some.
template <class... A>
packed_arguments pack_arguments_for(const std::shared_ptr<blob_source>& source, const A&... arguments) {
  packed_arguments out;
  std::optional<detail::blob_outlet> outlet;
  if (source) out.params.set_outlet(&outlet.emplace(*source, out.blobs));
  ipc::packer packer(out.params);
  packer.pack_array(sizeof...(A));
  (detail::pack_argument(out, packer, arguments, source.get()), ...);
  out.params.set_outlet(nullptr);
  return out;
}
// The same with all bytes in the array itself.
template <class... A>
packed_arguments pack_arguments(const A&... arguments) {
  return pack_arguments_for(nullptr, arguments...);
}

// What came of a call. Holds its own bytes.
class reply {
 public:
  reply() = default;
  // Made by the host.
  explicit reply(ipc::completion&& data, std::shared_ptr<const crash_report> report = nullptr);

  // How the call ended.
  bulkhead::outcome outcome() const { return outcome_; }
  // Whether it ended with ok.
  explicit operator bool() const { return outcome_ == bulkhead::outcome::ok; }
  // What went wrong, for people; empty when nothing did.
  const std::string& message() const { return message_; }
  // Details of an error, from the plugin: one MessagePack value, or empty.
  const std::vector<std::uint8_t>& data() const { return data_; }
  // When a worker died of it; null otherwise.
  const std::shared_ptr<const crash_report>& report() const { return report_; }

  // The result: one MessagePack value. Copies blobs into it.
  ipc::byte_span raw() const { return blobs_ ? expanded() : packed(); }
  // How many bytes it has, those of blobs included.
  std::size_t size() const;

  // The result as an R; throws call_error when the call failed, or when the result is not an R (plugin_error).
  template <class R>
  R as() const {
    throw_if_failed();
    if constexpr (std::is_same_v<R, shared_blob>) {
      return blob();
    } else if constexpr (!std::is_void_v<R>) {
      if constexpr (typed::is_plain<R>)  // no detour through objects
        if (R value{}; typed::take_all(packed(), value)) return value;
      const msgpack::object_handle unpacked = unpack();
      if constexpr (std::is_same_v<R, unique_fd>) {
        const msgpack::object& value = unpacked.get();
        if (value.type == msgpack::type::EXT && value.via.ext.type() == ipc::ext_handle && value.via.ext.size == 1)
          return handle(static_cast<std::uint8_t>(value.via.ext.data()[0]));
        throw call_error(bulkhead::outcome::plugin_error,
                         std::string("the result: expected handle, got ") + typed::kind_of(value));
      } else try {
          return typed::convert<R>(unpacked.get());
        } catch (const type_mismatch& mismatch) {
          throw call_error(bulkhead::outcome::plugin_error, std::string("the result: ") + mismatch.what());
        }
    }
  }
  // A file descriptor that came with the result, by the index that stands for it there; the caller's own. Plugins may
  // send some when their policy grants handles: expect any kind of file, one that never gets ready included. Throws
  // call_error when the call failed, or plugin_error when there is none. A single one is `as<unique_fd>()`, too.
  unique_fd handle(std::size_t index = 0) const;
  // How many descriptors came with the result and have not been taken.
  std::size_t handle_count() const { return handles_ ? handles_->size() : 0; }

  // The result's bytes or text, where they are: in shared memory if they came by it, and then without a copy. Throws
  // call_error when the call failed, or plugin_error when the result is neither bytes nor text. `as<shared_blob>()`, too.
  shared_blob blob() const;

  // Throws call_error unless the outcome is ok.
  void throw_if_failed() const {
    if (outcome_ != bulkhead::outcome::ok) throw call_error(outcome_, message_, data_, report_);
  }

 private:
  struct held;  // blobs
  ipc::byte_span packed() const { return ipc::byte_span(frame_.bytes).subspan(offset_, size_); }
  ipc::byte_span expanded() const;
  msgpack::object_handle unpack() const;

  bulkhead::outcome outcome_ = bulkhead::outcome::not_sent;
  std::string message_ = "no call was made";
  std::vector<std::uint8_t> data_;
  ipc::reused_bytes frame_;
  std::size_t offset_ = 0, size_ = 0;
  std::shared_ptr<const std::vector<unique_fd>> handles_;
  std::shared_ptr<held> blobs_;  // null: there are none
  std::shared_ptr<const crash_report> report_;
};

// Takes the reply of an asynchronous call; called exactly once, on an I/O thread: it hands over and returns.
class reply_handler : public ipc::recycled {
 public:
  virtual ~reply_handler() = default;
  // Takes it. Must not throw, and must not block.
  virtual void complete(reply&& result) = 0;
};

}  // namespace bulkhead
