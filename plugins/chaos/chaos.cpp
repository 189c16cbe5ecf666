// A plugin for tests: it misbehaves on request, in a call (`misbehave`) or at another moment of its life, which the
// environment names: BULKHEAD_CHAOS_AT = constructor | create | init | destroy, BULKHEAD_CHAOS = the kind. Beside that
// it has harmless methods that show each thing a plugin can do with its host.
#include "kinds.hpp"
#include <bulkhead/sdk.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Misbehaves in every way it knows, by name");
BULKHEAD_MANIFEST(handles, "request=handles");
BULKHEAD_MANIFEST(children, "request=subprocesses");

namespace {

using std::chrono::milliseconds;

void at_moment(std::string_view moment) {
  const char* when = std::getenv("BULKHEAD_CHAOS_AT");
  const char* what = std::getenv("BULKHEAD_CHAOS");
  if (!when || !what || when != moment) return;
  if (const chaos::kind* kind = chaos::find(what)) kind->act();
}

struct constructed {
  constructed() { at_moment("constructor"); }
} const at_dlopen;

// A result that is MessagePack already.
struct packed_value {
  msgpack::object_handle unpacked;
  template <class Packer>
  void msgpack_pack(Packer& packer) const {
    packer.pack(unpacked.get());
  }
};

packed_value call_host(const bulkhead::context& cx, const std::string& function, const msgpack::object& arguments) {
  msgpack::sbuffer packed;
  msgpack::pack(packed, arguments);
  bulkhead_answer_t answer{};
  const auto status = cx.raw()->call_host(cx.raw(), cx.call(), function.c_str(), packed.data(), packed.size(), &answer);
  const std::string bytes(reinterpret_cast<const char*>(answer.data), answer.size);
  cx.raw()->release_answer(cx.raw(), &answer);
  constexpr const char* names[] = {"ok", "failed", "rejected", "cancelled", "overloaded", "lost"};
  if (status != BULKHEAD_OK) throw bulkhead::error(std::string(names[status]) + ": " + bytes);
  return {msgpack::unpack(bytes.data(), bytes.size())};
}

// Several threads call it on behalf of one call; how each of them ended.
std::vector<std::string> call_host_at_once(const bulkhead::context& cx, const std::string& function,
                                           const msgpack::object& arguments, unsigned count) {
  std::vector<std::string> ended(count);
  std::vector<std::thread> threads;
  for (std::string& each : ended)
    threads.emplace_back([&] {
      try {
        call_host(cx, function, arguments);
        each = "ok";
      } catch (const std::exception& e) {
        each = e.what();
      }
    });
  for (std::thread& each : threads) each.join();
  return ended;
}

std::string read_to_end(int fd) {
  std::string text;
  char chunk[4096];
  for (;;) {
    const ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n < 0) throw bulkhead::error("read: error " + std::to_string(errno));
    if (n == 0) return text;
    text.append(chunk, static_cast<std::size_t>(n));
  }
}

// The responder lives on the heap: one that is never destroyed never answers, and an exception reaches the SDK first.
void misbehave(bulkhead::responder<std::string> responder, const std::string& how) {
  auto* answer = new bulkhead::responder<std::string>(std::move(responder));
  if (how == "never_answer") return;
  if (how == "answer_twice") {
    const bulkhead::context cx = answer->cx();
    answer->reply(std::string("first answer"));
    cx.raw()->fail(cx.raw(), cx.call(), "second answer", 13, nullptr, 0);  // still within invoke(): the call is there
  } else if (const chaos::kind* kind = chaos::find(how)) {
    kind->act();
    answer->reply("survived " + how);
  } else {
    answer->fail("there is no kind of misbehaviour called '" + how + "'");
  }
  delete answer;
}

std::vector<std::string> kinds() {
  std::vector<std::string> names{"never_answer", "answer_twice"};
  for (const chaos::kind& kind : chaos::kinds()) names.emplace_back(kind.name);
  return names;
}

// Several threads use the host at once; the last one answers.
void threads_reply(bulkhead::responder<int> responder, int count) {
  struct shared {
    shared(bulkhead::responder<int> r, int threads) : answer(std::move(r)), left(threads), count(threads) {}
    bulkhead::responder<int> answer;
    std::atomic<int> left;
    const int count;
  };
  if (count < 1) return responder.fail("threads_reply: at least one thread is needed");
  auto state = std::make_shared<shared>(std::move(responder), count);
  for (int i = 0; i < count; ++i)
    std::thread([state, i] {
      state->answer.cx().log("thread " + std::to_string(i));
      state->answer.cx().emit("thread", i);
      if (--state->left == 0) state->answer.reply(state->count);
    }).detach();
}

