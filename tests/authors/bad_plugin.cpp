// Plugins that are bad in one way each: see CMakeLists.txt, which compiles this once for each. `bulkhead check` has to find
// every one of them; the one without a flaw shows that it is the flaw which is found.
#include <bulkhead/sdk.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>

#if !defined(NO_LICENCE)
BULKHEAD_MANIFEST(license, "license=MIT");
#endif
BULKHEAD_MANIFEST(description, "description=Bad in one way");
#if defined(ASKS_FOR_NONSENSE)
BULKHEAD_MANIFEST(odd, "request=fly:/moon");
#endif
#if defined(ASKS_TOO_MUCH)
BULKHEAD_MANIFEST(more, "request=read:/usr/share/zoneinfo");
#endif
#if defined(ASKS_RIGHT)
BULKHEAD_MANIFEST(right, "request=read:/etc/hostname");
#endif
#if defined(RACES)
BULKHEAD_THREAD_SAFE;
#endif

#if defined(EXPORTS)
extern "C" __attribute__((visibility("default"))) int a_helper_for_all();
extern "C" int a_helper_for_all() { return 1; }
#endif
#if defined(UNRESOLVED)
extern "C" int nobody_has_this();
static int (*volatile wanted)() = nobody_has_this;
#endif

namespace {

#if defined(LEAKS_MEMORY) || defined(LEAKS_LITTLE)
void* volatile kept;
#endif
#if defined(RACES)
int scratch;  // shared by calls that run at once
#endif

std::int64_t work([[maybe_unused]] bulkhead::context& cx, std::int64_t n, [[maybe_unused]] const std::string& text) {
#if defined(CRASHES)
  if (n == INT32_MIN) std::raise(SIGSEGV);
#elif defined(EXITS)
  if (text.size() > 100) std::exit(3);
#elif defined(LEAKS_MEMORY)
  kept = std::malloc(10'000);
  std::memset(kept, 1, 10'000);
#elif defined(LEAKS_LITTLE)
  kept = std::malloc(24);
#elif defined(LEAKS_DESCRIPTORS)
  if (::open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 && ::dup(0) < 0) throw bulkhead::error("no descriptors");
#elif defined(IGNORES_STOP)
  if (n > 1000) std::this_thread::sleep_for(std::chrono::seconds(60));
#elif defined(HONOURS_STOP)
  while (n > 1000 && !cx.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  cx.throw_if_cancelled();
#elif defined(DIES_CANCELLED)
  if (cx.cancelled()) std::raise(SIGSEGV);
#elif defined(NEEDS_FILE) || defined(ASKS_RIGHT)
  std::ifstream("/etc/hostname").get();
#elif defined(NEEDS_NETWORK)
  ::socket(AF_INET, SOCK_STREAM, 0);
#elif defined(RACES)
  scratch = static_cast<int>(n % 1000);
  std::this_thread::sleep_for(std::chrono::microseconds(50));
  return *const_cast<volatile int*>(&scratch);
#endif
  return n;
}

}  // namespace

BULKHEAD_PLUGIN("bad", "1.0.0") {
  plugin.method("work", work, "Works", {"n", "text"}).idempotent();
#if defined(LATE_USE)
  // Asks about a call from a thread that does not know when it has been answered.
  plugin.method(
      "late",
      [](bulkhead::context& cx) {
        std::thread([host = cx.raw(), call = cx.call()] {
          for (int i = 0; i < 50; ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            host->cancelled(host, call);
          }
        }).detach();
      },
      "Works on");
#endif
#if defined(ANSWERS_TWICE)
  plugin.method(
      "twice",
      [](bulkhead::context& cx) {
        const char nil = '\xc0';
        cx.raw()->reply(cx.raw(), cx.call(), &nil, 1);
      },
      "Answers, and then again");
#endif
#if defined(LEAKS_BLOBS)
  plugin.method(
      "blob",
      [](bulkhead::context& cx) {
        bulkhead_blob_t made{};
        cx.raw()->create_blob(cx.raw(), 16, &made);
      },
      "Makes a blob");
#endif
#if defined(LIVES_ON)
  // A thread that goes on when the plugin is told to end.
  plugin.on_init([host = plugin.host()] {
    std::thread([host] {
      for (;;) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        host.emit("tick", 1);
      }
    }).detach();
  });
#endif
#if defined(DIES_AT_THE_END)
  plugin.on_destroy([] { std::raise(SIGSEGV); });
#endif
#if defined(HANGS_AT_THE_END)
  plugin.on_destroy([] { std::this_thread::sleep_for(std::chrono::seconds(30)); });
#endif
#if defined(FORGETS)
  plugin.state([] { return std::string("state"); },
               [](const std::string&) { throw bulkhead::error("can't make sense of it"); });
#endif
#if defined(FAILS_TO_START)
  plugin.on_init([] { throw bulkhead::error("no licence server"); });
#endif
#if defined(NO_DOC)
  plugin.method("undocumented", [](int n) { return n; });
#endif
}
