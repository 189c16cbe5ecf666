// The smallest plugin: gives back what it gets. Benchmarks measure a call with it, tests use it as the good neighbour.
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Gives back what it gets");

BULKHEAD_PLUGIN("echo", "1.0.0") {
  plugin.method("echo", [](const msgpack::object& value) { return value; }, "The value itself", {"value"}).idempotent();
  plugin.method("add", [](std::int64_t a, std::int64_t b) { return a + b; }, "The sum", {"a", "b"}).idempotent();
  plugin.method("size", [](bulkhead::bytes_view data) { return data.size(); }, "How many bytes it got", {"data"})
      .idempotent();
}
