// The functions of the C ABI that a plugin calls. See plugin_runtime.hpp.
#include "plugin_runtime.hpp"
#include <bulkhead/ipc/scanner.hpp>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include <fcntl.h>

namespace bulkhead {
namespace {

plugin_runtime::link& link_of(const bulkhead_host_t* host) {
  return *static_cast<plugin_runtime::link*>(host->host_data);
}

ipc::byte_span span_of(const void* data, std::size_t size) { return {static_cast<const std::uint8_t*>(data), size}; }

// Whether it is one value that refers to so many descriptors.
bool is_value(ipc::byte_span value, std::size_t handles) {
  ipc::limits any;
  any.frame = std::numeric_limits<std::uint32_t>::max();
  ipc::scanner scan(any);
  std::size_t used = 0;
  return scan.feed(value, used) == ipc::scanner::status::complete && used == value.size() && scan.handles() == handles;
}

// Copies to go with a message; nothing when there are too many, or when one is not open.
std::optional<std::vector<unique_fd>> duplicates(const int* fds, std::size_t count) {
  if (count > ipc::limits{}.handles) return std::nullopt;
  std::vector<unique_fd> copies;
  for (std::size_t i = 0; i < count; ++i) {
    copies.emplace_back(::fcntl(fds[i], F_DUPFD_CLOEXEC, 3));
    if (!copies.back()) return std::nullopt;
  }
  return copies;
}

}  // namespace

// `extern "C"` linkage is not needed for their types to match on any ABI we build for; none may let an exception out, since
// the plugin may be C.
struct plugin_runtime::functions {
  static void reply(const bulkhead_host_t* host, bulkhead_call_t* call, const void* result, std::size_t size) noexcept {
    if (!call->runtime->end(call)) return;
    const ipc::byte_span value = span_of(result, size);
    if (ipc::value_size(value) == size && size > 0) link_of(host).answer(*call, value);
    else
      link_of(host).fail(
          *call, {outcome::plugin_error, "the plugin answered with bytes that are not one MessagePack value", {}});
    call->runtime->release(call);
  }

  static void fail(const bulkhead_host_t* host, bulkhead_call_t* call, const char* message, std::size_t message_size,
                   const void* data, std::size_t data_size) noexcept {
    if (!call->runtime->end(call)) return;
    // A method that stops because its time is up has timed out, whichever side noticed first.
    const bool late = ipc::clock::now() >= call->deadline;
    ipc::call_failure failure{late ? outcome::timeout : outcome::plugin_error,
                              late ? "no answer before the deadline" : ipc::sanitised({message, message_size}),
                              {}};
    const ipc::byte_span details = span_of(data, data_size);
    if (data_size > 0 && ipc::value_size(details) == data_size) failure.data.assign(details.begin(), details.end());
    link_of(host).fail(*call, std::move(failure));
    call->runtime->release(call);
  }

  static void progress(const bulkhead_host_t* host, bulkhead_call_t* call, const void* value,
                       std::size_t size) noexcept {
    if (is_value(span_of(value, size), 0)) link_of(host).progress(*call, span_of(value, size));
  }

  static bool cancelled(const bulkhead_host_t* host, bulkhead_call_t* call) noexcept {
    if (call->cancelled.load(std::memory_order_relaxed)) return true;
    // The deadline is checked here rather than by a timer; the channel is looked at every 200 µs at most.
    constexpr std::int64_t interval_ns = 200'000;
    const auto now = ipc::clock::now();
    const std::int64_t ns = now.time_since_epoch().count();
    std::int64_t due = call->next_poll.load(std::memory_order_relaxed);
    if (ns >= due && call->next_poll.compare_exchange_strong(due, ns + interval_ns, std::memory_order_relaxed)) {
      if (now >= call->deadline) call->cancelled = true;
      else link_of(host).poll(*call);
    }
    return call->cancelled.load(std::memory_order_relaxed);
  }

  static std::int64_t remaining_ns(const bulkhead_host_t*, bulkhead_call_t* call) noexcept {
    if (call->deadline == ipc::never) return INT64_MAX;
    return std::max<std::int64_t>(0, (call->deadline - ipc::clock::now()).count());
  }

  static void log(const bulkhead_host_t* host, bulkhead_log_level_t level, const char* text,
                  std::size_t size) noexcept {
    link_of(host).log(level, {text, size});
  }

  static bool emit(const bulkhead_host_t* host, const char* name, const void* value, std::size_t size) noexcept {
    return emit_handles(host, name, value, size, nullptr, 0);
  }

