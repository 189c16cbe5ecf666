/* A decoder for Netpbm images (P5, P6) as they are found in the wild: it believes the file's header. A file that claims
 * more pixels than it has makes it read far past the end of its input, and die. The flaw is deliberate: this plugin
 * shows what isolation is for. It is written in plain C11 against bulkhead/plugin.h alone, MessagePack by hand. */
#include <bulkhead/plugin.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

BULKHEAD_MANIFEST_BEGIN("fragile", "1.0.0");
BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Decodes Netpbm images and trusts them too much");

/* An instance: what the worker sees of it, and the worker it belongs to. */
struct fragile {
  bulkhead_plugin_t plugin;
  const bulkhead_host_t* host;
};

static const bulkhead_host_t* host_of(const bulkhead_plugin_t* plugin) {
  return ((const struct fragile*)plugin->plugin_data)->host;
}

static void fail(const bulkhead_plugin_t* plugin, bulkhead_call_t* call, const char* text) {
  const bulkhead_host_t* host = host_of(plugin);
  host->fail(host, call, text, strlen(text), NULL, 0);
}

/* Finds the one bin argument of [bin]. */
static bool bin_argument(const uint8_t* at, size_t size, const uint8_t** data, size_t* length) {
  if (size < 3 || at[0] != 0x91) return false;
  const size_t width = at[1] == 0xc4 ? 1 : at[1] == 0xc5 ? 2 : at[1] == 0xc6 ? 4 : 0;
  if (width == 0 || size < 2 + width) return false;
  size_t n = 0;
  for (size_t i = 0; i < width; ++i) n = n << 8 | at[2 + i];
  if (size - 2 - width < n) return false;
  *data = at + 2 + width;
  *length = n;
  return true;
}

static uint8_t* put_u32(uint8_t* out, uint8_t marker, uint32_t value) {
  *out++ = marker;
  for (int shift = 24; shift >= 0; shift -= 8) *out++ = (uint8_t)(value >> shift);
  return out;
}

struct header {
  int channels;
  long width, height, depth;
  size_t pixels; /* where they begin */
};

static const char* read_header(const uint8_t* data, size_t size, struct header* h) {
  if (size < 3 || data[0] != 'P' || (data[1] != '5' && data[1] != '6')) return "not a P5 or P6 Netpbm image";
  h->channels = data[1] == '6' ? 3 : 1;
  size_t at = 2;
  long* fields[3] = {&h->width, &h->height, &h->depth};
  for (int i = 0; i < 3; ++i) {
    while (at < size &&
           (data[at] == ' ' || data[at] == '\n' || data[at] == '\r' || data[at] == '\t' || data[at] == '#')) {
      if (data[at] == '#')
        while (at < size && data[at] != '\n') ++at;
      else ++at;
    }
    char digits[24] = {0};
    size_t n = 0;
    while (at < size && n + 1 < sizeof digits && ((data[at] >= '0' && data[at] <= '9') || data[at] == '-'))
      digits[n++] = (char)data[at++];
    if (n == 0) return "the header is cut short";
    *fields[i] = strtol(digits, NULL, 10);
  }
  h->pixels = at + 1;
  return h->depth == 255 ? NULL : "only 8-bit images are supported";
}

/* The one bin argument of [bin] and its header; NULL when the call has failed. */
static const uint8_t* image_argument(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method,
                                     bulkhead_call_t* call, const uint8_t* arguments, size_t size, struct header* h) {
  const uint8_t* data = NULL;
  size_t length = 0;
  char usage[64];
  snprintf(usage, sizeof usage, "%s: takes 1 argument: bin", method->name);
  const char* wrong = bin_argument(arguments, size, &data, &length) ? read_header(data, length, h) : usage;
  if (!wrong) return data;
  fail(plugin, call, wrong);
  return NULL;
}

static void info(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                 const uint8_t* arguments, size_t size) {
  struct header h;
  if (!image_argument(plugin, method, call, arguments, size, &h)) return;
  uint8_t out[64], *end = out;
  *end++ = 0x82;
  memcpy(end, "\xa5width", 6), end += 6;
  end = put_u32(end, 0xce, (uint32_t)h.width);
  memcpy(end, "\xa6height", 7), end += 7;
  end = put_u32(end, 0xce, (uint32_t)h.height);
  host_of(plugin)->reply(host_of(plugin), call, out, (size_t)(end - out));
}

/* decode(bin) -> [width, height, bin rgb] */
static void decode(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                   const uint8_t* arguments, size_t size) {
  struct header h;
  const uint8_t* data = image_argument(plugin, method, call, arguments, size, &h);
  if (!data) return;
  const size_t pixels = (size_t)h.width * (size_t)h.height; /* as the file says */
  uint8_t* out = malloc(32 + 3 * pixels);
  uint8_t* end = out;
  *end++ = 0x93;
  end = put_u32(end, 0xce, (uint32_t)h.width);
  end = put_u32(end, 0xce, (uint32_t)h.height);
  end = put_u32(end, 0xc6, (uint32_t)(3 * pixels));
  const uint8_t* from = data + h.pixels; /* and never a look at how much there is */
  for (size_t i = 0; i < pixels; ++i, from += h.channels)
    for (int c = 0; c < 3; ++c) *end++ = from[h.channels == 3 ? c : 0];
  host_of(plugin)->reply(host_of(plugin), call, out, (size_t)(end - out));
  free(out);
}

static bool init(const bulkhead_plugin_t* plugin, const char** error) {
  (void)plugin, (void)error;
  return true;
}

static void destroy(const bulkhead_plugin_t* plugin) { free(plugin->plugin_data); }

static const bulkhead_method_t methods[] = {
    {"decode", "(bin image) -> array", "A Netpbm image as [width, height, rgb]", 0, NULL, decode},
    {"info", "(bin image) -> map", "Width and height of a Netpbm image", BULKHEAD_METHOD_IDEMPOTENT, NULL, info},
};

static const bulkhead_plugin_t* create(const bulkhead_host_t* host) {
  struct fragile* self = malloc(sizeof *self);
  if (!self) return NULL;
  self->host = host;
  self->plugin = (bulkhead_plugin_t){self, methods, sizeof methods / sizeof methods[0], init, destroy, NULL};
  return &self->plugin;
}

BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;
const bulkhead_entry_t bulkhead_entry = {BULKHEAD_ABI_VERSION, create};
