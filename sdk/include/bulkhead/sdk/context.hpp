// What a plugin's code can reach while it runs: the host (log, events, the application's functions), the call in
// progress (deadline, cancellation, progress), bytes in bulk and passed handles.
#pragma once

#include <bulkhead/plugin.h>
#include <bulkhead/sdk/plain.hpp>
#include <bulkhead/sdk/typed.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>

#include <fcntl.h>
#include <unistd.h>

namespace bulkhead {

// Thrown by a method to fail its call with a text and, if wanted, details for the caller's program.
class error : public std::runtime_error {
 public:
  // Fails the call with this text.
  explicit error(const std::string& text) : std::runtime_error(text) {}
  // And with details, which callers find in call_error::data(), unless they are larger than a message may be.
  template <class T>
  error(const std::string& text, const T& details) : std::runtime_error(text) {
    msgpack::sbuffer packed;
    msgpack::pack(packed, details);
    details_.assign(packed.data(), packed.data() + packed.size());
  }
  // MessagePack, or empty.
  const std::vector<char>& details() const { return details_; }

 private:
  std::vector<char> details_;
};

// Thrown by context::throw_if_cancelled(), and by host calls whose own call was cancelled.
class cancelled_error : public error {
 public:
  cancelled_error() : error("cancelled") {}
};

// The text of the exception being handled; inside a catch only.
inline std::string text_of_exception() {
  try {
    throw;
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception that is not a std::exception";
  }
}

// A file descriptor that came with a call or with an answer of the application's, or that is to go there. Owned: closed when it goes out of scope, unless released.
class handle {
 public:
  handle() = default;
  // Takes a descriptor over.
  explicit handle(int fd) : fd_(fd) {}
  // Movable; what was moved from is empty.
  handle(handle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  // Closes what it was before.
  handle& operator=(handle&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~handle() {
    if (fd_ >= 0) ::close(fd_);
  }
  // The descriptor; still owned here. -1: none.
  int fd() const { return fd_; }
  // The descriptor, the caller's own from now on.
  int release() { return std::exchange(fd_, -1); }
  // Whether there is one.
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

template <>
struct typed::type_name<handle> {
  static std::string get() { return "handle"; }
};

// Bytes in bulk. As a parameter: a read-only view, valid until the call is answered. Made by context::create_blob():
// writable until it is returned or replied, which passes it on without copying where memory is shared with the host. (Long
// results of other types are copied once to get there.)
class blob {
 public:
  blob() = default;
  // One that the worker has made.
  blob(const bulkhead_host_t* host, const bulkhead_blob_t& raw) : host_(host), raw_(raw) {}
  // Bytes that are somebody else's, to read only.
  explicit blob(bytes_view view) {
    raw_.data = const_cast<std::uint8_t*>(view.data());
    raw_.size = view.size();
  }
  // Movable; what was moved from is empty.
  blob(blob&& other) noexcept : host_(std::exchange(other.host_, nullptr)), raw_(other.raw_) {}
  // Gives back what it was before.
  blob& operator=(blob&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~blob() {
    if (host_) host_->release_blob(host_, &raw_);
  }
  // In bytes.
  std::size_t size() const { return raw_.size; }
  // Whether it has no bytes.
  bool empty() const { return raw_.size == 0; }
  // Where its bytes are; null if there are none.
  const std::uint8_t* data() const { return raw_.data; }
  // All of it, to read only.
  bytes_view view() const { return {raw_.data, raw_.size}; }
  // The same.
  operator bytes_view() const { return view(); }
  // To fill a blob of one's own; empty for one that came as a parameter.
  std::span<std::uint8_t> writable() { return {raw_.data, host_ ? raw_.size : 0}; }

  // What stands for it in a result: empty when it is not in memory shared with the host.
  bytes_view reference() const { return {raw_.reference, raw_.reference_size}; }

 private:
  const bulkhead_host_t* host_ = nullptr;
  bulkhead_blob_t raw_{};
};

template <>
struct typed::type_name<blob> {
  static std::string get() { return "blob"; }
};

template <>
struct typed::plain<blob> : std::true_type {
  static bool take(packed& from, blob& out) {
    bytes_view bytes;
    if (!from.binary(bytes)) return false;
    out = blob(bytes);
    return true;
  }
};

namespace typed {
template <class Stream, class T>
void pack_plain(msgpack::packer<Stream>& packer, const T& value) {
  if constexpr (std::is_same_v<T, blob> || std::is_same_v<T, bytes_view>) {
    packer.pack_bin(static_cast<std::uint32_t>(value.size()));
    packer.pack_bin_body(reinterpret_cast<const char*>(value.data()), static_cast<std::uint32_t>(value.size()));
  } else {
    packer.pack(value);
  }
}
// Packs what can't have descriptors in it: progress.
template <class T>
void pack_value(msgpack::sbuffer& buffer, const T& value) {
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  pack_plain(packer, value);
}
// Packs an event's value, or an argument of a host function: a handle, or a tuple with some in it, or anything else.
template <class T>
void pack_with_handles(msgpack::sbuffer& buffer, const T& value, std::vector<int>& handles) {
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  if constexpr (std::is_same_v<T, handle>) {
    const char index = static_cast<char>(handles.size());
    handles.push_back(value.fd());
    packer.pack_ext(1, BULKHEAD_EXT_HANDLE);
    packer.pack_ext_body(&index, 1);
  } else if constexpr (is_tuple<T>::value) {
    packer.pack_array(std::tuple_size_v<T>);
    std::apply([&](const auto&... each) { (pack_with_handles(buffer, each, handles), ...); }, value);
  } else {
    pack_plain(packer, value);
  }
}
}  // namespace typed

// A value that the application has published, as it was when it was looked up; see host_api::published(). Movable.
class snapshot {
 public:
  snapshot() = default;
  // Made by the SDK.
  snapshot(const bulkhead_host_t* host, const bulkhead_published_t* calls, const bulkhead_snapshot_t& raw)
      : host_(host), calls_(calls), raw_(raw) {}
  // What was moved from is empty.
  snapshot(snapshot&& other) noexcept { *this = std::move(other); }
  // Lets go of the one that it was before.
  snapshot& operator=(snapshot&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(calls_, other.calls_);
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~snapshot() {
    if (calls_) calls_->release(host_, &raw_);
  }

  // Whether there is one.
  explicit operator bool() const { return calls_ != nullptr; }
  // Of two under one name the later one's is larger; 0: there is none.
  std::uint64_t version() const { return raw_.version; }
  // Its bytes, where they are; for all its readers together there is one copy of them.
  bytes_view view() const { return {raw_.data, raw_.size}; }
  // What was packed when it was published, as a T. Throws type_mismatch.
  template <class T>
  T as() const {
    return typed::convert<T>(typed::unpack(view()).get());
  }

 private:
  const bulkhead_host_t* host_ = nullptr;
  const bulkhead_published_t* calls_ = nullptr;
  bulkhead_snapshot_t raw_{};
};

// The worker's side of the host. Copyable, any thread, valid until the plugin's destroy() has returned.
class host_api {
 public:
  // Made by the SDK.
  explicit host_api(const bulkhead_host_t* host) : host_(host) {}

  // A line for the host's log.
  void log(bulkhead_log_level level, std::string_view text) const {
    host_->log(host_, level, text.data(), text.size());
  }
  // A line of the level info.
  void log(std::string_view text) const { log(BULKHEAD_LOG_INFO, text); }

  // An event for the application. May wait for credit; false when the host is gone, or when the event is larger than a
  // message may be (16 MiB unless the application says otherwise). A handle, or a tuple with handles in
  // it as in std::tie(name, file), goes along duplicated; then throws bulkhead::error when the policy grants none.
  template <class T>
  bool emit(const std::string& name, const T& value) const {
    msgpack::sbuffer packed;
    std::vector<int> fds;
    typed::pack_with_handles(packed, value, fds);
    if (fds.empty()) return host_->emit(host_, name.c_str(), packed.data(), packed.size());
    return to_send(fds).emit(host_, name.c_str(), packed.data(), packed.size(), fds.data(), fds.size());
  }

  // Calls a function that the application granted this plugin and waits for the answer. Throws bulkhead::error with
  // the host's text when it fails or is larger than a message may be, cancelled_error when the call it serves was cancelled meanwhile. Arguments may be
  // handles, as for emit(); so may the result, which takes no grant.
  template <class R = void, class... A>
  R call_host(const std::string& function, const A&... arguments) const {
    return call_host_for<R>(nullptr, function, arguments...);
  }

  // Says that this worker must go, and why: another takes its place, then it gets no more calls and is shut down when
  // those it has are done.
  void leave(std::string_view why) const {
    if (const auto* extension = static_cast<const bulkhead_leave_t*>(host_->get_extension(host_, BULKHEAD_LEAVE)))
      extension->leave(host_, why.data(), why.size());
  }

  // The latest version of what the application has published under this name; an empty snapshot when there is none for
  // this plugin. To be asked for once a call, say, and not in inner loops.
  snapshot published(const std::string& name) const {
    const auto* calls = static_cast<const bulkhead_published_t*>(host_->get_extension(host_, BULKHEAD_PUBLISHED));
    bulkhead_snapshot_t raw{};
    if (!calls || !calls->open(host_, name.c_str(), &raw)) return {};
    return {host_, calls, raw};
  }

  // A blob to fill and return. Throws bulkhead::error when there is no memory for it.
  blob create_blob(std::size_t size) const {
    bulkhead_blob_t raw{};
    if (!host_->create_blob(host_, size, &raw))
      throw error("no memory for a blob of " + std::to_string(size) + " bytes");
    return {host_, raw};
  }

  // What is underneath, for functions of the C ABI.
  const bulkhead_host_t* raw() const { return host_; }

 protected:
  // As call_host(), on behalf of a call: ends when that is cancelled or its deadline passes.
  template <class R, class... A>
  R call_host_for(bulkhead_call_t* call, const std::string& function, const A&... arguments) const {
    msgpack::sbuffer packed;
    msgpack::packer<msgpack::sbuffer> packer(packed);
    packer.pack_array(sizeof...(A));
    std::vector<int> fds;
    (typed::pack_with_handles(packed, arguments, fds), ...);
    struct owned_answer {
      const bulkhead_host_t* host;
      bulkhead_answer_t raw{};
      ~owned_answer() { host->release_answer(host, &raw); }
    } answer{host_};
    const bulkhead_status_t status =
        fds.empty() ? host_->call_host(host_, call, function.c_str(), packed.data(), packed.size(), &answer.raw)
                    : to_send(fds).call_host(host_, call, function.c_str(), packed.data(), packed.size(), fds.data(),
                                             fds.size(), &answer.raw);
    if (status == BULKHEAD_CANCELLED) throw cancelled_error();
    if (status != BULKHEAD_OK)
      throw error(std::string(reinterpret_cast<const char*>(answer.raw.data), answer.raw.size));
    if constexpr (!std::is_void_v<R>) {
      try {
        msgpack::object_handle result = typed::unpack({answer.raw.data, answer.raw.size});
        if constexpr (std::is_same_v<R, handle>) return take(answer.raw, result.get());
        else return typed::convert<R>(result.get());
      } catch (const type_mismatch& mismatch) {
        throw error("result of host function '" + function + "': " + mismatch.what());
      }
    }
  }

  // What sends descriptors. Throws bulkhead::error when the policy grants none, or when one is none.
  const bulkhead_handles_t& to_send(std::span<const int> fds) const {
    const auto* calls = static_cast<const bulkhead_handles_t*>(host_->get_extension(host_, BULKHEAD_HANDLES));
    if (!calls || !host_->get_extension(host_, BULKHEAD_SEND_HANDLES))
      throw error("a file descriptor can't be sent: the policy of this plugin does not grant handles");
    for (const int fd : fds)
      if (::fcntl(fd, F_GETFD) < 0)
        throw error("the file descriptor " + std::to_string(fd) + " can't be sent: it is not open");
    return *calls;
  }
  // The descriptor that stands in an answer.
  handle take(bulkhead_answer_t& answer, const msgpack::object& value) const {
    if (value.type != msgpack::type::EXT || value.via.ext.type() != BULKHEAD_EXT_HANDLE || value.via.ext.size != 1)
      throw type_mismatch(std::string("expected handle, got ") + typed::kind_of(value));
    const auto* calls = static_cast<const bulkhead_handles_t*>(host_->get_extension(host_, BULKHEAD_HANDLES));
    const int fd = calls ? calls->take(host_, &answer, static_cast<std::uint8_t>(value.via.ext.data()[0])) : -1;
    if (fd < 0) throw type_mismatch("expected a handle, got one that was not sent");
    return handle(fd);
  }

  const bulkhead_host_t* host_;  // what is underneath
};

// A call in progress. Valid until the call has been answered; any thread.
class context : public host_api {
 public:
  // Made by the SDK.
  context(const bulkhead_host_t* host, bulkhead_call_t* call) : host_api(host), call_(call) {}

  // Whether to stop: the caller cancelled, or the deadline passed. Cheap.
  bool cancelled() const { return host_->cancelled(host_, call_); }
  // Throws cancelled_error when the call is; let that out of the method.
  void throw_if_cancelled() const {
    if (cancelled()) throw cancelled_error();
  }
  // Time until the deadline; nanoseconds::max() when there is none.
  std::chrono::nanoseconds remaining() const { return std::chrono::nanoseconds(host_->remaining_ns(host_, call_)); }

  // Tells the caller how far it is, by a value of any kind. Dropped when it was cancelled, or is larger than
  // a message may be; may wait for the host.
  template <class T>
  void progress(const T& value) const {
    msgpack::sbuffer packed;
    typed::pack_value(packed, value);
    host_->progress(host_, call_, packed.data(), packed.size());
  }

  // As host_api::call_host, under this call's deadline and cancellation.
  template <class R = void, class... A>
  R call_host(const std::string& function, const A&... arguments) const {
    return call_host_for<R>(call_, function, arguments...);
  }

  // What is underneath, for functions of the C ABI.
  bulkhead_call_t* call() const { return call_; }

 private:
  bulkhead_call_t* call_;
};

// Where a result is packed. Long strings and byte arrays are put into blobs as they come, with one copy and no other.
class result_buffer {
 public:
  // For one result. Takes the memory that the last one on this thread has left.
  explicit result_buffer(const bulkhead_host_t* host) : host_(host) { packed_.swap(spare()); }
  // Its memory is the next one's on this thread.
  ~result_buffer() {
    packed_.clear();
    if (packed_.capacity() <= most_spare) packed_.swap(spare());
  }
  result_buffer(const result_buffer&) = delete;
  result_buffer& operator=(const result_buffer&) = delete;
  // What is packed so far.
  const char* data() const { return packed_.data(); }
  // In bytes.
  std::size_t size() const { return packed_.size(); }

  // For msgpack::packer.
  void write(const char* data, std::size_t size) {
    if (size < least_diverted || size < threshold() || !divert(data, size))
      packed_.insert(packed_.end(), data, data + size);
  }
  // What stands for a blob: in the place of bytes, or of a text.
  void write_reference(bytes_view reference, bool text = false) {
    for (const std::size_t each :
         {std::size_t{0xc7}, reference.size(), std::size_t{BULKHEAD_EXT_BLOB}, std::size_t{text}})
      packed_.push_back(static_cast<char>(each));
    packed_.insert(packed_.end(), reference.begin() + 1, reference.end());  // its first byte says what it stands for
  }

 private:
  static constexpr std::size_t least_diverted = 1024, most_spare = std::size_t{64} << 10;
  static std::vector<char>& spare() {
    thread_local std::vector<char> kept;
    return kept;
  }
  std::size_t threshold() {
    if (!threshold_) {
      const auto* bulk = static_cast<const bulkhead_bulk_t*>(host_->get_extension(host_, BULKHEAD_BULK));
      threshold_ = bulk ? bulk->threshold(host_) : SIZE_MAX;
    }
    return *threshold_;
  }

  // A body comes just after its header, which the reference replaces.
  bool divert(const char* data, std::size_t size) {
    const std::size_t header = size < 0x10000 ? 3 : 5;
    if (packed_.size() < header || size > UINT32_MAX) return false;
    const auto* at = reinterpret_cast<const std::uint8_t*>(packed_.data()) + packed_.size() - header;
    const bool text = at[0] == (header == 3 ? 0xda : 0xdb);
    std::size_t length = 0;
    for (std::size_t i = 1; i < header; ++i) length = length << 8 | at[i];
    if ((!text && at[0] != (header == 3 ? 0xc5 : 0xc6)) || length != size) return false;
    bulkhead_blob_t raw{};
    if (!host_->create_blob(host_, size, &raw)) return false;
    blob made(host_, raw);
    if (made.reference().empty()) return false;
    std::memcpy(raw.data, data, size);
    packed_.resize(packed_.size() - header);
    write_reference(made.reference(), text);
    blobs_.push_back(std::move(made));
    return true;
  }

  const bulkhead_host_t* host_;
  std::optional<std::size_t> threshold_;
  std::vector<char> packed_;
  std::vector<blob> blobs_;  // until the reply is sent
};

// A method's result. A handle goes along with the answer, duplicated; throws error when the policy grants none.
template <class T>
void pack_result(const context& cx, result_buffer& packed, const T& value) {
  if constexpr (std::is_same_v<T, handle>) {
    const auto* handles =
        static_cast<const bulkhead_send_handles_t*>(cx.raw()->get_extension(cx.raw(), BULKHEAD_SEND_HANDLES));
    if (!handles) throw error("a file descriptor can't be sent: the policy of this plugin does not grant handles");
    const int index = handles->attach(cx.raw(), cx.call(), value.fd());
    if (index < 0) throw error("the file descriptor " + std::to_string(value.fd()) + " can't be sent: it is not open");
    const char byte = static_cast<char>(index);
    msgpack::packer packer(packed);
    packer.pack_ext(1, BULKHEAD_EXT_HANDLE);
    packer.pack_ext_body(&byte, 1);
  } else {
    if constexpr (std::is_same_v<T, blob>)
      if (!value.reference().empty()) return packed.write_reference(value.reference());
    msgpack::packer packer(packed);
    typed::pack_plain(packer, value);
  }
}

}  // namespace bulkhead
