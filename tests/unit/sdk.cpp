// A plugin written with the SDK, run by the worker's runtime in this process: what the caller sees of its results,
// errors, exceptions and misused responders.
#include "plugin_runtime.hpp"
#include <bulkhead/sdk.hpp>

#include <catch2/catch.hpp>

#include <cstdlib>
#include <list>
#include <map>
#include <mutex>

namespace bulkhead::testing {
namespace {

using strings = std::vector<std::string>;

// The plugin, and all that it sends. Answers are JSON-like texts (bytes are numbers), failures "outcome: text".
class session final : plugin_runtime::link {
 public:
  explicit session(const char* odd = "") {
    ::setenv("SDK_PLUGIN", odd, 1);
    runtime_.load(BULKHEAD_SDK_PLUGIN);
  }
  ~session() override { destroy(); }

  void init() { runtime_.init(); }
  void destroy() { runtime_.destroy(); }

  // Calls and returns all that was answered, in order; also what threads of the plugin answered.
  template <class... A>
  strings call(const std::string& method, const A&... arguments) {
    answers_.clear();
    send(method, false, arguments...);
    send("join", false);
    std::lock_guard held(mutex_);
    answers_.pop_back();  // join's own
    return answers_;
  }
  template <class... A>
  strings call_cancelled(const std::string& method, const A&... arguments) {
    answers_.clear();
    send(method, true, arguments...);
    return answers_;
  }

  strings logs;
  std::vector<std::uint8_t> details;  // of the last failure

  std::string signature(const std::string& method) {
    ipc::buffer packed;
    ipc::packer packer(packed);
    runtime_.pack_description(packer);
    const msgpack::object_handle unpacked = ipc::unpack(packed.view());
    const auto description = unpacked.get().as<std::map<std::string, msgpack::object>>();
    for (const auto& each : description.at("methods").as<std::vector<std::map<std::string, msgpack::object>>>())
      if (each.at("name").as<std::string>() == method) return each.at("signature").as<std::string>();
    return "";
  }

 private:
  template <class... A>
  void send(const std::string& method, bool cancelled, const A&... arguments) {
    msgpack::sbuffer packed;
    msgpack::packer<msgpack::sbuffer> packer(packed);
    packer.pack_array(sizeof...(A));
    (packer.pack(arguments), ...);
    auto call = std::make_unique<bulkhead_call>();
    call->storage.bytes.assign(packed.data(), packed.data() + packed.size());
    call->arguments = call->storage.bytes;
    call->cancelled = cancelled;
    runtime_.invoke(std::move(call), method);
  }

  void answer(bulkhead_call&, ipc::byte_span result) override {
    const msgpack::object_handle value = ipc::unpack(result);
    std::ostringstream text;
    if (value.get().type != msgpack::type::BIN) text << value.get();
    else
      for (const int byte : value.get().as<bytes>()) text << byte << ' ';
    std::lock_guard held(mutex_);
    answers_.push_back(text.str());
  }
  void fail(bulkhead_call&, ipc::call_failure failure) override {
    std::lock_guard held(mutex_);
    answers_.push_back((failure.code == outcome::plugin_error ? "error: " : "other: ") + failure.message);
    details = failure.data;
  }
  void progress(bulkhead_call&, ipc::byte_span) override {}
  void log(int level, std::string_view text) override {
    std::lock_guard held(mutex_);
    logs.push_back(std::to_string(level) + " " + std::string(text));
  }
  bool emit(std::string_view, ipc::byte_span, std::vector<unique_fd>) override { return true; }
  void poll(bulkhead_call&) override {}
  ipc::completion call_host(bulkhead_call*, std::string_view function, ipc::byte_span,
                            std::vector<unique_fd>) override {
    return ipc::completion::failed(outcome::rejected,
                                   "the application lends no function '" + std::string(function) + "'");
  }

