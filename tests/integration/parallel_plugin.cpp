// A plugin that says it is thread-safe: calls that meet each other, die beside each other, and one that leaves.
#include <bulkhead/sdk.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include <unistd.h>

namespace {

std::mutex mutex;
std::condition_variable changed;
int inside = 0, most = 0;
std::atomic<int> waiting{0};

}  // namespace

BULKHEAD_THREAD_SAFE;
BULKHEAD_PLUGIN("parallel", "1.0.0") {
  plugin.method("meet",
                [](const bulkhead::context& cx, int count) {
                  std::unique_lock held(mutex);
                  most = std::max(most, ++inside);
                  changed.notify_all();
                  while (most < count && !cx.cancelled()) changed.wait_for(held, std::chrono::milliseconds(5));
                  --inside;
                  cx.throw_if_cancelled();
                  return most;
                },
                "Waits until so many calls were in here at once", {"count"});
  plugin.method(
      "wait",
      [](const bulkhead::context& cx) {
        ++waiting;
        cx.emit("waiting", 0);
        while (!cx.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        cx.throw_if_cancelled();
      },
      "Says that it waits (event `waiting`), then waits to be cancelled");
  plugin.method(
      "overflow",
      [](const bulkhead::context&) {
        while (waiting < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::abort();
      },
      "Dies when three others wait");
  plugin.method("beside",
                [](const bulkhead::context& cx, bool deadly) {
                  while (deadly && waiting < 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                  if (deadly) std::abort();
                  ++waiting;
                  while (!cx.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                  cx.throw_if_cancelled();
                },
                "Waits to be cancelled; the deadly one dies when another one waits", {"deadly"});
  plugin.method(
      "quit",
      [](const bulkhead::context& cx) {
        while (!cx.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        ::_exit(0);
      },
      "Once it is cancelled, its worker exits as if all were well");
  plugin.method(
      "leave",
      [](const bulkhead::context& cx) {
        cx.leave("enough is enough");
        cx.leave("and again");
        return 1;
      },
      "Says that the worker must go");
  plugin.method("linger",
                [](bulkhead::responder<int> answer, int value) {
                  answer.reply(value);
                  for (;;) ::pause();
                },
                "Answers, and never comes back", {"value"});
  plugin.method("add", [](int a, int b) { return a + b; }, "The sum", {"a", "b"});
}
