// See plugin_runtime.hpp.
#include "plugin_runtime.hpp"

#include <bulkhead/ipc/scanner.hpp>

#include <boost/dll/shared_library.hpp>

#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>

#include <dlfcn.h>
#include <fcntl.h>

namespace bulkhead {

struct plugin_runtime::library {
  boost::dll::shared_library file;
};

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

// A blob made by the plugin where there is no memory shared with the host.
struct private_blob {
  std::unique_ptr<std::uint8_t[]> bytes;
};

// Callers find methods by name: each must have one of its own.
void check_methods(const bulkhead_plugin_t& plugin) {
  constexpr std::size_t most = 4096;  // docs/protocol.md
  if (plugin.method_count > most)
    throw std::runtime_error("it has " + std::to_string(plugin.method_count) + " methods, more than " +
                             std::to_string(most));
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < plugin.method_count; ++i) {
    const bulkhead_method_t& method = plugin.methods[i];
    if (!method.name || !*method.name)
      throw std::runtime_error("its method number " + std::to_string(i + 1) + " has no name");
    const std::string named = "method '" + ipc::sanitised(method.name, 128) + "'";
    if (std::string_view(method.name).starts_with("$/"))
      throw std::runtime_error("its " + named + " has a reserved name");
    if (!method.invoke) throw std::runtime_error("its " + named + " has no function");
    if (!names.insert(method.name).second)
      throw std::runtime_error("it has two methods named '" + ipc::sanitised(method.name, 128) + "'");
  }
}

}  // namespace

namespace {
thread_local bool spare_call_gone = false;  // the thread ends
thread_local struct spare_call {
  void* memory = nullptr;
  ~spare_call() {
    ::operator delete(std::exchange(memory, nullptr));
    spare_call_gone = true;
  }
} spare;
}  // namespace

