// Tells what its worker's thread has allocated, if counted_malloc.cpp was preloaded.
#include <bulkhead/sdk.hpp>

#include <dlfcn.h>

BULKHEAD_PLUGIN("counting", "1.0.0") {
  using counter = std::uint64_t (*)();
  const auto count = reinterpret_cast<counter>(::dlsym(RTLD_DEFAULT, "bulkhead_test_allocations"));
  plugin.method("allocations", [count] {
    if (!count) throw bulkhead::error("nobody counts");
    return count();
  });
  plugin.method("add", [](int a, int b) { return a + b; });
  plugin.method("add_by_a_name_of_some_length", [](int a, int b) { return a + b; });
  plugin.method("text", [](std::string_view text, std::optional<double>) { return text.size(); });
}
