// See plugin_runtime.hpp.
#include "plugin_runtime.hpp"

#include <boost/dll/shared_library.hpp>

#include <set>
#include <stdexcept>

#include <dlfcn.h>

namespace bulkhead {

struct plugin_runtime::library {
  boost::dll::shared_library file;
};

namespace {

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

thread_local bool spare_call_gone = false;  // the thread ends
thread_local struct spare_call {
  void* memory = nullptr;
  ~spare_call() {
    ::operator delete(std::exchange(memory, nullptr));
    spare_call_gone = true;
  }
} spare;

}  // namespace

plugin_runtime::plugin_runtime(link& link) : link_(link), host_(functions_for(link)) {}

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
    const auto* bytes = static_cast<const std::uint8_t*>(state);
    static_cast<std::vector<std::uint8_t>*>(to)->assign(bytes, bytes + size);
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
    if (!call->answered) host_.fail(&host_, call, text.data(), text.size(), nullptr, 0);
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
