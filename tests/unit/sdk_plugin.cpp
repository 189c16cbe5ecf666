// A plugin written with the SDK for sdk.cpp: each method does one thing that the SDK promises to handle.
#include <bulkhead/sdk.hpp>

#include <atomic>
#include <cstdlib>
#include <thread>

namespace {

// Threads end before the plugin does, so that a test sees all that they did.
std::vector<std::thread> threads;
std::atomic<bool> joining{false};
template <class F>
void in_a_thread(F work) {
  threads.emplace_back(std::move(work));
}

struct point {
  int x = 0, y = 0;
  MSGPACK_DEFINE_MAP(x, y)
};

struct number_error {};  // no std::exception

int twice(int n) noexcept { return 2 * n; }

bool asks(const char* what) {
  const char* odd = std::getenv("SDK_PLUGIN");
  return odd && std::string_view(odd) == what;
}

}  // namespace

BULKHEAD_PLUGIN("sdk", "1.0.0") {
  using bulkhead::blob;
  using bulkhead::bytes_view;
  using bulkhead::context;
  using bulkhead::responder;

  if (asks("idempotent")) plugin.idempotent();
  if (asks("throw")) throw number_error();

  // --- arguments and results ---
  plugin.method("add", [](int a, std::optional<int> b) { return a + b.value_or(10); }, "Sum", {"a", "b"}).idempotent();
  plugin.method("twice", &twice);
  plugin.method("nothing", [] {});
  plugin.method("mirror", [](point p) { return point{p.y, p.x}; }, "", {"p"});
  plugin.method("length", [](const blob& b, std::string_view s) { return b.size() + s.size(); }, "", {"b", "s"});
  plugin.method("fill", [](context& cx, unsigned size) {
    blob made = cx.create_blob(size);
    for (auto& byte : made.writable()) byte = 7;
    return made;
  });
  plugin.method("tail", [](bytes_view b) { return b.subspan(1); });
  plugin.method("between", [](int a, context& cx, int b) { return cx.cancelled() ? -1 : a - b; });

  // --- exceptions ---
  plugin.method("fail", [](const std::string& text) { throw bulkhead::error(text); });
  plugin.method("fail_with", [](int code) {
    throw bulkhead::error("with details", std::map<std::string, int>{{"code", code}});
  });
  plugin.method("throw_std", [] { std::vector<int>().at(3); });
  plugin.method("throw_odd", [] { throw number_error(); });
  plugin.method("throw_memory", [] { throw std::bad_alloc(); });
  plugin.method("throw_if_cancelled", [](context& cx) { cx.throw_if_cancelled(); });
  plugin.method("ask_host",
                [](context& cx, const std::string& function) { return cx.call_host<int>(function, 1, "x"); });

  // --- answers given later ---
  plugin.method("later", [](responder<std::string> answer, std::string text) {
    in_a_thread([answer = std::move(answer), text = std::move(text)]() mutable { answer.reply(text); });
  });
  plugin.method("reply_twice", [](responder<int> answer) {
    answer.reply(1);
    answer.reply(2);
    answer.fail("three");
  });
  plugin.method("fail_then_reply", [](responder<int> answer) {
    answer.fail("failed first");
    answer.reply(1);
  });
  plugin.method("drop", [](responder<int>) {});
  plugin.method("drop_in_thread", [](responder<int> answer) { in_a_thread([answer = std::move(answer)] {}); });
  plugin.method("throw_unanswered", [](responder<int>) { throw bulkhead::error("its own text"); });
  plugin.method("throw_answered", [](responder<int> answer) {
    answer.reply(1);
    throw bulkhead::error("too late");
  });
  plugin.method("drop_and_catch", [](responder<int> answer) {
    try {
      const responder<int> mine = std::move(answer);
      throw bulkhead::error("caught by the method");
    } catch (const bulkhead::error&) {
    }
  });
  plugin.method("unwind_in_thread", [](responder<int> answer) {
    in_a_thread([held = std::make_unique<responder<int>>(std::move(answer))]() mutable {
      try {
        const auto mine = std::move(held);
        throw bulkhead::error("caught by the thread");
      } catch (const bulkhead::error&) {
      }
    });
  });
  plugin.method("throw_while_held", [](responder<int> answer) {
    in_a_thread([answer = std::move(answer)]() mutable {
      joining.wait(false);
      answer.reply(1);  // when the exception has ended the call
    });
    throw bulkhead::error("thrown while a thread holds the responder");
  });
  plugin.method("reply_cancelled", [](context& cx, responder<bool> answer) { answer.reply(cx.cancelled()); });
  plugin.method("reply_moved", [](responder<int> answer) {
    responder<int> moved = std::move(answer);
    answer.reply(1);  // NOLINT(bugprone-use-after-move): it has nothing to answer
    answer.fail("nor to fail");
    moved.reply(2);
  });
  plugin.method("reply_nothing", [](responder<void> answer) { answer.reply(); });
  plugin.method("reply_blob", [](context& cx, responder<blob> answer) { answer.reply(cx.create_blob(3)); });
  plugin.method("join", [] {
    joining = true;
    joining.notify_all();
    for (std::thread& each : threads) each.join();
    threads.clear();
    joining = false;
  });

  plugin.on_init([] {
    if (asks("init")) throw bulkhead::error("no ink left");
  });
  plugin.on_destroy([] {
    if (asks("destroy")) throw bulkhead::error("can't let go");
  });
}
