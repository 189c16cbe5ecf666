// JSON as MessagePack, and back, for users of the C API.
#include "objects.hpp"
#include "values/arguments.hpp"
#include "values/from_msgpack.hpp"
#include "values/to_msgpack.hpp"

namespace bulkhead::c_api {

nlohmann::ordered_json parse_json(std::string_view text, const char* name) {
  const auto not_too_deep = [&](int depth, nlohmann::ordered_json::parse_event_t, const nlohmann::ordered_json&) {
    if (depth > static_cast<int>(ipc::limits{}.depth)) throw misuse(std::string(name) + ": nested too deep");
    return true;
  };
  auto value = nlohmann::ordered_json::parse(text, not_too_deep, false);
  if (value.is_discarded()) throw misuse(std::string(name) + ": not JSON");
  return value;
}

}  // namespace bulkhead::c_api

using namespace bulkhead::c_api;

void* bh_from_json(const char* text, size_t* size, bh_error** error) {
  return guarded(error, static_cast<void*>(nullptr), [&] {
    const auto value = parse_json(given_text(text, "json"), "json");
    bulkhead::packed_arguments out;
    try {
      bulkhead::cli::value_packer(out).pack({}, value);
    } catch (const bulkhead::cli::argument_error& e) {
      throw misuse(e.what());
    }
    return to_caller(out.params.view(), size);
  });
}

char* bh_to_json(const void* value, size_t size, bh_error** error) {
  return guarded(error, static_cast<char*>(nullptr), [&] {
    const msgpack::object_handle read = bulkhead::ipc::unpack(one_value(value, size, "value"));
    return to_caller(bulkhead::cli::compact(bulkhead::cli::from_msgpack(read.get(), bulkhead::cli::bytes_as::base64)));
  });
}
