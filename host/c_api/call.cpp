// Calls of the C API: synchronous, asynchronous, with JSON; replies, and cancelling.
#include "objects.hpp"
#include "values/arguments.hpp"
#include "values/from_msgpack.hpp"
#include "values/signature.hpp"
#include "values/to_msgpack.hpp"

namespace bulkhead::c_api {
namespace {

using json = nlohmann::ordered_json;

// A text stands for a descriptor on the command line alone: here it might be anybody's, and name any file.
cli::type without_files(cli::type from) {
  if (from.kind == cli::kind::handle) return {};
  for (cli::type& each : from.of) each = without_files(each);
  return from;
}

// Packs a JSON array as the method's signature has it; as it stands when that says nothing.
ipc::buffer pack_json(const plugin& target, const std::string& method, std::string_view text) {
  const json list = parse_json(text, "arguments");
  if (!list.is_array()) throw misuse("arguments: not a JSON array");
  cli::signature wanted;
  for (const method_info& each : target.describe().methods)
    if (each.name == method) wanted = cli::parse_signature(each.signature).value_or(cli::signature{});
  packed_arguments out;
  cli::value_packer packer(out);
  packer.begin(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    try {
      packer.pack(i < wanted.parameters.size() ? without_files(wanted.parameters[i].type) : cli::type{}, list[i]);
    } catch (const cli::argument_error& e) {
      throw call_error(outcome::rejected, "argument " + std::to_string(i + 1) + " of '" + method + "': " + e.what());
    }
  }
  return std::move(out.params);
}

reply call(bh_plugin* plugin, const char* method, packed_arguments arguments, const bh_call_options* options) {
  const call_options how = read_call_options(options).first;
  reply done = given(plugin, "plugin").plugin.call_packed(given_text(method, "method"), std::move(arguments), how);
  done.throw_if_failed();
  return done;
}

std::string json_of(const reply& done) {
  const msgpack::object_handle value = ipc::unpack(done.raw());
  return cli::compact(cli::from_msgpack(value.get(), cli::bytes_as::base64));
}

// Hands the end of a call to the application, on a handler thread.
struct teller {
  bh_done_callback done;
  void* context;
  std::shared_ptr<progress> shown;
  void operator()(const boost::system::error_code&, reply&& result) const noexcept {
    bh_error* error = nullptr;
    bh_reply* made = nullptr;
    if (shown) shown->end();
    if (!result) error = error_of(result);
    else made = guarded(&error, made, [&] { return new bh_reply{std::move(result)}; });
    done(context, made, error);
  }
};

}  // namespace
}  // namespace bulkhead::c_api

using namespace bulkhead::c_api;

bh_cancel* bh_cancel_new(void) {
  return guarded(nullptr, static_cast<bh_cancel*>(nullptr), [] { return new bh_cancel; });
}
void bh_cancel_request(bh_cancel* cancel) {
  if (cancel) cancel->source.request_stop();
}
void bh_cancel_free(bh_cancel* cancel) { delete cancel; }

const void* bh_reply_value(const bh_reply* reply, size_t* size) {
  if (size) *size = 0;
  return guarded(nullptr, static_cast<const void*>(nullptr), [&]() -> const void* {
    const bulkhead::ipc::byte_span value = given(reply, "reply").reply.raw();
    if (size) *size = value.size();
    return value.data();
  });
}
char* bh_reply_json(const bh_reply* reply, bh_error** error) {
  return guarded(error, static_cast<char*>(nullptr), [&] { return to_caller(json_of(given(reply, "reply").reply)); });
}
size_t bh_reply_handle_count(const bh_reply* reply) { return reply ? reply->reply.handle_count() : 0; }
int bh_reply_handle(const bh_reply* reply, size_t index) {
  return guarded(nullptr, -1, [&] { return given(reply, "reply").reply.handle(index).release(); });
}
bh_blob* bh_reply_blob(const bh_reply* reply, bh_error** error) {
  return guarded(error, static_cast<bh_blob*>(nullptr),
                 [&] { return new bh_blob{given(reply, "reply").reply.blob()}; });
}
void bh_reply_free(bh_reply* reply) { delete reply; }

bh_reply* bh_plugin_call(bh_plugin* plugin, const char* method, const void* arguments, size_t size,
                         const bh_call_options* options, bh_error** error) {
  return guarded(error, static_cast<bh_reply*>(nullptr), [&] {
    auto packed = read_arguments(given(plugin, "plugin").plugin, arguments, size, options);
    return new bh_reply{call(plugin, method, std::move(packed), options)};
  });
}

char* bh_plugin_call_json(bh_plugin* plugin, const char* method, const char* arguments, const bh_call_options* options,
                          bh_error** error) {
  return guarded(error, static_cast<char*>(nullptr), [&] {
    const bulkhead::plugin& target = given(plugin, "plugin").plugin;
    bulkhead::packed_arguments packed = read_arguments(target, nullptr, 0, options);
    if (!packed.blobs.empty()) throw misuse("options.blobs: JSON has no way to refer to them");
    packed.params = pack_json(target, std::string(given_text(method, "method")), arguments ? arguments : "[]");
    return to_caller(json_of(call(plugin, method, std::move(packed), options)));
  });
}

int bh_plugin_call_async(bh_plugin* plugin, const char* method, const void* arguments, size_t size,
                         const bh_call_options* options, bh_done_callback done, void* context, bh_error** error) {
  return guarded(error, 0, [&] {
    const bulkhead::plugin& target = given(plugin, "plugin").plugin;
    given(done, "done");
    using carrier = bulkhead::detail::handler_carrier<bulkhead::reply, teller>;
    auto [how, shown] = read_call_options(options);
    target.async_call_packed(given_text(method, "method"), read_arguments(target, arguments, size, options), how,
                             std::make_unique<carrier>(teller{done, context, shown}, target.handler_executor()));
    return 1;
  });
}
