// The plugin lua in a real worker: values, limits, and what scripts try.
#include "fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

struct interpreter {
  bulkhead::host host{};
  plugin lua = host.load(plugin_path("lua"));

  template <class R, class... A>
  R run(const std::string& script, const A&... more) {
    return lua.call<R>("run", script, more...);
  }
  std::string error(const std::string& script, std::optional<int> megabytes = {},
                    std::optional<int> milliseconds = {}) {
    const reply done = lua.try_call("run", script, msgpack::object(), megabytes, milliseconds);
    CHECK(done.outcome() == outcome::plugin_error);
    return done.message();
  }
};

}  // namespace

TEST_CASE("lua runs a script and gives back what it returns") {
  interpreter with;
  CHECK(with.run<int>("return 6 * 7") == 42);
  CHECK(with.run<double>("return 1 / 4") == 0.25);
  CHECK(with.run<std::string>("return ('x'):rep(3)") == "xxx");
  CHECK(with.run<std::vector<int>>("return 1, 2, 3") == std::vector{1, 2, 3});
  CHECK(with.run<std::vector<int>>("local t = {} for i = 1, 3 do t[i] = i * i end return t") == std::vector{1, 4, 9});
  CHECK(with.run<std::map<std::string, int>>("return {a = 1, b = 2}") ==
        std::map<std::string, int>{{"a", 1}, {"b", 2}});
  CHECK(with.run<bytes>("return '\\xff\\xfe'") == bytes{0xff, 0xfe});
  CHECK(with.run<std::optional<int>>("local x = 1") == std::nullopt);
}

TEST_CASE("lua scripts find their arguments as a global") {
  interpreter with;
  const std::map<std::string, std::vector<int>> args{{"values", {3, 4, 5}}};
  CHECK(with.run<int>("local sum = 0 for _, v in ipairs(args.values) do sum = sum + v end return sum", args) == 12);
  CHECK(with.run<std::map<std::string, std::vector<int>>>("return args", args) == args);
}

TEST_CASE("lua tells what is wrong with a script, with its line") {
  interpreter with;
  CHECK_THAT(with.error("local x = 1\nerror('oh no')"), Contains("script:2: oh no"));
  CHECK_THAT(with.error("return ]"), Contains("script:1:"));
  CHECK_THAT(with.error("error({})"), Contains("no text"));
  CHECK_THAT(with.error("return print"), Contains("function can't be part of the result"));
  CHECK_THAT(with.error("local t = {} t.t = t return t"), Contains("contains itself"));
  CHECK_THAT(with.error("return ('x'):rep(20 * 1024 * 1024)"), Contains("8388608 bytes"));
  CHECK(with.lua.call<std::optional<std::string>>("check", "return 1") == std::nullopt);
  CHECK_THAT(*with.lua.call<std::optional<std::string>>("check", "return ]"), Contains("unexpected symbol"));
}

TEST_CASE("lua: memory is limited, whatever the script catches") {
  interpreter with;
  const char* hoard = "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end";
  CHECK_THAT(with.error(hoard, 4), Contains("4194304 bytes of memory"));
  CHECK_THAT(with.error("return #('x'):rep(1 << 30)", 16), Contains("bytes of memory"));
  CHECK(with.run<bool>("return not pcall(function() return ('x'):rep(1 << 30) end)"));
  CHECK(with.run<int>("return 1") == 1);
}

TEST_CASE("lua: time is limited, whatever the script catches") {
  interpreter with;
  const pid_t worker = with.lua.workers().at(0).pid;
  for (const char* script :
       {"while true do end", "while true do pcall(function() while true do end end) end",
        "coroutine.wrap(function() while true do end end)()",
        "local co = coroutine.create(function() while true do end end) while true do coroutine.resume(co) end",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() "
        "return t[1] end) end",
        "while true do xpcall(error, function() while true do end end) end",
        // Variables to be closed by whoever ends a coroutine that the limit has stopped, or one that has yielded.
        "local x = setmetatable({}, {__close = function() while true do end end}) "
        "coroutine.wrap(function() local y <close> = x while true do end end)()",
        "local x = setmetatable({}, {__close = function() while true do end end}) "
        "local co = coroutine.create(function() local y <close> = x while true do end end) "
        "coroutine.resume(co) coroutine.close(co)",
        "local x = setmetatable({}, {__close = function() while true do end end}) "
        "local co = coroutine.create(function() local y <close> = x coroutine.yield() end) "
        "coroutine.resume(co) coroutine.close(co)"}) {
    INFO(script);
    CHECK_THAT(with.error(script, {}, 50), Contains("ran out of time"));
  }
  CHECK(with.lua.workers().at(0).pid == worker);
}

TEST_CASE("lua: xpcall gives results, or what its handler makes of the error") {
  interpreter with;
  CHECK(with.run<std::vector<int>>(
            "local ok, a, b = xpcall(function(x, y) return y, x end, print, 1, 2) return a, b") == std::vector{2, 1});
  CHECK(with.run<std::string>("local ok, e = xpcall(error, function(e) return e .. '!' end, 'oh') return e") == "oh!");
}

TEST_CASE("lua: coroutines take and give values, fail, and close what is to be closed") {
  interpreter with;
  CHECK(with.run<std::vector<int>>(
            "local f = coroutine.wrap(function(a, b) local c = coroutine.yield(a + b) return c, 9 end) "
            "local sum = f(1, 2) local c, nine = f(5) return sum, c, nine") == std::vector{3, 5, 9});
  CHECK(with.run<std::vector<std::string>>(
            "local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() "
            "closed = 'closed' end}) error('oh', 0) end) local ok, e = coroutine.resume(co) "
            "return e, closed, coroutine.status(co)") == std::vector<std::string>{"oh", "closed", "dead"});
  CHECK_THAT(with.error("coroutine.create(1)"), Contains("function expected"));
}

TEST_CASE("lua: a call that is cancelled or late stops by itself") {
  interpreter with;
  const pid_t worker = with.lua.workers().at(0).pid;
  CHECK(with.lua.with({.deadline = 50ms}).try_call("run", "while true do end").outcome() == outcome::timeout);
  CHECK(with.run<int>("return 1") == 1);
  CHECK(with.lua.workers().at(0).pid == worker);
}

TEST_CASE("lua: scripts have nothing that reaches out, and no bytecode") {
  interpreter with;
  for (const char* name : {"io", "os", "package", "require", "debug", "dofile", "loadfile", "collectgarbage"}) {
    INFO(name);
    CHECK(with.run<bool>(std::string("return ") + name + " == nil"));
  }
  CHECK(with.run<bool>("return string.dump == nil and load('\\27Lua') == nil and load('\\27Lua', 'x', 'b') == nil"));
  CHECK(with.run<int>("return load('return 7')()") == 7);
  CHECK(with.run<int>("return load('return x', 'c', 't', {x = 8})()") == 8);
  CHECK_THAT(with.error("setmetatable({}, {__gc = function() while true do end end})"), Contains("no finalizers"));
  CHECK_THAT(with.error("\x1bLua"), Contains("binary"));
}

TEST_CASE("lua: limits that make no sense are refused") {
  interpreter with;
  CHECK_THAT(with.error("return 1", 0), Contains("memory_mb"));
  CHECK_THAT(with.error("return 1", 1 << 20), Contains("memory_mb"));
  CHECK_THAT(with.error("return 1", {}, 0), Contains("time_ms"));
}