std::vector<int> open_fds() {
  std::vector<int> open;
  for (int fd = 0; fd < 1024; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0) open.push_back(fd);
  return open;
}

// Children that wait to be killed; how many could be had.
int children(int wanted) {
  for (int made = 0; made < wanted; ++made) {
    const pid_t child = ::fork();
    if (child < 0) return made;
    if (child == 0)
      for (;;) ::pause();
  }
  return wanted;
}

bulkhead::handle held;

}  // namespace

BULKHEAD_PLUGIN("chaos", "1.0.0") {
  at_moment("create");
  plugin.on_init([] { at_moment("init"); });
  plugin.on_destroy([] { at_moment("destroy"); });

  plugin.method("misbehave", misbehave, "Dies or misbehaves in the way named", {"how"});
  plugin.method("die_of", [](const msgpack::object&) { std::abort(); }, "Dies of any argument", {"value"});
  plugin.method("kinds", kinds, "The ways that misbehave() knows");

  plugin.method("echo", [](const msgpack::object& value) { return value; }, "The value itself", {"value"}).idempotent();
  plugin.method(
      "pid", [] { return static_cast<int>(::getpid()); }, "The worker's own idea of its pid");
  plugin.method("open_fds", open_fds, "The descriptors that are open in the worker");
  plugin.method("environment",
                [](const std::string& name) -> std::optional<std::string> {
                  const char* value = std::getenv(name.c_str());
                  return value ? std::optional<std::string>(value) : std::nullopt;
                },
                "A variable of the worker's environment", {"name"});

  plugin.method("sleep_ms",
                [](const bulkhead::context& cx, int ms) {
                  const auto end = std::chrono::steady_clock::now() + milliseconds(ms);
                  for (auto now = std::chrono::steady_clock::now(); now < end; now = std::chrono::steady_clock::now()) {
                    cx.throw_if_cancelled();
                    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(end - now, milliseconds(2)));
                  }
                  return ms;
                },
                "Sleeps, but not on when it is cancelled", {"ms"});
  plugin.method("emit",
                [](const bulkhead::context& cx, const std::string& name, const msgpack::object& value, int count) {
                  for (int i = 0; i < count; ++i)
                    if (!cx.emit(name, value)) throw bulkhead::error("the host takes no more events");
                },
                "Sends the same event `count` times", {"name", "value", "count"});
  plugin.method("progress",
                [](const bulkhead::context& cx, int n) {
                  for (int i = 0; i < n; ++i) cx.progress(i);
                  return n;
                },
                "Reports progress 0 to n - 1", {"n"});
  plugin.method("report", [](const bulkhead::context& cx, const msgpack::object& value) { cx.progress(value); },
                "Reports a value as progress", {"value"});
  plugin.method("fail_with",
                [](const std::string& text, const msgpack::object& details) { throw bulkhead::error(text, details); },
                "Fails with a text and details", {"text", "details"});
  plugin.method("call_host", call_host, "Calls a function of the application", {"function", "arguments"});
  plugin.method("call_host_at_once", call_host_at_once, "Calls a function of the application from several threads",
                {"function", "arguments", "threads"});
  plugin.method(
      "name",
      [] {
        static const std::string name = std::to_string(std::random_device{}());
        return name;
      },
      "A random name that this worker keeps");
  plugin.method("keep_memory",
                [](int megabytes) {
                  static std::vector<std::string> kept;
                  kept.emplace_back(static_cast<std::size_t>(megabytes) << 20, 'x');
                  return megabytes;
                },
                "Takes so much memory, in MiB, and keeps it", {"megabytes"});
  plugin
      .method(
          "unlucky",
          [](const bulkhead::context& cx) {
            if (!cx.call_host<bool>("lucky")) std::abort();
            return ::getpid();
          },
          "Dies until the application's function `lucky` returns true; its worker's idea of its pid")
      .idempotent();
  plugin.method("read_handle", [](bulkhead::handle file) { return read_to_end(file.fd()); },
                "Reads a passed descriptor to its end", {"file"});
  plugin.method("hold", [](bulkhead::handle file) { held = std::move(file); },
                "Keeps a passed descriptor open for as long as the worker, or a child of it, lives", {"file"});
  plugin.method("children", children, "Starts processes that live until they are killed; how many it got", {"count"});
  plugin.method("later",
                [](bulkhead::responder<int> answer, int ms) {
                  std::thread([answer = std::move(answer), ms]() mutable {
                    std::this_thread::sleep_for(milliseconds(ms));
                    answer.reply(ms);
                  }).detach();
                },
                "Answers after a while, from a thread of its own", {"ms"});
  plugin.method("threads_reply", threads_reply, "Answers from the last of several threads", {"threads"});
}
