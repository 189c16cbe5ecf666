// Errors of the C API, its version, and what is handed over to the caller.
#include "objects.hpp"
#include "values/from_msgpack.hpp"
#include <bulkhead/ipc/scanner.hpp>

#include <cstdlib>
#include <cstring>
#include <new>

static_assert(static_cast<int>(bulkhead::outcome::rejected) == BH_REJECTED, "the outcomes are the same");
static_assert(static_cast<int>(bulkhead::log_level::error) == BH_ERROR, "the levels are the same");

namespace bulkhead::c_api {
namespace {

// When there is no memory to say so.
bh_error& out_of_memory() {
  static bh_error error{BH_UNAVAILABLE, "out of memory"};
  return error;
}

bh_error* make(outcome code, const std::string& message, const std::vector<std::uint8_t>& data,
               const std::shared_ptr<const crash_report>& report) {
  return new bh_error{static_cast<bh_outcome>(code), message, data, report ? to_json(*report) : ""};
}

bh_error* from_current_exception() {
  try {
    throw;
  } catch (const call_error& e) {
    return make(e.outcome(), e.message(), e.data(), e.report());
  } catch (const std::invalid_argument& e) {
    return new bh_error{BH_MISUSE, e.what()};
  } catch (const std::logic_error& e) {  // streaming_call::send() after close()
    return new bh_error{BH_MISUSE, e.what()};
  } catch (const std::bad_alloc&) {
    return &out_of_memory();
  } catch (const std::exception& e) {
    return new bh_error{BH_UNAVAILABLE, e.what()};
  } catch (...) {
    return new bh_error{BH_UNAVAILABLE, "an exception that is not a std::exception"};
  }
}

}  // namespace

void put_current_exception(bh_error** error) noexcept {
  if (!error) return;
  try {
    *error = from_current_exception();
  } catch (...) {
    *error = &out_of_memory();
  }
}

bh_error* error_of(const reply& failed) noexcept {
  try {
    return make(failed.outcome(), failed.message(), failed.data(), failed.report());
  } catch (...) {
    return &out_of_memory();
  }
}

std::string_view given_text(const char* text, const char* name) { return &given(text, name); }

char* to_caller(std::string_view text) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (!copy) throw std::bad_alloc();
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = 0;
  return copy;
}

void* to_caller(ipc::byte_span bytes, std::size_t* size) {
  given(size, "size");
  char* copy = to_caller({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  *size = bytes.size();
  return copy;
}

ipc::byte_span one_value(const void* data, std::size_t size, const char* name, bool array) {
  const ipc::byte_span bytes(&given(static_cast<const std::uint8_t*>(data), name), size);
  const bool whole = size > 0 && ipc::value_size(bytes) == size;  // what is too large for a channel is refused there
  const bool is_array = whole && ((bytes[0] & 0xf0) == 0x90 || bytes[0] == 0xdc || bytes[0] == 0xdd);
  if (!whole || (array && !is_array))
    throw misuse(std::string(name) + (array ? ": not one MessagePack array" : ": not one MessagePack value"));
  return bytes;
}

std::vector<std::uint8_t> packed(const msgpack::object& value) {
  ipc::buffer out;
  ipc::packer(out).pack(value);
  return out.take();
}

nlohmann::ordered_json report_json(const std::shared_ptr<const crash_report>& report) {
  return report ? nlohmann::ordered_json::parse(to_json(*report)) : nlohmann::ordered_json();
}

std::string to_text(const nlohmann::ordered_json& value) { return cli::compact(value); }

}  // namespace bulkhead::c_api

using namespace bulkhead::c_api;

int bh_version(void) {
  int number = 0;
  for (const char* at = BULKHEAD_VERSION; at; at = std::strchr(at, '.') ? std::strchr(at, '.') + 1 : nullptr)
    number = number * 100 + std::atoi(at);
  return number;
}
const char* bh_version_text(void) { return BULKHEAD_VERSION; }

void bh_free(void* memory) { std::free(memory); }

const char* bh_outcome_name(bh_outcome outcome) {
  if (outcome == BH_MISUSE) return "misuse";
  return bulkhead::to_string(static_cast<bulkhead::outcome>(outcome)).data();  // of literals
}

bh_outcome bh_error_outcome(const bh_error* error) { return error ? error->outcome : BH_OK; }
const char* bh_error_message(const bh_error* error) { return error ? error->message.c_str() : ""; }
const void* bh_error_data(const bh_error* error, size_t* size) {
  const bool some = error && !error->data.empty();
  if (size) *size = some ? error->data.size() : 0;
  return some ? error->data.data() : nullptr;
}
const char* bh_error_report_json(const bh_error* error) {
  return error && !error->report_json.empty() ? error->report_json.c_str() : nullptr;
}
void bh_error_free(bh_error* error) {
  if (error != &out_of_memory()) delete error;
}
