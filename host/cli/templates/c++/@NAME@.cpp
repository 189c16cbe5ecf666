// The plugin @NAME@. `bulkhead inspect` shows its methods as they are declared here.
#include <bulkhead/sdk.hpp>

#include <numeric>
#include <string>
#include <vector>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Says what @NAME@ is for");
// What the plugin needs beyond computing is asked for here, a line each; the application's policy decides:
// BULKHEAD_MANIFEST(zones, "request=read:/usr/share/zoneinfo");

BULKHEAD_PLUGIN("@NAME@", "0.1.0") {
  plugin.method("greet", [](const std::string& name) { return "Hello, " + name + "!"; }, "A greeting", {"name"})
      .idempotent();

  plugin
      .method("mean",
              [](bulkhead::context& cx, const std::vector<double>& values) {
                if (values.empty()) throw bulkhead::error("the mean of nothing");
                double sum = 0;
                for (const double each : values) {
                  cx.throw_if_cancelled();  // in each loop that may run for long
                  sum += each;
                }
                return sum / static_cast<double>(values.size());
              },
              "Arithmetic mean", {"values"})
      .idempotent();
}
