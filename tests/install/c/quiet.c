/* The least that a plugin in C can be. */
#include <bulkhead/plugin.h>

#include <string.h>

BULKHEAD_MANIFEST_BEGIN("quiet", "1.0.0");

static const bulkhead_host_t* host;

static bool init(const bulkhead_plugin_t* plugin, const char** error) { return (void)plugin, (void)error, true; }
static void destroy(const bulkhead_plugin_t* plugin) { (void)plugin; }

static void name(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                 const uint8_t* arguments, size_t size) {
  (void)plugin, (void)method, (void)arguments, (void)size;
  host->reply(host, call, (const uint8_t*)"\xa5quiet", 6);
}

static const bulkhead_method_t methods[] = {{"name", "() -> str", "Its name", 0, NULL, name}};
static const bulkhead_plugin_t plugin = {NULL, methods, 1, init, destroy, NULL};

static const bulkhead_plugin_t* create(const bulkhead_host_t* from) {
  host = from;
  return &plugin;
}

BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;
const bulkhead_entry_t bulkhead_entry = {BULKHEAD_ABI_VERSION, create};
