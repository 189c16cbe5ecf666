/* Plugins that are bad in one way each: see CMakeLists.txt, which compiles this once for each. Here is what lies in the
 * file, and what the SDK does not let happen; the rest is in bad_plugin.cpp. */
#include <bulkhead/plugin.h>

#include <time.h>

#include <fcntl.h>
#include <unistd.h>

#if defined(OTHER_ABI_IN_MANIFEST)
BULKHEAD_MANIFEST(abi_, "abi=99");
BULKHEAD_MANIFEST(id_, "id=bad");
BULKHEAD_MANIFEST(version_, "version=1.0.0");
#elif !defined(NO_MANIFEST)
BULKHEAD_MANIFEST_BEGIN("bad", "1.0.0");
#endif
#if !defined(NO_MANIFEST)
#if !defined(NO_LICENCE)
BULKHEAD_MANIFEST(license, "license=MIT");
#endif
BULKHEAD_MANIFEST(description, "description=Bad in one way");
#endif
#if defined(ASKS_FOR_NONSENSE)
BULKHEAD_MANIFEST(odd, "request=fly:/moon");
#endif
#if defined(ASKS_TOO_MUCH)
BULKHEAD_MANIFEST(more, "request=read:/usr/share/zoneinfo");
#endif
#if defined(ASKS_TOO_MUCH) || defined(ASKS_RIGHT)
BULKHEAD_MANIFEST(right, "request=read:/etc/hostname");
#endif
#if defined(LEAVES_LOCK)
BULKHEAD_MANIFEST(lock, "request=create:/var/tmp");
#endif
#if defined(RACES)
BULKHEAD_THREAD_SAFE;
#endif

#if defined(EXPORTS)
BULKHEAD_EXPORT int a_helper_for_all(void);
int a_helper_for_all(void) { return 1; }
#endif
#if defined(UNRESOLVED)
int nobody_has_this(void);
#endif
#ifndef SIGNATURE
#define SIGNATURE "(int n) -> int"
#endif

#define LETTERS "\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc"
#define LOCK "/var/tmp/bulkhead-test-lock" /* which a call that is killed leaves behind */

static const bulkhead_host_t* host;
static volatile uint8_t scratch; /* shared by calls that run at once */

static void work(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                 const uint8_t* arguments, size_t size) {
  (void)plugin, (void)method;
#if defined(UNRESOLVED)
  nobody_has_this();
#elif defined(NEVER_ANSWERS)
  return;
#elif defined(ANSWERS_GARBAGE)
  host->reply(host, call, "\x93\x01", 2);
  return;
#elif defined(ANSWERS_OTHER_TYPE)
  host->reply(host, call, "\xa2no", 3);
  return;
#elif defined(ANSWERS_LONG_TEXT) /* all of it two bytes a letter */
  host->reply(host, call, "\xd9\x50" LETTERS LETTERS LETTERS LETTERS, 82);
  return;
#elif defined(THROWS)            /* in bad_throws.cpp */
  throw 1;
#elif defined(TAKES_ANYTHING)
  host->reply(host, call, "\x01", 1);
  return;
#elif defined(TAKES_MORE)
  if (size >= 2 && arguments[0] > 0x91 && arguments[0] <= 0x9f) { /* more arguments than it has */
    host->reply(host, call, "\x01", 1);
    return;
  }
#elif defined(ASKS_TOO_MUCH) || defined(ASKS_RIGHT)
  close(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
#endif
  if (size != 2 || arguments[0] != 0x91 || arguments[1] > 0x7f) {
    host->fail(host, call, "takes 1 argument: int n", 23, NULL, 0);
    return;
  }
#if defined(LEAVES_LOCK)
  const int lock = open(LOCK, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (lock < 0) {
    host->fail(host, call, "it is locked", 12, NULL, 0);
    return;
  }
  close(lock);
#endif
  scratch = arguments[1];
#if defined(RACES)
  nanosleep(&(struct timespec){0, 50000}, NULL);
#endif
  const uint8_t result = scratch;
  host->reply(host, call, &result, 1);
#if defined(LEAVES_LOCK)
  unlink(LOCK);
#endif
}

#if defined(TEXT_RELOCATIONS)
__asm__(".pushsection .text\n.balign 8\n.quad bulkhead_entry\n.popsection");
#endif

static const bulkhead_method_t methods[] = {{"work", SIGNATURE, "Works", BULKHEAD_METHOD_IDEMPOTENT, NULL, work}};
static const bulkhead_plugin_t the_plugin = {NULL, methods, 1, NULL, NULL, NULL};

static const bulkhead_plugin_t* create(const bulkhead_host_t* given) {
  host = given;
  return &the_plugin;
}

BULKHEAD_EXPORT extern const bulkhead_entry_t bulkhead_entry;
#if defined(OTHER_ABI_IN_ENTRY)
const bulkhead_entry_t bulkhead_entry = {BULKHEAD_ABI_VERSION + 98, create};
#else
const bulkhead_entry_t bulkhead_entry = {BULKHEAD_ABI_VERSION, create};
#endif
