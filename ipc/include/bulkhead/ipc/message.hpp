// MessagePack-RPC messages: request [0, id, method, params], response [1, id, error, result], notification
// [2, method, params]. Written into one contiguous buffer, read as views into a frame that the scanner has passed.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/limits.hpp>
#include <bulkhead/ipc/system.hpp>
#include <bulkhead/outcome.hpp>

#include <msgpack.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead::ipc {

inline constexpr int protocol_version = 1;    // of docs/protocol.md
inline constexpr std::int8_t ext_handle = 1;  // payload: one byte, the index of the descriptor within the message
inline constexpr std::int8_t ext_blob = 2;    // payload: an ipc::blob_reference

// Bytes that are somebody else's, for reading.
using byte_span = std::span<const std::uint8_t>;

// The memory of byte vectors is kept for the thread's next ones, some of it: so calls allocate nothing once they are warm.
// An empty one, with room if there is any to be had:
BULKHEAD_PUBLIC std::vector<std::uint8_t> take_spare_bytes() noexcept;
// And one that is used no more: what it holds is gone.
BULKHEAD_PUBLIC void keep_spare_bytes(std::vector<std::uint8_t>&& used) noexcept;

// Bytes that are kept so when they go.
struct reused_bytes {
  std::vector<std::uint8_t> bytes{};  // to be used as any vector

  reused_bytes() = default;
  // Takes over the memory of `from`.
  explicit reused_bytes(std::vector<std::uint8_t>&& from) noexcept : bytes(std::move(from)) {}
  reused_bytes(const reused_bytes&) = default;             // a copy of the bytes
  reused_bytes(reused_bytes&&) noexcept = default;         // takes over their memory
  reused_bytes& operator=(const reused_bytes&) = default;  // a copy of the bytes
  // Swaps the bytes of both.
  reused_bytes& operator=(reused_bytes&& other) noexcept {
    bytes.swap(other.bytes);
    return *this;
  }
  ~reused_bytes() {
    if (bytes.capacity() > 0) keep_spare_bytes(std::move(bytes));
  }
};

// A growing byte buffer that msgpack::packer writes to. One thread at a time; all that writes throws std::bad_alloc when
// there is no memory.
class buffer {
 public:
  // Takes long strings and byte arrays elsewhere while they are packed, so that they need not be copied twice.
  class outlet {
   public:
    virtual ~outlet() = default;
    virtual std::size_t threshold() const = 0;  // 1 KiB at least
    // `packed` ends with the header of `body`. False: it is to follow as usual.
    virtual bool take(buffer& packed, byte_span body) = 0;
  };
  void set_outlet(outlet* to) { outlet_ = to; }  // null: none

  // What msgpack::packer calls: a large piece may go to the outlet, anything else is appended.
  void write(const char* data, std::size_t size) {
    if (outlet_ && size >= outlet_->threshold() &&
        outlet_->take(*this, {reinterpret_cast<const std::uint8_t*>(data), size}))
      return;
    append({reinterpret_cast<const std::uint8_t*>(data), size});
  }
  // Adds a copy of `more`, which is not of this buffer, without asking the outlet.
  void append(byte_span more) {
    std::vector<std::uint8_t>& all = bytes_.bytes;
    if (all.capacity() == 0) all = take_spare_bytes();
    if (all.capacity() == 0) all.reserve(first_capacity);
    all.insert(all.end(), more.begin(), more.end());
  }
  std::vector<std::uint8_t>& bytes() { return bytes_.bytes; }           // all of them, to be changed in place
  byte_span view() const { return bytes_.bytes; }                       // valid until it is written to
  std::vector<std::uint8_t> take() { return std::move(bytes_.bytes); }  // afterwards the buffer is empty

 private:
  static constexpr std::size_t first_capacity = 128;  // else it grows byte by byte at first
  reused_bytes bytes_;
  outlet* outlet_ = nullptr;
};
// Packs values into a buffer: packer(to).pack(value).
using packer = msgpack::packer<buffer>;

