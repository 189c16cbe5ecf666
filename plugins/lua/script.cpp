// See script.hpp. Limits: an allocator that counts, and a hook that is called each 1,000 instructions. A script can catch
// the error that the hook raises; from then on it is raised at each instruction, so that catching it again leads nowhere.
// Finalizers would run without hooks, so there are none; and so would what a coroutine has left to be closed, if that
// were not done inside of it.
#include "script.hpp"

#include "values.hpp"

#include <cstdlib>
#include <memory>

namespace lua {
namespace {

using clock = std::chrono::steady_clock;

constexpr int instructions_between = 1000;

struct running {
  const limits& within;
  const msgpack::object& args;
  clock::time_point end;
  std::string_view source;
  std::size_t memory = 0;
  const char* stopped = nullptr;  // by which limit
};

running& of(lua_State* state) { return **static_cast<running**>(lua_getextraspace(state)); }

void* allocate(void* of, void* block, std::size_t before, std::size_t after) {
  auto& run = *static_cast<running*>(of);
  if (!block) before = 0;  // it is a kind of object then
  if (after == 0) {
    std::free(block);
    run.memory -= before;
    return nullptr;
  }
  if (after > before && run.memory - before + after > run.within.memory) return nullptr;
  void* const made = std::realloc(block, after);
  if (made) run.memory += after - before;
  return made;
}

void watch(lua_State* state, lua_Debug*) {
  running& run = of(state);
  if (!run.stopped) {
    if (run.within.cancelled()) run.stopped = "cancelled";
    else if (clock::now() >= run.end) run.stopped = "the script ran out of time";
  }
  if (!run.stopped) return;
  lua_sethook(state, watch, LUA_MASKCOUNT, 1);
  luaL_error(state, "%s", run.stopped);
}

int print(lua_State* state) {
  const int count = lua_gettop(state);
  luaL_Buffer line;
  luaL_buffinit(state, &line);
  for (int i = 1; i <= count; ++i) {
    if (i > 1) luaL_addchar(&line, '\t');
    luaL_tolstring(state, i, nullptr);
    luaL_addvalue(&line);
  }
  luaL_pushresult(&line);
  std::size_t size = 0;
  const char* text = lua_tolstring(state, -1, &size);
  of(state).within.print({text, size});
  return 0;
}

// setmetatable(), but for finalizers. Its upvalue is Lua's own.
int set_metatable(lua_State* state) {
  if (lua_istable(state, 2)) {
    lua_pushliteral(state, "__gc");
    if (lua_rawget(state, 2) != LUA_TNIL) return luaL_error(state, "there are no finalizers here (__gc)");
    lua_pop(state, 1);
  }
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, lua_gettop(state) - 1, LUA_MULTRET);
  return lua_gettop(state);
}

// load(), but of text alone: bytecode is not checked by Lua.
int load_text(lua_State* state) {
  lua_settop(state, 4);
  lua_pushliteral(state, "t");
  lua_replace(state, 3);
  const bool has_environment = !lua_isnoneornil(state, 4);
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_settop(state, has_environment ? 5 : 4);
  lua_call(state, has_environment ? 4 : 3, LUA_MULTRET);
  return lua_gettop(state);
}

// xpcall(), with its handler called when the error has been caught: Lua calls it before, and then without hooks, if it is
// the hook that raised the error.
int protected_call(lua_State* state) {
  luaL_checktype(state, 2, LUA_TFUNCTION);
  lua_pushvalue(state, 2);
  lua_insert(state, 1);  // handler, function, handler, arguments...
  lua_remove(state, 3);
  const int status = lua_pcall(state, lua_gettop(state) - 2, LUA_MULTRET, 0);
  lua_pushboolean(state, status == LUA_OK);
  if (status == LUA_OK) {
    lua_replace(state, 1);
    return lua_gettop(state);
  }
  lua_insert(state, 1);  // false, handler, error
  lua_call(state, 1, 1);
  return 2;
}

// The body of each coroutine, protected. When the hook's error ends a coroutine, Lua closes its variables from outside, and
// calls no hooks then; a protected call closes them first, and calls hooks.
int body_ended(lua_State* state, int status, lua_KContext) {
  if (status != LUA_OK && status != LUA_YIELD) return lua_error(state);
  return lua_gettop(state);
}
int body(lua_State* state) {
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  return body_ended(state, lua_pcallk(state, lua_gettop(state) - 1, LUA_MULTRET, 0, 0, body_ended), 0);
}

// coroutine.create() and wrap(), with such a body. The upvalue is Lua's own.
int make_coroutine(lua_State* state) {
  luaL_checktype(state, 1, LUA_TFUNCTION);
  lua_settop(state, 1);
  lua_pushcclosure(state, body, 1);
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, 1, 1);
  return 1;
}