// The functions that the plugin calls. `extern "C"` linkage is not needed for their types to match on any ABI we build
// for; none may let an exception out, since the plugin may be C.
struct plugin_runtime::vtable {
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
    auto* made = new (std::nothrow) private_blob;
    if (made) made->bytes.reset(new (std::nothrow) std::uint8_t[size ? size : 1]);
    if (!made || !made->bytes) {
      delete made;
      return false;
    }
    *blob = {made->bytes.get(), size, {}, 0, made};
    return true;
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
    else delete static_cast<private_blob*>(blob->owner);
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

plugin_runtime::plugin_runtime(link& link)
    : link_(link), host_{BULKHEAD_ABI_VERSION,   &link,
                         vtable::reply,          vtable::fail,
                         vtable::progress,       vtable::cancelled,
                         vtable::remaining_ns,   vtable::log,
                         vtable::emit,           vtable::call_host,
                         vtable::release_answer, vtable::take_handle,
                         vtable::create_blob,    vtable::open_blob,
                         vtable::release_blob,   vtable::get_extension} {}

plugin_runtime::~plugin_runtime() = default;

void plugin_runtime::watch(std::string_view instructions) {
  instrument_ = std::make_unique<instrument>(host_, instrument::read(instructions), release);
}

void plugin_runtime::check(int fd) { manifest_ = read_manifest(fd); }

void plugin_runtime::load(const std::string& path) {
  auto loaded = std::make_unique<library>();
  // Every symbol now rather than in the middle of a call; none leaks into other libraries; never unloaded, since
  // threads of the plugin may still run in it.
  std::error_code failure;
  loaded->file.load(path, failure, static_cast<boost::dll::load_mode::type>(RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
  if (failure) {
    const char* why = ::dlerror();
    throw std::runtime_error("could not load it: " + (why ? std::string(why) : failure.message()));
  }
  if (!loaded->file.has("bulkhead_entry")) throw not_a_plugin("it does not export bulkhead_entry");
  const auto& entry = loaded->file.get<const bulkhead_entry_t>("bulkhead_entry");
  if (entry.abi_version != BULKHEAD_ABI_VERSION || !entry.create)
    throw not_a_plugin("its entry states ABI version " + std::to_string(entry.abi_version) + ", expected " +
                       std::to_string(BULKHEAD_ABI_VERSION));
  plugin_ = entry.create(instrument_ ? instrument_->host() : &host_);
  if (!plugin_) throw std::runtime_error("its create() failed");
  check_methods(*plugin_);
  library_ = std::move(loaded);
}

void plugin_runtime::init() {
  const char* why = nullptr;
  if (plugin_->init && !plugin_->init(plugin_, &why))
    throw std::runtime_error(why ? ipc::sanitised(why) : std::string("its init() failed without saying why"));
  if (!plugin_->get_extension) return;
  state_ = static_cast<const bulkhead_state_t*>(plugin_->get_extension(plugin_, BULKHEAD_STATE));
  reads_blobs_ = plugin_->get_extension(plugin_, BULKHEAD_READS_BLOBS) != nullptr;
}

std::vector<std::uint8_t> plugin_runtime::save_state() {
  if (!state_) throw std::runtime_error("the plugin does not save its state");
  std::vector<std::uint8_t> saved;
  const char* why = nullptr;
  const auto take = [](void* to, const void* state, std::size_t size) {
    const ipc::byte_span bytes = span_of(state, size);
    static_cast<std::vector<std::uint8_t>*>(to)->assign(bytes.begin(), bytes.end());
  };
  if (!state_->save(plugin_, take, &saved, &why))
    throw std::runtime_error(why ? ipc::sanitised(why) : std::string("its save() failed without saying why"));
  return saved;
}

void plugin_runtime::restore_state(ipc::byte_span state) {
  if (!state_) throw std::runtime_error("the plugin does not restore a state");
  const char* why = nullptr;
  if (!state_->restore(plugin_, state.data(), state.size(), &why))
    throw std::runtime_error(why ? ipc::sanitised(why) : std::string("its restore() failed without saying why"));
}

void plugin_runtime::destroy() {
  if (plugin_ && plugin_->destroy) plugin_->destroy(plugin_);
  if (plugin_ && instrument_) instrument_->destroyed();
  plugin_ = nullptr;
}

void plugin_runtime::invoke(std::unique_ptr<bulkhead_call> owned, std::string_view method) {
  bulkhead_call* call = owned.release();
  call->runtime = this;
  for (std::size_t i = 0; i < plugin_->method_count; ++i)
    if (method == plugin_->methods[i].name) call->method = &plugin_->methods[i];

  if (!call->method) {
    std::string known;
    for (std::size_t i = 0; i < plugin_->method_count && known.size() < 1024; ++i)
      known += (i ? ", " : "") + std::string(plugin_->methods[i].name);
    link_.fail(*call,
               {outcome::rejected,
                "no method '" + ipc::sanitised(method, 128) + "' in plugin " + manifest_.id + "; it has: " + known,
                {}});
    delete call;
    return;
  }
  if (call->blobs > 0 && !find_blobs(*call)) {
    link_.fail(*call, {call->cancelled ? outcome::cancelled : outcome::plugin_error,
                       "its arguments are in shared memory that this worker can't map (load_options::memory_limit)",
                       {}});
    delete call;
    return;
  }
  if (on_method) on_method(call->method->name, call->tag);
  auto fail = [&](const std::string& text) {
    if (!call->answered) vtable::fail(&host_, call, text.data(), text.size(), nullptr, 0);
  };
  if (instrument_) {
    ++call->references;
    instrument_->begins(call, call->method->name);
  }
  try {
    call->method->invoke(plugin_, call->method, call, call->arguments.data(), call->arguments.size());
  } catch (const std::exception& e) {
    fail(std::string("an exception left the plugin: ") + e.what());
  } catch (...) {
    fail("an exception left the plugin");
  }
  if (on_method) on_method(nullptr, 0);
  release(call);
}

// Has all blobs of the arguments at hand, and for a plugin that does not look for them puts their bytes in their place.
bool plugin_runtime::find_blobs(bulkhead_call& call) {
  if (reads_blobs_) {
    ipc::byte_span rest = call.arguments;
    while (const auto found = ipc::next_bytes(rest))
      if (const auto reference = ipc::reference_in(*found); reference && !link_.open_blob(call, *reference))
        return false;
    return true;
  }
  bool found_all = true;
  auto plain = ipc::without_references(call.arguments, [&](const ipc::blob_reference& reference) {
    auto bytes = found_all ? link_.open_blob(call, reference) : std::nullopt;
    found_all = bytes.has_value();
    return bytes;
  });
  if (!found_all) return false;
  call.storage.bytes = std::move(plain);
  call.arguments = call.storage.bytes;
  call.blobs = 0;
  return true;
}

// True for the first answer to a call; a second one is the plugin's mistake and changes nothing.
bool plugin_runtime::end(bulkhead_call* call) {
  if (!call->answered.exchange(true)) return true;
  link_.log(BULKHEAD_LOG_WARNING, "the plugin answered a call twice; the second answer was dropped");
  return false;
}

void plugin_runtime::release(bulkhead_call* call) {
  if (--call->references == 0) delete call;
}

void plugin_runtime::pack_description(ipc::packer& packer, unsigned concurrency) const {
  const std::size_t count = plugin_ ? plugin_->method_count : 0;  // before it is loaded it has none
  packer.pack_map(10).pack("state").pack(keeps_state());
  packer.pack("id").pack(manifest_.id).pack("name").pack(manifest_.name.empty() ? manifest_.id : manifest_.name);
  packer.pack("version").pack(manifest_.version).pack("license").pack(manifest_.license);
  packer.pack("description").pack(manifest_.description).pack("abi").pack(manifest_.abi);
  packer.pack("requests").pack(manifest_.requests).pack("concurrency").pack(concurrency);
  packer.pack("methods").pack_array(static_cast<std::uint32_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    const bulkhead_method_t& method = plugin_->methods[i];
    auto text = [](const char* s) { return std::string_view(s ? s : ""); };
    packer.pack_map(4).pack("name").pack(text(method.name)).pack("signature").pack(text(method.signature));
    packer.pack("doc").pack(text(method.doc)).pack("idempotent").pack((method.flags & BULKHEAD_METHOD_IDEMPOTENT) != 0);
  }
}

}  // namespace bulkhead

void* bulkhead_call::operator new(std::size_t size) {
  if (bulkhead::spare.memory) return std::exchange(bulkhead::spare.memory, nullptr);
  return ::operator new(size);
}

void bulkhead_call::operator delete(void* memory) noexcept {
  if (bulkhead::spare.memory || bulkhead::spare_call_gone) ::operator delete(memory);
  else bulkhead::spare.memory = memory;
}
