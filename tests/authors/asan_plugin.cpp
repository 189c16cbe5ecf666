// A plugin built with AddressSanitizer, whose flaw nothing else would show.
#include <bulkhead/sdk.hpp>

#include <memory>

BULKHEAD_MANIFEST(license, "license=MIT");

BULKHEAD_PLUGIN("asan_plugin", "1.0.0") {
  plugin.method("at", [](std::size_t index) {
    const auto values = std::make_unique<int[]>(10);
    for (int i = 0; i < 10; ++i) values[i] = i * i;
    return *(const_cast<volatile int*>(values.get()) + index);
  });
}
