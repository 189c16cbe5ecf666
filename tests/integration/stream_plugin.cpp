// For streams.cpp: methods that stream in each direction, and in both.
#include <bulkhead/sdk.hpp>

#include <thread>

BULKHEAD_PLUGIN("streaming", "1.0.0") {
  using namespace bulkhead;

  plugin.method("count", [](int n, writer<int> out) {
    for (int i = 0; i < n; ++i) out.send(i);
    return n;
  });
  plugin.method("sum", [](reader<std::int64_t> in) {
    std::int64_t sum = 0;
    while (const auto next = in.next()) sum += *next;
    return sum;
  });
  plugin.method("scale",
                [](reader<int> in, writer<int> out, int factor) {
                  while (const auto next = in.next()) out.send(*next * factor);
                },
                "", {"factor"});
  // Answers after so many items, whatever else may come.
  plugin.method("first", [](reader<std::string> in, std::size_t wanted) {
    std::vector<std::string> taken;
    while (taken.size() < wanted) taken.push_back(in.next().value());
    return taken;
  });
  // Sends items for as long as it may; says before each how many it has sent, and in the end.
  plugin.method("flood", [](context& cx, writer<bytes> out, std::size_t size) {
    std::size_t sent = 0;
    try {
      for (;; ++sent) {
        cx.emit("sending", sent);
        out.send(bytes(size));
      }
    } catch (const cancelled_error&) {
      cx.emit("stopped", sent);
      throw;
    }
  });
  // Waits for items; says when it begins to, and when it was told to stop.
  plugin.method("wait", [](context& cx, reader<int> in) {
    cx.emit("waiting", 0);
    try {
      while (in.next()) {
      }
    } catch (const cancelled_error&) {
      cx.emit("stopped", 0);
      throw;
    }
  });
  // Takes one item, says so, and then takes its time.
  plugin.method("hoard", [](context& cx, reader<bytes_view> in, writer<int> out) {
    in.next();
    out.send(0);
    while (!cx.cancelled()) std::this_thread::yield();
    throw cancelled_error();
  });
  plugin.method("fail_after", [](int n, writer<int> out) {
    for (int i = 0; i < n; ++i) out.send(i);
    throw error("that was all");
  });
  plugin.method("die_after", [](int n, writer<int> out) {
    for (int i = 0; i < n; ++i) out.send(i);
    std::abort();
  });
  plugin
      .method("die_before",
              [](writer<int> out, int n) {
                for (int i = 1; i <= n; ++i) out.send(i);
                std::abort();
              })
      .idempotent();
  plugin.method("large", [](std::size_t size, writer<bytes> out) { out.send(bytes(size)); });
  plugin.method("ends_early", [](writer<int> out, bool again) {
    out.send(1);
    out.end();
    if (again) out.send(2);
    return 7;
  });
  // A writer that outlives its method.
  plugin.method("keep", [kept = std::make_shared<std::optional<writer<int>>>()](writer<int> out, bool now) {
    if (!now) kept->emplace(out);
    else kept->value().send(1);
  });
  plugin.method("echo", [](msgpack::object value) { return value; });
  plugin.method("pid", [] { return ::getpid(); });
}