  static bool emit_handles(const bulkhead_host_t* host, const char* name, const void* value, std::size_t size,
                           const int* fds, std::size_t count) noexcept {
    if ((count > 0 && !link_of(host).may_send_handles()) || !is_value(span_of(value, size), count)) return false;
    auto handles = duplicates(fds, count);
    return handles && link_of(host).emit(name, span_of(value, size), std::move(*handles));
  }

  static bulkhead_status_t call_host(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of, const char* function,
                                     const void* arguments, std::size_t size, bulkhead_answer_t* answer) noexcept {
    return call_with_handles(host, on_behalf_of, function, arguments, size, nullptr, 0, answer);
  }

  static ipc::completion ask(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of, const char* function,
                             ipc::byte_span arguments, const int* fds, std::size_t count) {
    const auto refuse = [](const char* why) { return ipc::completion::failed(outcome::rejected, why); };
    if (arguments.empty() || ipc::value_size(arguments) != arguments.size())
      return refuse("the arguments are not one MessagePack array");
    if (count > 0 && !link_of(host).may_send_handles())
      return refuse("a file descriptor can't be sent: the policy of this plugin does not grant handles");
    if (!is_value(arguments, count)) return refuse("the arguments do not refer to each of their descriptors once");
    auto handles = duplicates(fds, count);
    if (!handles) return refuse("too many descriptors, or one of them is not open");
    return link_of(host).call_host(on_behalf_of, function, arguments, std::move(*handles));
  }

  static bulkhead_status_t call_with_handles(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of,
                                             const char* function, const void* arguments, std::size_t size,
                                             const int* fds, std::size_t count, bulkhead_answer_t* answer) noexcept {
    auto* result = new ipc::completion(ask(host, on_behalf_of, function, span_of(arguments, size), fds, count));
    const bool fine = result->code == outcome::ok;
    const std::string& text = result->failure.message;
    answer->data = fine ? result->result().data() : reinterpret_cast<const std::uint8_t*>(text.data());
    answer->size = fine ? result->result().size() : text.size();
    answer->owner = result;
    switch (result->code) {
      case outcome::ok: return BULKHEAD_OK;
      case outcome::rejected: return BULKHEAD_REJECTED;
      case outcome::overloaded: return BULKHEAD_OVERLOADED;
      case outcome::timeout:
      case outcome::cancelled: return BULKHEAD_CANCELLED;
      case outcome::not_sent:
      case outcome::worker_lost: return BULKHEAD_LOST;
      default: return BULKHEAD_FAILED;
    }
  }

  static void release_answer(const bulkhead_host_t*, bulkhead_answer_t* answer) noexcept {
    delete static_cast<ipc::completion*>(answer->owner);
    *answer = {};
  }

  static int take_answered(const bulkhead_host_t*, bulkhead_answer_t* answer, std::uint32_t index) noexcept {
    auto* result = static_cast<ipc::completion*>(answer->owner);
    return result && index < result->handles.size() ? result->handles[index].release() : -1;
  }

  static int take_handle(const bulkhead_host_t*, bulkhead_call_t* call, std::uint32_t index) noexcept {
    return index < call->handles.size() ? call->handles[index].release() : -1;
  }

  static bool create_blob(const bulkhead_host_t* host, std::size_t size, bulkhead_blob_t* blob) noexcept {
    if (link_of(host).create_blob(size, *blob)) return true;
    auto* const bytes = new (std::nothrow) std::uint8_t[size ? size : 1];  // not shared with the host
    if (bytes) *blob = {bytes, size, {}, 0, bytes};
    return bytes != nullptr;
  }

  static bool open_blob(const bulkhead_host_t* host, bulkhead_call_t* call, const std::uint8_t* reference,
                        std::size_t size, bulkhead_blob_t* blob) noexcept {
    const auto known = ipc::blob_reference::read(span_of(reference, size));
    const auto bytes = known && call->blobs > 0 ? link_of(host).open_blob(*call, *known) : std::nullopt;
    if (!bytes) return false;
    *blob = {};
    blob->data = const_cast<std::uint8_t*>(bytes->data());
    blob->size = bytes->size();
    return true;
  }

  static void release_blob(const bulkhead_host_t* host, bulkhead_blob_t* blob) noexcept {
    if (blob->reference_size > 0) link_of(host).release_blob(*blob);
    else delete[] static_cast<std::uint8_t*>(blob->owner);
    *blob = {};
  }

