// For blobs.cpp: written against the C ABI alone, and knows nothing of blobs.
#include <bulkhead/plugin.h>

#include <cstdint>
#include <vector>

BULKHEAD_MANIFEST_BEGIN("plain_bytes", "1.0.0");
BULKHEAD_MANIFEST(license, "license=MIT");

namespace {

const bulkhead_host_t* worker = nullptr;

// Its one argument, which has to be a bin 32, doubled in length.
void twice(const bulkhead_plugin_t*, const bulkhead_method_t*, bulkhead_call_t* call, const std::uint8_t* arguments,
           std::size_t size) {
  if (size < 6 || arguments[0] != 0x91 || arguments[1] != 0xc6) {
    const char text[] = "the argument is no bin 32";
    return worker->fail(worker, call, text, sizeof text - 1, nullptr, 0);
  }
  const std::size_t length = size - 6, both = 2 * length;
  std::vector<std::uint8_t> result{0xc6, static_cast<std::uint8_t>(both >> 24), static_cast<std::uint8_t>(both >> 16),
                                   static_cast<std::uint8_t>(both >> 8), static_cast<std::uint8_t>(both)};
  for (int i = 0; i < 2; ++i) result.insert(result.end(), arguments + 6, arguments + size);
  worker->reply(worker, call, result.data(), result.size());
}

// Refers to a blob that does not exist.
void lie(const bulkhead_plugin_t*, const bulkhead_method_t*, bulkhead_call_t* call, const std::uint8_t*, std::size_t) {
  const std::uint8_t result[24] = {0xc7, 21, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};
  worker->reply(worker, call, result, sizeof result);
}

const bulkhead_method_t methods[] = {{"twice", "(bin) -> bin", "", 0, nullptr, twice},
                                     {"lie", "() -> bin", "", 0, nullptr, lie}};
const bulkhead_plugin_t plugin{nullptr, methods, 2, nullptr, nullptr, nullptr};

}  // namespace

extern "C" {
BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;
const bulkhead_entry_t bulkhead_entry{BULKHEAD_ABI_VERSION, [](const bulkhead_host_t* host) {
                                        worker = host;
                                        return &plugin;
                                      }};
}
