// A plugin that needs outside_library.c.
#include <bulkhead/sdk.hpp>

extern "C" int bulkhead_test_outside();

BULKHEAD_PLUGIN("needing", "1.0.0") {
  plugin.method("outside", [] { return bulkhead_test_outside(); });
}