  static int attach(const bulkhead_host_t*, bulkhead_call_t* call, int fd) noexcept {
    unique_fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    std::lock_guard held(call->attaching);
    if (!copy || call->attached.size() >= ipc::limits{}.handles) return -1;
    call->attached.push_back(std::move(copy));
    return static_cast<int>(call->attached.size()) - 1;
  }

  static std::size_t item_limit(const bulkhead_host_t*, bulkhead_call_t* call) noexcept {
    return call->stream ? call->stream->peer_window() : 0;
  }

  static bulkhead_status_t send(const bulkhead_host_t*, bulkhead_call_t* call, const void* item,
                                std::size_t size) noexcept {
    if (!call->stream || size == 0 || ipc::value_size(span_of(item, size)) != size) return BULKHEAD_REJECTED;
    return status_of(*call, call->stream->send(span_of(item, size)));
  }

  static bulkhead_status_t receive(const bulkhead_host_t*, bulkhead_call_t* call, bulkhead_answer_t* item) noexcept {
    *item = {};
    if (!call->stream) return BULKHEAD_REJECTED;
    auto taken = std::make_unique<ipc::completion>();
    const auto got = call->stream->receive(taken->frame);
    if (got == ipc::stream::result::end) return BULKHEAD_OK;
    if (got == ipc::stream::result::ok) *item = {taken->frame.data(), taken->frame.size(), taken.release()};
    return status_of(*call, got);
  }

  static void end(const bulkhead_host_t*, bulkhead_call_t* call) noexcept {
    if (call->stream) call->stream->close();
  }

  static bulkhead_status_t status_of(bulkhead_call_t& call, ipc::stream::result got) noexcept {
    switch (got) {
      case ipc::stream::result::ok: return BULKHEAD_OK;
      case ipc::stream::result::over: call.cancelled = true; return BULKHEAD_CANCELLED;
      default: return BULKHEAD_REJECTED;
    }
  }

  static bool open_published(const bulkhead_host_t* host, const char* name, bulkhead_snapshot_t* out) noexcept {
    *out = {};
    const auto found = link_of(host).published(name);
    if (!found || !found->memory) return false;
    *out = {found->memory->data(), found->size, found->version,
            new std::shared_ptr<const ipc::shared_memory>(found->memory)};
    return true;
  }

  static void release_published(const bulkhead_host_t*, bulkhead_snapshot_t* snapshot) noexcept {
    delete static_cast<std::shared_ptr<const ipc::shared_memory>*>(snapshot->owner);
    *snapshot = {};
  }

  static std::size_t blob_threshold(const bulkhead_host_t* host) noexcept { return link_of(host).blob_threshold(); }

  static void leave(const bulkhead_host_t* host, const char* why, std::size_t size) noexcept {
    link_of(host).leave(ipc::sanitised({why, size}, 1024));
  }

  static const void* get_extension(const bulkhead_host_t* host, const char* id) noexcept {
    static constexpr bulkhead_send_handles_t send_handles{attach};
    static constexpr bulkhead_handles_t handles{emit_handles, call_with_handles, take_answered};
    static constexpr bulkhead_leave_t leaving{leave};
    static constexpr bulkhead_bulk_t bulk{blob_threshold};
    static constexpr bulkhead_published_t published{open_published, release_published};
    static constexpr bulkhead_streams_t streams{item_limit, send, receive, end};
    if (std::strcmp(id, BULKHEAD_STREAMS) == 0) return &streams;
    if (std::strcmp(id, BULKHEAD_HANDLES) == 0) return &handles;
    if (std::strcmp(id, BULKHEAD_LEAVE) == 0) return &leaving;
    if (std::strcmp(id, BULKHEAD_BULK) == 0) return &bulk;
    if (std::strcmp(id, BULKHEAD_PUBLISHED) == 0) return &published;
    if (link_of(host).may_send_handles() && std::strcmp(id, BULKHEAD_SEND_HANDLES) == 0) return &send_handles;
    return nullptr;
  }
};

bulkhead_host_t plugin_runtime::functions_for(link& link) {
  return {BULKHEAD_ABI_VERSION,      &link,
          functions::reply,          functions::fail,
          functions::progress,       functions::cancelled,
          functions::remaining_ns,   functions::log,
          functions::emit,           functions::call_host,
          functions::release_answer, functions::take_handle,
          functions::create_blob,    functions::open_blob,
          functions::release_blob,   functions::get_extension};
}

}  // namespace bulkhead
