// One call: its options, its arguments packed, and its reply.
#pragma once

#include <bulkhead/error.hpp>
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/stream.hpp>
#include <bulkhead/ipc/system.hpp>
#include <bulkhead/sdk/typed.hpp>

#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>

namespace BULKHEAD_PUBLIC bulkhead {

inline constexpr std::chrono::nanoseconds no_deadline = std::chrono::nanoseconds::max();

// What sticky dispatch goes by: a number or a text, of which a hash is kept.
class call_key {
 public:
  constexpr call_key() = default;
  template <std::integral T>
  constexpr call_key(T number) : value_(static_cast<std::uint64_t>(number)) {}
  call_key(std::string_view text) : value_(std::hash<std::string_view>{}(text)) {}
  call_key(const std::string& text) : call_key(std::string_view(text)) {}
  call_key(const char* text) : call_key(std::string_view(text)) {}
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

struct call_options {
  // From now. When it passes, the call ends with `timeout` and the plugin is asked to stop; if it has not within the
  // grace (1 s), its worker is killed. Unset: the plugin's default. `no_deadline`: wait for as long as it takes.
  std::optional<std::chrono::nanoseconds> deadline{};
  // Ends the call with `cancelled` when a stop is requested, in the same manner.
  std::stop_token stop{};
  // For load_options::dispatch: calls with equal keys go to the same worker.
  call_key key{};
  // Called with each value that the method reports as progress, on the host's handler threads, one at a time.
  std::function<void(const msgpack::object&)> on_progress{};
  // Of plugin::open(): bytes of streamed results that are kept until they are taken; a larger one can't be sent. At most
  // 16 MiB, and less than one message may have (limits::frame).
  std::size_t stream_window = ipc::default_stream_window;
};

// A file descriptor to pass along as an argument. Borrowed: it is duplicated at once, the worker gets its own copy.
struct pass_fd {
  int fd;
};

// Arguments as they travel: one MessagePack array, and descriptors.
struct packed_arguments {
  ipc::buffer params;
  std::vector<unique_fd> handles;
};

namespace detail {

unique_fd duplicate(int fd);

template <class T>
void pack_argument(packed_arguments& out, ipc::packer& packer, const T& value) {
  if constexpr (std::is_same_v<T, pass_fd>) {
    const char index = static_cast<char>(out.handles.size());
    out.handles.push_back(duplicate(value.fd));
    packer.pack_ext(1, ipc::ext_handle);
    packer.pack_ext_body(&index, 1);
  } else if constexpr (std::is_convertible_v<const T&, bytes_view> && !std::is_same_v<T, bytes>) {
    const bytes_view view = value;
    packer.pack_bin(static_cast<std::uint32_t>(view.size()));
    packer.pack_bin_body(reinterpret_cast<const char*>(view.data()), static_cast<std::uint32_t>(view.size()));
  } else {
    packer.pack(value);
  }
}

}  // namespace detail

template <class... A>
packed_arguments pack_arguments(const A&... arguments) {
  packed_arguments out;
  ipc::packer packer(out.params);
  packer.pack_array(sizeof...(A));
  (detail::pack_argument(out, packer, arguments), ...);
  return out;
}

// What came of a call. Holds its own bytes.
class reply {
 public:
  reply() = default;
  explicit reply(ipc::completion&& data, std::shared_ptr<const crash_report> report = nullptr);

  bulkhead::outcome outcome() const { return outcome_; }
  explicit operator bool() const { return outcome_ == bulkhead::outcome::ok; }
  const std::string& message() const { return message_; }
  const std::vector<std::uint8_t>& data() const { return data_; }
  const std::shared_ptr<const crash_report>& report() const { return report_; }

  // The result: one MessagePack value.
  ipc::byte_span raw() const { return ipc::byte_span(frame_).subspan(offset_, size_); }

  // The result as an R; throws call_error when the call failed, or when the result is not an R (plugin_error).
  template <class R>
  R as() const {
    throw_if_failed();
    if constexpr (!std::is_void_v<R>) {
      const std::uint8_t first = raw()[0];
      if constexpr (std::is_same_v<R, bytes>) {  // no detour through an object for bulk data
        if (first >= 0xc4 && first <= 0xc6) {
          const ipc::byte_span body = raw().subspan(1 + (std::size_t{1} << (first - 0xc4)));
          return bytes(body.begin(), body.end());
        }
      }
      const msgpack::object_handle unpacked = ipc::unpack(raw());
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
  std::size_t handle_count() const { return handles_ ? handles_->size() : 0; }

  void throw_if_failed() const {
    if (outcome_ != bulkhead::outcome::ok) throw call_error(outcome_, message_, data_, report_);
  }

 private:
  bulkhead::outcome outcome_ = bulkhead::outcome::not_sent;
  std::string message_ = "no call was made";
  std::vector<std::uint8_t> data_;
  std::vector<std::uint8_t> frame_;
  std::size_t offset_ = 0, size_ = 0;
  std::shared_ptr<const std::vector<unique_fd>> handles_;
  std::shared_ptr<const crash_report> report_;
};

// Takes the reply of an asynchronous call; called exactly once, on an I/O thread: it hands over and returns.
class reply_handler {
 public:
  virtual ~reply_handler() = default;
  virtual void complete(reply&& result) = 0;
};

}  // namespace bulkhead
