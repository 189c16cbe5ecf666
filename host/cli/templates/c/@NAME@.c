/* The plugin @NAME@, in C11 against bulkhead/plugin.h. Arguments come as one MessagePack array and results leave as one
 * MessagePack value; the few kinds used here are read and written by hand. */
#include <bulkhead/plugin.h>

#include <stdlib.h>
#include <string.h>

BULKHEAD_MANIFEST_BEGIN("@NAME@", "0.1.0");
BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Says what @NAME@ is for");

/* An instance: what the worker sees of it, and the worker it belongs to. */
struct instance {
  bulkhead_plugin_t plugin;
  const bulkhead_host_t* host;
};

static const bulkhead_host_t* host_of(const bulkhead_plugin_t* plugin) {
  return ((const struct instance*)plugin->plugin_data)->host;
}

static void fail(const bulkhead_plugin_t* plugin, bulkhead_call_t* call, const char* text) {
  const bulkhead_host_t* host = host_of(plugin);
  host->fail(host, call, text, strlen(text), NULL, 0);
}

/* --- MessagePack ------------------------------------------------------------------------------------------------ */

/* Reads from the front. After the first thing that is not as wanted, `ok` is false and stays so. */
struct reader {
  const uint8_t* at;
  size_t left;
  bool ok;
};

static uint64_t take(struct reader* in, size_t bytes) { /* a big-endian number */
  uint64_t value = 0;
  if (in->left < bytes) in->ok = false;
  if (!in->ok) return 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | in->at[i];
  in->at += bytes;
  in->left -= bytes;
  return value;
}

static size_t take_array(struct reader* in) { /* the number of its elements, which follow */
  const uint8_t head = (uint8_t)take(in, 1);
  if ((head & 0xf0) == 0x90) return head & 0x0f;
  if (head == 0xdc) return (size_t)take(in, 2);
  in->ok = false;
  return 0;
}

static int64_t take_int(struct reader* in) {
  const uint8_t head = (uint8_t)take(in, 1);
  if (head <= 0x7f) return head;
  if (head >= 0xe0) return (int8_t)head;
  switch (head) {
    case 0xcc: return (int64_t)take(in, 1);
    case 0xcd: return (int64_t)take(in, 2);
    case 0xce: return (int64_t)take(in, 4);
    case 0xcf: {
      const uint64_t value = take(in, 8);
      if (value > INT64_MAX) in->ok = false;
      return (int64_t)value;
    }
    case 0xd0: return (int8_t)take(in, 1);
    case 0xd1: return (int16_t)take(in, 2);
    case 0xd2: return (int32_t)take(in, 4);
    case 0xd3: return (int64_t)take(in, 8);
    default: in->ok = false; return 0;
  }
}

static const char* take_str(struct reader* in, size_t* size) { /* not zero-terminated */
  const uint8_t head = (uint8_t)take(in, 1);
  if ((head & 0xe0) == 0xa0) *size = head & 0x1f;
  else if (head == 0xd9) *size = (size_t)take(in, 1);
  else if (head == 0xda) *size = (size_t)take(in, 2);
  else if (head == 0xdb) *size = (size_t)take(in, 4);
  else in->ok = false;
  if (in->ok && in->left < *size) in->ok = false;
  if (!in->ok) return NULL;
  const char* text = (const char*)in->at;
  in->at += *size;
  in->left -= *size;
  return text;
}

static size_t put_number(uint8_t* out, uint8_t head, uint64_t value, int bytes) {
  *out++ = head;
  for (int i = bytes - 1; i >= 0; --i) *out++ = (uint8_t)(value >> (8 * i));
  return 1 + (size_t)bytes;
}

/* --- the methods ------------------------------------------------------------------------------------------------- */

static void greet(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                  const uint8_t* arguments, size_t size) {
  (void)method;
  struct reader in = {arguments, size, true};
  size_t length = 0;
  const size_t count = take_array(&in);
  const char* name = count == 1 ? take_str(&in, &length) : NULL;
  if (!name) {
    fail(plugin, call, "greet: takes 1 argument: str name");
    return;
  }
  static const char before[] = "Hello, ", after[] = "!";
  const size_t text = sizeof before - 1 + length + sizeof after - 1;
  uint8_t* out = text <= UINT32_MAX ? malloc(5 + text) : NULL;
  if (!out) {
    fail(plugin, call, "out of memory");
    return;
  }
  uint8_t* end = out + put_number(out, 0xdb, text, 4);
  memcpy(end, before, sizeof before - 1), end += sizeof before - 1;
  memcpy(end, name, length), end += length;
  memcpy(end, after, sizeof after - 1);
  host_of(plugin)->reply(host_of(plugin), call, out, 5 + text);
  free(out);
}

static void sum(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                const uint8_t* arguments, size_t size) {
  (void)method;
  struct reader in = {arguments, size, true};
  const size_t count = take_array(&in);
  const int64_t a = count == 2 ? take_int(&in) : 0;
  const int64_t b = count == 2 ? take_int(&in) : 0;
  if (count != 2 || !in.ok) {
    fail(plugin, call, "sum: takes 2 arguments: int a, int b");
    return;
  }
  if ((b > 0 && a > INT64_MAX - b) || (b < 0 && a < INT64_MIN - b)) {
    fail(plugin, call, "sum: the result is no 64-bit integer");
    return;
  }
  uint8_t out[9];
  host_of(plugin)->reply(host_of(plugin), call, out, put_number(out, 0xd3, (uint64_t)(a + b), 8));
}

/* --- the plugin -------------------------------------------------------------------------------------------------- */

static bool init(const bulkhead_plugin_t* plugin, const char** error) {
  (void)plugin, (void)error;
  return true;
}

static void destroy(const bulkhead_plugin_t* plugin) { free(plugin->plugin_data); }

static const bulkhead_method_t methods[] = {
    {"greet", "(str name) -> str", "A greeting", BULKHEAD_METHOD_IDEMPOTENT, NULL, greet},
    {"sum", "(int a, int b) -> int", "The sum", BULKHEAD_METHOD_IDEMPOTENT, NULL, sum},
};

static const bulkhead_plugin_t* create(const bulkhead_host_t* host) {
  struct instance* self = malloc(sizeof *self);
  if (!self) return NULL;
  self->host = host;
  self->plugin = (bulkhead_plugin_t){self, methods, sizeof methods / sizeof methods[0], init, destroy, NULL};
  return &self->plugin;
}

BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;
const bulkhead_entry_t bulkhead_entry = {BULKHEAD_ABI_VERSION, create};
