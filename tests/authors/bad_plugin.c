/* As bad_plugin.cpp, for what the SDK does not let happen: in plain C against the ABI. */
#include <bulkhead/plugin.h>

#include <string.h>

BULKHEAD_MANIFEST_BEGIN("bad", "1.0.0");
BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Bad in one way");

static const bulkhead_host_t* host;

#ifndef SIGNATURE
#define SIGNATURE "(int n) -> int"
#endif

static void work(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                 const uint8_t* arguments, size_t size) {
  (void)plugin, (void)method;
#if defined(NEVER_ANSWERS)
  (void)arguments, (void)size, (void)call;
#elif defined(ANSWERS_GARBAGE)
  (void)arguments, (void)size;
  host->reply(host, call, "\x93\x01", 2);
#elif defined(ANSWERS_OTHER_TYPE)
  (void)arguments, (void)size;
  host->reply(host, call, "\xa2no", 3);
#elif defined(TAKES_ANYTHING)
  (void)arguments, (void)size;
  host->reply(host, call, "\x01", 1);
#else
  if (size == 2 && arguments[0] == 0x91 && arguments[1] <= 0x7f) host->reply(host, call, arguments + 1, 1);
  else host->fail(host, call, "takes 1 argument: int n", 23, NULL, 0);
#endif
}

static const bulkhead_method_t methods[] = {{"work", SIGNATURE, "Works", 0, NULL, work}};
static const bulkhead_plugin_t the_plugin = {NULL, methods, 1, NULL, NULL, NULL};

static const bulkhead_plugin_t* create(const bulkhead_host_t* given) {
  host = given;
  return &the_plugin;
}

BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;
const bulkhead_entry_t bulkhead_entry = {BULKHEAD_ABI_VERSION, create};