void wrap(lua_State* state, const char* name, lua_CFunction with) {
  lua_getglobal(state, name);
  lua_pushcclosure(state, with, 1);
  lua_setglobal(state, name);
}

// In protected mode: whatever fails here is a Lua error. Leaves the script's results on the stack.
int prepare_and_run(lua_State* state) {
  const running& run = of(state);
  const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},        {LUA_TABLIBNAME, luaopen_table},
                                {LUA_STRLIBNAME, luaopen_string}, {LUA_MATHLIBNAME, luaopen_math},
                                {LUA_UTF8LIBNAME, luaopen_utf8},  {LUA_COLIBNAME, luaopen_coroutine}};
  for (const luaL_Reg& each : libraries) {
    luaL_requiref(state, each.name, each.func, 1);
    lua_pop(state, 1);
  }
  for (const char* gone : {"dofile", "loadfile", "collectgarbage", "warn"}) {
    lua_pushnil(state);
    lua_setglobal(state, gone);
  }
  lua_getglobal(state, "string");  // string.dump makes bytecode
  lua_pushnil(state);
  lua_setfield(state, -2, "dump");
  lua_pop(state, 1);
  lua_getglobal(state, LUA_COLIBNAME);
  for (const char* name : {"create", "wrap"}) {
    lua_getfield(state, -1, name);
    lua_pushcclosure(state, make_coroutine, 1);
    lua_setfield(state, -2, name);
  }
  lua_pop(state, 1);
  wrap(state, "setmetatable", set_metatable);
  wrap(state, "load", load_text);
  lua_pushcfunction(state, protected_call);
  lua_setglobal(state, "xpcall");
  lua_pushcfunction(state, print);
  lua_setglobal(state, "print");
  push(state, run.args);
  lua_setglobal(state, "args");
  lua_sethook(state, watch, LUA_MASKCOUNT, instructions_between);
  if (luaL_loadbufferx(state, run.source.data(), run.source.size(), "=script", "t") != LUA_OK) return lua_error(state);
  lua_call(state, 0, LUA_MULTRET);
  return lua_gettop(state);
}

}  // namespace

void run(std::string_view source, const msgpack::object& args, const limits& within, msgpack::sbuffer& result) {
  running run{within, args, clock::now() + within.time, source};
  const std::unique_ptr<lua_State, void (*)(lua_State*)> state(lua_newstate(allocate, &run), lua_close);
  if (!state) throw script_error("the memory limit is too small for any script");
  *static_cast<running**>(lua_getextraspace(state.get())) = &run;
  // A function without upvalues takes no memory, so this raises no error.
  lua_pushcfunction(state.get(), prepare_and_run);
  const int status = lua_pcall(state.get(), 0, LUA_MULTRET, 0);
  lua_sethook(state.get(), nullptr, 0, 0);
  if (status == LUA_ERRMEM)
    throw script_error("the script needs more than " + std::to_string(within.memory) + " bytes of memory");
  if (run.stopped) throw script_error(run.stopped);
  if (status != LUA_OK) {
    const char* text = lua_type(state.get(), -1) == LUA_TSTRING ? lua_tostring(state.get(), -1) : nullptr;
    throw script_error(text ? text : "the script raised an error that is no text");
  }
  const int count = lua_gettop(state.get());
  if (count > 1) msgpack::packer<msgpack::sbuffer>(result).pack_array(static_cast<std::uint32_t>(count));
  if (count == 0) msgpack::packer<msgpack::sbuffer>(result).pack_nil();
  for (int i = 1; i <= count; ++i) pack(state.get(), i, within.result, result);
}

}  // namespace lua
