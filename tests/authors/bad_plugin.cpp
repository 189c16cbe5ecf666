// A plugin that is bad in one way, which the variable FLAW names: `bulkhead check` has to find each. Without one there is
// nothing to find. What lies in the file itself is in bad_plugin.c.
#include <bulkhead/sdk.hpp>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Bad in one way");

namespace {

using namespace std::chrono_literals;

void* volatile kept;  // the last of what leaks

bool flaw(const char* name) {
  static const char* const chosen = std::getenv("FLAW");
  return chosen && std::strcmp(chosen, name) == 0;
}

std::int64_t work(bulkhead::context& cx, std::int64_t n, const std::string& text) {
  if (flaw("crashes") && n < -1000) std::raise(SIGSEGV);
  if (flaw("exits") && text.size() > 100) std::exit(3);
  if (flaw("leaks memory")) {
    kept = std::malloc(10'000);
    std::memset(kept, 1, 10'000);
  }
  if (flaw("leaks little")) kept = std::malloc(24);
  if (flaw("leaks mappings")) {
    kept = ::mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::memset(kept, 1, 16384);
  }
  if (static int calls; flaw("leaks threads") && ++calls % 200 == 0) std::thread([] { ::pause(); }).detach();
  if (bulkhead_answer_t answer{}; flaw("leaks answers"))
    cx.raw()->call_host(cx.raw(), cx.call(), "nobody_has_this", "\x90", 1, &answer);
  if (flaw("leaks descriptors") && ::dup(1) < 0) throw bulkhead::error("no descriptors are left");
  if (flaw("ignores stop") && n > 1000) std::this_thread::sleep_for(60s);
  if (flaw("honours stop")) {
    while (n > 1000 && !cx.cancelled()) std::this_thread::sleep_for(1ms);
    cx.throw_if_cancelled();
  }
  if (flaw("dies cancelled") && cx.cancelled()) std::raise(SIGSEGV);
  if (flaw("needs file")) std::ifstream("/etc/hostname").get();
  if (flaw("needs network")) ::socket(AF_INET, SOCK_STREAM, 0);
  return n;
}

// Asks about a call from a thread that does not know when it has been answered.
void late(bulkhead::context& cx) {
  std::thread([host = cx.raw(), call = cx.call()] {
    for (int i = 0; i < 50; ++i) {
      std::this_thread::sleep_for(1ms);
      host->cancelled(host, call);
    }
  }).detach();
}

void twice(bulkhead::context& cx) {
  const char nil = '\xc0';
  cx.raw()->reply(cx.raw(), cx.call(), &nil, 1);
}

void forgotten_blob(bulkhead::context& cx) {
  bulkhead_blob_t made{};
  cx.raw()->create_blob(cx.raw(), 16, &made);
}

// A thread that goes on when the plugin is told to end.
void live_on(bulkhead::host_api host) {
  std::thread([host] {
    for (;;) {
      std::this_thread::sleep_for(2ms);
      host.emit("tick", 1);
    }
  }).detach();
}

}  // namespace

BULKHEAD_PLUGIN("bad", "1.0.0") {
  plugin.method("work", work, "Works", {"n", "text"}).idempotent();
  if (flaw("uses a call late")) plugin.method("late", late, "Works on");
  if (flaw("answers twice")) plugin.method("twice", twice, "Answers, and then again");
  if (flaw("leaks blobs")) plugin.method("blob", forgotten_blob, "Makes a blob");
  if (flaw("has no doc")) plugin.method("undocumented", [](int n) { return n; });
  if (flaw("lives on")) plugin.on_init([host = plugin.host()] { live_on(host); });
  if (flaw("dies at the end")) plugin.on_destroy([] { std::raise(SIGSEGV); });
  if (flaw("hangs at the end")) plugin.on_destroy([] { std::this_thread::sleep_for(30s); });
  if (flaw("fails to start")) plugin.on_init([] { throw bulkhead::error("no licence server"); });
  if (flaw("fails oddly")) plugin.on_init([] { throw bulkhead::error("<\xef\xbf\xbf & \x01\xff>"); });
  if (flaw("forgets"))
    plugin.state([] { return std::string("state"); },
                 [](const std::string&) { throw bulkhead::error("can't make sense of it"); });
}
