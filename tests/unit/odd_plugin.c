/* Plugins that keep one rule of bulkhead/plugin.h less each: see CMakeLists.txt, which compiles this once for each. */
#include <bulkhead/plugin.h>

BULKHEAD_MANIFEST_BEGIN("odd", "1.0.0");

static void invoke(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                   const uint8_t* arguments, size_t size) {
  (void)plugin, (void)method, (void)call, (void)arguments, (void)size;
}

#ifndef SECOND_NAME
#define SECOND_NAME "two"
#endif
#ifndef SECOND_INVOKE
#define SECOND_INVOKE invoke
#endif
#ifndef ABI
#define ABI BULKHEAD_ABI_VERSION
#endif
#ifndef PLUGIN
#define PLUGIN &plugin
#endif
#ifndef ENTRY
#define ENTRY bulkhead_entry
#endif

static const bulkhead_method_t methods[] = {
    {"one", "() -> nil", "", 0, NULL, invoke},
    {SECOND_NAME, "() -> nil", "", 0, NULL, SECOND_INVOKE},
};
static const bulkhead_plugin_t plugin __attribute__((unused)) = {NULL, methods, 2, NULL, NULL, NULL};

static const bulkhead_plugin_t* create(const bulkhead_host_t* host) {
  (void)host;
  return PLUGIN;
}

BULKHEAD_EXPORT extern const bulkhead_entry_t ENTRY;
const bulkhead_entry_t ENTRY = {ABI, create};
