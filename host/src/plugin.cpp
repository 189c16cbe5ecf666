// See plugin.hpp. Thin: everything is the pool's.
#include "plugin_pool.hpp"
#include <bulkhead/metrics.hpp>
#include <bulkhead/plugin.hpp>

namespace bulkhead {

plugin_pool& plugin::pool() const {
  if (!pool_) throw std::logic_error("bulkhead::plugin: this handle is empty; it takes one from host::load()");
  return *pool_;
}

reply plugin::call_packed(std::string_view method, packed_arguments arguments, const call_options& options) const {
  return pool().call(method, std::move(arguments), options);
}

void plugin::async_call_packed(std::string_view method, packed_arguments arguments, const call_options& options,
                               std::unique_ptr<reply_handler> handler) const {
  pool().async_call(method, std::move(arguments), options, std::move(handler));
}

streaming_call plugin::open_packed(std::string_view method, packed_arguments arguments,
                                   const call_options& options) const {
  auto stream = pool().open(method, std::move(arguments), options);
  return {pool_, std::move(stream)};
}

void plugin::on_event(std::function<void(const std::string&, const msgpack::object&)> handler) const {
  if (!handler) return on_event_with_handles({});
  on_event_with_handles([handler = std::move(handler)](const std::string& name, const msgpack::object& value,
                                                       std::vector<unique_fd>&) { handler(name, value); });
}
void plugin::on_event_with_handles(
    std::function<void(const std::string&, const msgpack::object&, std::vector<unique_fd>&)> handler) const {
  pool().on_event(std::move(handler));
}

shared_blob plugin::make_blob(std::size_t size) const { return shared_blob(pool().arguments().make_or_throw(size)); }
std::shared_ptr<blob_source> plugin::blobs() const { return pool().arguments().shared_from_this(); }

plugin_info plugin::describe() const { return pool().describe(); }
std::vector<worker_info> plugin::workers() const { return pool().workers(); }
plugin_status plugin::status() const { return pool().status(); }
plugin_metrics plugin::metrics() const { return pool().metrics(); }
void plugin::reset() const { pool().reset(); }
bool plugin::recycle(std::optional<pid_t> pid) const { return pool().recycle(pid); }
std::vector<std::uint8_t> plugin::save_state() const { return pool().save_state(); }
void plugin::reload(const std::filesystem::path& file) const { pool().reload(file); }
void plugin::unload() const { pool().unload(); }
boost::asio::any_io_executor plugin::handler_executor() const { return pool().core().handlers(); }

std::string_view to_string(enum plugin_status::state value) {
  using state = enum plugin_status::state;
  switch (value) {
    case state::running: return "running";
    case state::half_open: return "half open";
    case state::gave_up: return "given up";
    case state::quarantined: return "quarantined";
    case state::ended: return "ended";
    case state::stopped: return "stopped";
    case state::unloaded: return "unloaded";
  }
  return "unknown";
}

// --- what workers say of themselves ---------------------------------------------------------------------------------

constexpr std::size_t most_described = 4096;  // methods, requests

plugin_info read_description(const msgpack::object& value) {
  plugin_info info;
  auto text = [](const msgpack::object& object, std::size_t limit = 1024) {
    return object.type == msgpack::type::STR ? ipc::sanitised({object.via.str.ptr, object.via.str.size}, limit)
                                             : std::string();
  };
  auto each = [&](const msgpack::object& map, auto&& take) {
    if (map.type != msgpack::type::MAP) return;
    for (const auto& [key, field] : std::span(map.via.map.ptr, map.via.map.size)) take(text(key), field);
  };
  each(value, [&](const std::string& key, const msgpack::object& field) {
    if (key == "id") info.id = text(field);
    else if (key == "name") info.name = text(field);
    else if (key == "version") info.version = text(field);
    else if (key == "license") info.license = text(field);
    else if (key == "description") info.description = text(field);
    else if (key == "abi" && field.type == msgpack::type::POSITIVE_INTEGER)
      info.abi = static_cast<unsigned>(field.via.u64);
    else if (key == "concurrency" && field.type == msgpack::type::POSITIVE_INTEGER)
      info.concurrency = static_cast<unsigned>(std::clamp<std::uint64_t>(field.via.u64, 1, 1024));
    else if (key == "state") info.keeps_state = field.type == msgpack::type::BOOLEAN && field.via.boolean;
    if (field.type != msgpack::type::ARRAY || (key != "requests" && key != "methods")) return;
    if (field.via.array.size > most_described)
      throw std::length_error("more than " + std::to_string(most_described) + " " + key);
    for (const msgpack::object& item : std::span(field.via.array.ptr, field.via.array.size)) {
      if (key == "requests") {
        info.requests.push_back(text(item));
        continue;
      }
      method_info method;
      each(item, [&](const std::string& name, const msgpack::object& part) {
        if (name == "name") method.name = text(part, 256);
        else if (name == "signature") method.signature = text(part);
        else if (name == "doc") method.doc = text(part);
        else if (name == "idempotent") method.idempotent = part.type == msgpack::type::BOOLEAN && part.via.boolean;
      });
      info.methods.push_back(std::move(method));
    }
  });
  return info;
}

namespace {

thread_local ipc::time_point lent_until = ipc::never;  // of the function that runs on this thread

}  // namespace

ipc::time_point current_deadline() { return lent_until; }

ipc::completion run_function(const functions& table, const std::string& name, ipc::byte_span arguments,
                             std::vector<unique_fd>& handles, ipc::time_point deadline) {
  const auto* function = table.find(name);
  if (!function)
    return ipc::completion::failed(outcome::rejected, "the application lends no function '" +
                                                          ipc::sanitised(name, 128) +
                                                          "' to this plugin (load_options::functions)");
  if (deadline <= ipc::clock::now())
    return ipc::completion::failed(outcome::timeout, "the deadline of the call passed before '" +
                                                         ipc::sanitised(name, 128) + "' began in the application");
  struct scope {  // an in-process plugin's function may call a plugin whose function is called in turn
    ipc::time_point outer = lent_until;
    ~scope() { lent_until = outer; }
  } const restored;
  lent_until = std::min(deadline, restored.outer);
  try {
    const msgpack::object_handle handle = ipc::unpack(arguments);
    ipc::completion done;
    passed_handles passed{std::move(handles), {}};
    try {
      done.frame = (*function)(handle.get(), passed).take();
    } catch (...) {
      handles = std::move(passed.in);
      throw;
    }
    handles = std::move(passed.in);
    if (!passed.out.empty()) {  // one that is not referred to would be taken for another message's
      ipc::scanner counting(ipc::limits{});
      std::size_t used = 0;
      counting.feed(done.frame, used);
      if (passed.out.size() > ipc::limits{}.handles || counting.handles() != passed.out.size())
        throw std::runtime_error("the result does not refer to each of its descriptors once, or has more than " +
                                 std::to_string(ipc::limits{}.handles));
      done.handles = std::move(passed.out);
    }
    done.result_size = done.frame.size();
    return done;
  } catch (const type_mismatch& mismatch) {
    return ipc::completion::failed(outcome::rejected, mismatch.what());
  } catch (const std::exception& e) {
    return ipc::completion::failed(outcome::plugin_error, e.what());
  } catch (...) {
    return ipc::completion::failed(outcome::plugin_error, "an exception that is not a std::exception");
  }
}

}  // namespace bulkhead