// What can go wrong with a call, as it travels in a response: {code, message, data}.
struct call_failure {
  outcome code = outcome::plugin_error;  // anything but ok
  std::string message;                   // for people, in UTF-8
  std::vector<std::uint8_t> data;        // one MessagePack value, or empty
};

class held_blob;  // blob.hpp

// How a call ended. On ok, `result` views into `frame`.
struct completion {
  outcome code = outcome::ok;                     // how it ended
  bool given_up = false;                          // by our own side; the peer's answer is still to come
  bool answered = false;                          // by the peer, which chose the code
  std::uint32_t id = 0;                           // of the call, once it was sent
  call_failure failure;                           // unless it is ok
  std::vector<std::uint8_t> frame;                // the response as it came
  std::size_t result_offset = 0;                  // where in the frame the result begins
  std::size_t result_size = 0;                    // in bytes
  std::vector<unique_fd> handles;                 // that came with the result, in the order of their indices
  std::vector<std::shared_ptr<held_blob>> blobs;  // that it refers to, in the order in which it does

  // One packed value, valid as long as this lives unchanged; empty unless it is ok.
  byte_span result() const { return byte_span(frame).subspan(result_offset, result_size); }
  // One that is not ok.
  static completion failed(outcome code, std::string message) {
    completion made;
    made.code = code;
    made.failure = {code, std::move(message), {}};
    return made;
  }
};

// Begins a request whose id is filled in by set_request_id() once it is known; params are to be packed next.
buffer begin_request(std::string_view method);
// Writes the id into a frame that begin_request() began.
void set_request_id(std::span<std::uint8_t> frame, std::uint32_t id);
// Begins a notification; params (an array) are to be packed next.
buffer begin_notification(std::string_view method);
// A whole response. `result` is one packed value.
buffer make_response(std::uint32_t id, byte_span result);
// A whole response that says what went wrong.
buffer make_error_response(std::uint32_t id, const call_failure& failure);

// The three forms of a message, by the number that its array begins with.
enum class message_kind {
  request = 0,       // asks for an answer
  response = 1,      // the answer
  notification = 2,  // has none
};

// A message as views into the bytes it was read from.
struct message {
  message_kind kind = message_kind::notification;  // which of the members below mean something
  std::uint32_t id = 0;                            // request, response
  std::string_view method;                         // request, notification
  byte_span params;                                // request, notification: one value, an array
  byte_span error;                                 // response: one value, nil when there is none
  byte_span result;                                // response: one value
  unsigned blobs = 0;                              // how many ext values of the type of blobs it contains
};

// Reads the envelope of a frame, which is exactly one value, as the scanner delivers it. Nothing when it is not one of
// the three forms.
std::optional<message> parse_message(byte_span frame);

// Takes one unsigned integer of at most 32 bits off the front of `rest`. Nothing, and `rest` as it was, when there is none.
std::optional<std::uint32_t> take_unsigned(byte_span& rest);
// The same for the header of an array: how many elements follow.
std::optional<std::uint32_t> take_array(byte_span& rest);

// Reads the error of a response: any shape is accepted and sanitised, since it comes from a worker. The message is
// valid UTF-8 of at most 4 KiB.
call_failure parse_failure(byte_span error);

// Unpacks one value with the limits that the scanner has already enforced. Throws msgpack::unpack_error. The object
// refers to `bytes` for strings and binary data: keep them alive.
BULKHEAD_PUBLIC msgpack::object_handle unpack(byte_span bytes);
// The same for what ought to be small, since objects take far more memory than the bytes that they are made of: throws
// std::length_error when it has more than `most` elements in all, before any is made.
msgpack::object_handle unpack(byte_span bytes, std::size_t most);

// `text` as valid UTF-8 without control characters, cut at `limit` bytes: for anything a worker says about itself.
std::string sanitised(std::string_view text, std::size_t limit = 4096);

}  // namespace bulkhead::ipc
