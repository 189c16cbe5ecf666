// A plugin with a state: a total. COUNTER_VERSION 2 is its next version; 3 is one that can't read what the others save.
#include <bulkhead/sdk.hpp>

#include <cstdlib>
#include <thread>

#ifndef COUNTER_VERSION
#define COUNTER_VERSION 1
#endif
#define COUNTER_TEXT_(x) #x
#define COUNTER_TEXT(x) COUNTER_TEXT_(x)

namespace {

struct ledger {
  std::int64_t total = 0;
  bool unreadable = false;
  MSGPACK_DEFINE_MAP(total, unreadable)
};

ledger kept;
bool refuse_to_save = false;

}  // namespace

BULKHEAD_PLUGIN("counter", COUNTER_TEXT(COUNTER_VERSION)) {
  plugin.method("add", [](std::int64_t value) { return kept.total += value; }, "Adds to the total", {"value"});
  plugin.method("add_late",
                [](std::int64_t value, int ms, bulkhead::responder<std::int64_t> answer) {
                  std::thread([value, ms, answer = std::move(answer)]() mutable {
                    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
                    answer.reply(kept.total += value);
                  }).detach();
                },
                "Adds to the total after a while, from another thread", {"value", "ms"});
  plugin.method(
      "total", [] { return kept.total; }, "The total");
  plugin.method(
      "version", [] { return COUNTER_VERSION; }, "Of the plugin");
  plugin.method(
      "crash", [] { std::abort(); }, "Ends the worker");
  plugin.method("crash_after",
                [](const bulkhead::context& cx, const std::string& function) {
                  cx.call_host(function);
                  std::abort();
                },
                "Ends the worker after a call of the application, which the next version may repeat", {"function"});
  if (COUNTER_VERSION == 2) plugin.idempotent();
  plugin.method(
      "go", [](bulkhead::context& cx) { bulkhead::host_api(cx).leave("asked to"); }, "Leaves on its own");
  plugin.method("spoil", [](bool yes) { kept.unreadable = yes; }, "Whether what is saved can't be restored", {"yes"});
  plugin.method("refuse_to_save", [](bool yes) { refuse_to_save = yes; }, "Whether it can't save", {"yes"});
  plugin.state(
      [] {
        if (refuse_to_save) throw std::runtime_error("not now");
        return kept;
      },
      [](const ledger& saved) {
        if (saved.unreadable || COUNTER_VERSION == 3) throw std::runtime_error("a state that this can't read");
        kept = saved;
      });
}