  std::mutex mutex_;
  strings answers_;
  plugin_runtime runtime_{*this};
};

TEST_CASE("sdk: arguments and results of each kind") {
  session plugin;
  CHECK(plugin.call("add", 1, 2) == strings{"3"});
  CHECK(plugin.call("add", 1) == strings{"11"});
  CHECK(plugin.call("add", 1, msgpack::type::nil_t{}) == strings{"11"});
  CHECK(plugin.call("twice", -4) == strings{"-8"});
  CHECK(plugin.call("nothing") == strings{"null"});
  CHECK(plugin.call("mirror", std::map<std::string, int>{{"x", 1}, {"y", 2}}) == strings{R"({"x":2,"y":1})"});
  CHECK(plugin.call("length", bytes{1, 2, 3}, "four") == strings{"7"});
  CHECK(plugin.call("fill", 3) == strings{"7 7 7 "});
  CHECK(plugin.call("tail", bytes{1, 7}) == strings{"7 "});
  CHECK(plugin.call("between", 5, 3) == strings{"2"});
  CHECK(plugin.call_cancelled("between", 5, 3) == strings{"-1"});
  CHECK(plugin.logs.empty());
}

TEST_CASE("sdk: signatures leave out what the SDK itself passes") {
  session plugin;
  CHECK(plugin.signature("add") == "(int a, int? b) -> int");
  CHECK(plugin.signature("between") == "(int, int) -> int");
  CHECK(plugin.signature("length") == "(blob b, str s) -> int");
  CHECK(plugin.signature("fill") == "(int) -> blob");
  CHECK(plugin.signature("mirror") == "(any p) -> any");
  CHECK(plugin.signature("later") == "(str) -> str");
  CHECK(plugin.signature("reply_nothing") == "() -> nil");
}

TEST_CASE("sdk: a wrong argument fails the call with its place") {
  session plugin;
  CHECK(plugin.call("add") == strings{"error: add: takes 1 to 2 arguments, got 0"});
  CHECK(plugin.call("add", 1, 2, 3) == strings{"error: add: takes 1 to 2 arguments, got 3"});
  CHECK(plugin.call("add", 1, "two") == strings{"error: add: argument 2 (b): expected int?, got str"});
  CHECK(plugin.call("add", std::int64_t{1} << 40) ==
        strings{"error: add: argument 1 (a): expected int, got an int out of range"});
  CHECK(plugin.call("length", "text", "text") == strings{"error: length: argument 1 (b): expected bin, got str"});
  CHECK(plugin.call("between", 1, true) == strings{"error: between: argument 2: expected int, got bool"});
  CHECK(plugin.call("later", 7) == strings{"error: later: argument 1: expected str, got int"});
  CHECK(plugin.call("length", msgpack::type::ext(BULKHEAD_EXT_BLOB, 24), "") ==
        strings{"error: length: argument 1 (b): expected bin, got ext"});
}

TEST_CASE("sdk: an exception fails the call with its text") {
  session plugin;
  CHECK(plugin.call("fail", "out of ink") == strings{"error: out of ink"});
  CHECK(plugin.details.empty());
  CHECK(plugin.call("fail", "") == strings{"error: "});
  CHECK(plugin.call("fail", "\x1b[31m") == strings{"error: \\x1b[31m"});
  CHECK(plugin.call("fail_with", 42) == strings{"error: with details"});
  CHECK(ipc::unpack(plugin.details).get().as<std::map<std::string, int>>().at("code") == 42);
  CHECK(plugin.call("throw_std") ==
        strings{"error: vector::_M_range_check: __n (which is 3) >= this->size() (which is 0)"});
  CHECK(plugin.call("throw_odd") == strings{"error: an exception that is not a std::exception"});
  CHECK(plugin.call("throw_memory") == strings{"error: out of memory"});
  CHECK(plugin.call("throw_if_cancelled") == strings{"null"});
  CHECK(plugin.call_cancelled("throw_if_cancelled") == strings{"error: cancelled"});
  CHECK(plugin.call("ask_host", "none") == strings{"error: the application lends no function 'none'"});
}

TEST_CASE("sdk: an answer given later, from a thread") {
  session plugin;
  CHECK(plugin.call("later", "hello") == strings{R"("hello")"});
  CHECK(plugin.call("reply_nothing") == strings{"null"});
  CHECK(plugin.call("reply_blob").size() == 1);
}

TEST_CASE("sdk: the first answer counts and is the only one") {
  session plugin;
  CHECK(plugin.call("reply_twice") == strings{"1"});
  CHECK(plugin.call("fail_then_reply") == strings{"error: failed first"});
  CHECK(plugin.call("reply_moved") == strings{"2"});
  CHECK(plugin.logs.empty());  // the runtime was not even asked
}

TEST_CASE("sdk: a responder dropped unanswered fails the call, wherever it is dropped") {
  session plugin;
  const strings dropped = {"error: the plugin dropped the call without answering it"};
  CHECK(plugin.call("drop") == dropped);
  CHECK(plugin.call("drop_in_thread") == dropped);
  CHECK(plugin.call("drop_and_catch") == dropped);
  CHECK(plugin.call("unwind_in_thread") == dropped);
  CHECK(plugin.logs.empty());
}

TEST_CASE("sdk: an exception from a method with a responder is the answer, unless there is one already") {
  session plugin;
  CHECK(plugin.call("throw_unanswered") == strings{"error: its own text"});
  CHECK(plugin.call("throw_while_held") == strings{"error: thrown while a thread holds the responder"});
  CHECK(plugin.logs.empty());
  CHECK(plugin.call("throw_answered") == strings{"1"});
  CHECK(plugin.logs == strings{"2 throw_answered threw an exception after it had answered"});
}

TEST_CASE("sdk: a cancelled call can still be answered") {
  session plugin;
  CHECK(plugin.call_cancelled("reply_cancelled") == strings{"true"});
  CHECK(plugin.call("reply_cancelled") == strings{"false"});
}

TEST_CASE("sdk: exceptions from the plugin's beginning and end are told") {
  session plugin("init");
  CHECK_THROWS_WITH(plugin.init(), "no ink left");
  CHECK_THROWS_WITH(session("throw"), "its create() failed");
  CHECK_THROWS_WITH(session("idempotent"), "its create() failed");
  session last("destroy");
  CHECK_NOTHROW(last.init());
  last.destroy();
  CHECK(last.logs == strings{"3 on_destroy: can't let go"});
}

TEST_CASE("sdk: a state that promises more than it has, or is nested without end, is refused before it is believed") {
  bulkhead_host_t host{};
  const auto* plugin = plugin_definition::create(
      &host, [](plugin_definition& made) { made.state([] { return 1; }, [](const msgpack::object&) {}); });
  REQUIRE(plugin);
  const auto* state = static_cast<const bulkhead_state_t*>(plugin->get_extension(plugin, BULKHEAD_STATE));
  REQUIRE(state);
  const auto refusal = [&](const std::vector<std::uint8_t>& bytes) {
    const char* error = "";
    return state->restore(plugin, bytes.data(), bytes.size(), &error) ? "restored" : std::string(error);
  };
  CHECK(refusal({0x07}) == "restored");
  CHECK(refusal({0xdd, 0x00, 0xff, 0xff, 0xff}) == "array size overflow");
  CHECK(refusal({0xdf, 0x00, 0xff, 0xff, 0xff}) == "map size overflow");
  CHECK(refusal({0xc6, 0x00, 0xff, 0xff, 0xff}) == "insufficient bytes");
  CHECK(refusal(std::vector<std::uint8_t>(100'000, 0x91)) == "depth size overflow");
  plugin->destroy(plugin);
}

// The ABI's order of calls, which no outcome shows as long as blobs are copied: a host that writes down what it is asked.
TEST_CASE("sdk: a blob is given back after the reply that sends it") {
  static strings asked;
  bulkhead_host_t host{};
  host.create_blob = [](const bulkhead_host_t*, std::size_t size, bulkhead_blob_t* blob) {
    static std::uint8_t memory[8];
    *blob = {memory, size, {}, 0, nullptr};
    return true;
  };
  host.get_extension = [](const bulkhead_host_t*, const char*) -> const void* { return nullptr; };
  host.release_blob = [](const bulkhead_host_t*, bulkhead_blob_t*) { asked.push_back("release"); };
  host.reply = [](const bulkhead_host_t*, bulkhead_call_t*, const void*, std::size_t) { asked.push_back("reply"); };
  const auto* plugin = plugin_definition::create(&host, [](plugin_definition& made) {
    made.method("now", [](context& cx) { return cx.create_blob(8); });
    made.method("later", [](context& cx, responder<blob> answer) { answer.reply(cx.create_blob(8)); });
  });
  REQUIRE(plugin);
  const std::uint8_t no_arguments = 0x90;
  for (std::size_t i = 0; i < plugin->method_count; ++i) {
    asked.clear();
    plugin->methods[i].invoke(plugin, &plugin->methods[i], nullptr, &no_arguments, 1);
    CHECK(asked == strings{"reply", "release"});
  }
  plugin->destroy(plugin);
}

}  // namespace
}  // namespace bulkhead::testing
