// Crashes in a function that was inlined into one that was inlined.
#include <bulkhead/sdk.hpp>

namespace {

volatile std::uintptr_t nowhere = 0;

[[gnu::always_inline]] inline void innermost(std::uintptr_t where) { *reinterpret_cast<volatile int*>(where) = 1; }

[[gnu::always_inline]] inline void in_between(std::uintptr_t where) { innermost(where + 8); }

[[gnu::noinline]] int not_inlined(std::uintptr_t where) {
  in_between(where + 8);
  return static_cast<int>(where);
}

}  // namespace

BULKHEAD_PLUGIN("inlined", "1.0.0") {
  plugin.method(
      "crash", [] { return not_inlined(nowhere) + 1; }, "Writes to address 16");
}
