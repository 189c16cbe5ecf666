// bh_plugin: what it says of itself, how it is, and what can be done to it. Calls are in call.cpp.
#include "objects.hpp"
#include <bulkhead/metrics.hpp>

using namespace bulkhead::c_api;
using json = nlohmann::ordered_json;

namespace {

// Runs what gives nothing back: 1, or 0 on failure.
template <class F>
int done(bh_error** error, F body) noexcept {
  return guarded(error, 0, [&] {
    body();
    return 1;
  });
}

}  // namespace

void bh_plugin_free(bh_plugin* plugin) { delete plugin; }

const char* bh_plugin_name(const bh_plugin* plugin) { return plugin ? plugin->name.c_str() : ""; }

char* bh_plugin_info_json(bh_plugin* plugin, bh_error** error) {
  return guarded(error, static_cast<char*>(nullptr), [&] {
    const bulkhead::plugin_info info = given(plugin, "plugin").plugin.describe();
    json methods = json::array();
    for (const bulkhead::method_info& each : info.methods)
      methods.push_back(
          {{"name", each.name}, {"signature", each.signature}, {"doc", each.doc}, {"idempotent", each.idempotent}});
    return to_caller(to_text({{"id", info.id},
                              {"name", info.name},
                              {"version", info.version},
                              {"license", info.license},
                              {"description", info.description},
                              {"abi", info.abi},
                              {"concurrency", info.concurrency},
                              {"keeps_state", info.keeps_state},
                              {"requests", info.requests},
                              {"methods", methods}}));
  });
}

char* bh_plugin_status_json(bh_plugin* plugin, bh_error** error) {
  return guarded(error, static_cast<char*>(nullptr), [&] {
    const bulkhead::plugin& of = given(plugin, "plugin").plugin;
    json workers = json::array();
    for (const bulkhead::worker_info& each : of.workers())
      workers.push_back({{"pid", each.pid},
                         {"phase", to_string(each.phase)},
                         {"calls", each.outstanding},
                         {"resident_bytes", each.resident_bytes},
                         {"denials", each.violations},
                         {"sandbox", to_string(each.sandbox.level)}});
    const bulkhead::plugin_status status = of.status();
    return to_caller(to_text({{"state", to_string(status.state)},
                              {"reason", status.reason},
                              {"serving", status.serving},
                              {"instances", status.instances},
                              {"waiting", status.waiting},
                              {"workers", workers}}));
  });
}

int bh_plugin_reload(bh_plugin* plugin, const char* file, bh_error** error) {
  return done(error, [&] { given(plugin, "plugin").plugin.reload(given_text(file, "file")); });
}

int bh_plugin_recycle(bh_plugin* plugin, bh_error** error) {
  return done(error, [&] {
    if (!given(plugin, "plugin").plugin.recycle())
      throw bulkhead::call_error(bulkhead::outcome::unavailable, "the plugin has no worker to replace");
  });
}

int bh_plugin_reset(bh_plugin* plugin, bh_error** error) {
  return done(error, [&] { given(plugin, "plugin").plugin.reset(); });
}

void bh_plugin_unload(bh_plugin* plugin) {
  if (plugin) guarded([&] { plugin->plugin.unload(); });
}

void* bh_plugin_save_state(bh_plugin* plugin, size_t* size, bh_error** error) {
  return guarded(error, static_cast<void*>(nullptr),
                 [&] { return to_caller(given(plugin, "plugin").plugin.save_state(), size); });
}

void bh_plugin_on_event(bh_plugin* plugin, bh_event_callback callback, void* context) {
  if (!plugin) return;
  guarded([&] {
    if (!callback) return plugin->plugin.on_event({});
    plugin->plugin.on_event([callback, context](const std::string& name, const msgpack::object& value) {
      const auto bytes = packed(value);
      callback(context, name.c_str(), bytes.data(), bytes.size());
    });
  });
}

void bh_plugin_on_event_with_handles(bh_plugin* plugin, bh_event_handles_callback callback, void* context) {
  if (!plugin) return;
  guarded([&] {
    if (!callback) return plugin->plugin.on_event({});
    plugin->plugin.on_event_with_handles([callback, context](const std::string& name, const msgpack::object& value,
                                                             std::vector<bulkhead::unique_fd>& handles) {
      const auto bytes = packed(value);
      std::vector<int> numbers;
      for (const bulkhead::unique_fd& each : handles) numbers.push_back(each.get());
      callback(context, name.c_str(), bytes.data(), bytes.size(), numbers.data(), numbers.size());
      for (std::size_t i = 0; i < handles.size(); ++i)
        if (numbers[i] < 0) handles[i].release();
    });
  });
}
