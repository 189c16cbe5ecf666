// An author's plugin, for the tests of the harness.
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");

BULKHEAD_PLUGIN("harness_plugin", "1.0.0") {
  plugin.method("mean", [](const std::vector<double>& values) {
    double sum = 0;
    for (const double each : values) sum += each;
    return sum / static_cast<double>(values.size());
  });
  // Five steps, each with a look at the host.
  plugin.method("steps", [](bulkhead::context& cx) {
    for (int i = 0; i < 5; ++i) cx.throw_if_cancelled();
    return std::string("done");
  });
  // Asks the application, and makes do without.
  plugin.method("price", [](bulkhead::context& cx, const std::string& what) {
    try {
      return cx.call_host<int>("lookup", what);
    } catch (const bulkhead::cancelled_error&) {
      throw;
    } catch (const bulkhead::error& e) {
      cx.log(std::string("no price: ") + e.what());
      return -1;
    }
  });
  plugin.method("blob", [](bulkhead::context& cx, std::size_t size) { return cx.create_blob(size); });
  plugin.method("emits", [](bulkhead::context& cx) { return cx.emit("event", 1); });
  plugin.method("given", [](const bulkhead::handle& file) { return file.fd() >= 0; });
  plugin.method("twice", [](bulkhead::context& cx) {
    const char nil = '\xc0';
    cx.raw()->reply(cx.raw(), cx.call(), &nil, 1);
  });
  plugin.method("crash", [] { __builtin_trap(); });
}
