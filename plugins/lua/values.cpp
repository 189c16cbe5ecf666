// See values.hpp.
#include "values.hpp"

#include "script.hpp"

namespace lua {
namespace {

constexpr int depth_limit = 60;

void push(lua_State* state, const msgpack::object& value, int depth) {
  if (depth > depth_limit || !lua_checkstack(state, 4)) luaL_error(state, "args: nested too deeply");
  switch (value.type) {
    case msgpack::type::NIL: lua_pushnil(state); return;
    case msgpack::type::BOOLEAN: lua_pushboolean(state, value.via.boolean); return;
    case msgpack::type::POSITIVE_INTEGER:
      if (value.via.u64 > INT64_MAX) lua_pushnumber(state, static_cast<lua_Number>(value.via.u64));
      else lua_pushinteger(state, static_cast<lua_Integer>(value.via.u64));
      return;
    case msgpack::type::NEGATIVE_INTEGER: lua_pushinteger(state, value.via.i64); return;
    case msgpack::type::FLOAT32:
    case msgpack::type::FLOAT64: lua_pushnumber(state, value.via.f64); return;
    case msgpack::type::STR: lua_pushlstring(state, value.via.str.ptr, value.via.str.size); return;
    case msgpack::type::BIN: lua_pushlstring(state, value.via.bin.ptr, value.via.bin.size); return;
    case msgpack::type::ARRAY:
      lua_createtable(state, static_cast<int>(value.via.array.size), 0);
      for (std::uint32_t i = 0; i < value.via.array.size; ++i) {
        push(state, value.via.array.ptr[i], depth + 1);
        lua_rawseti(state, -2, static_cast<lua_Integer>(i) + 1);
      }
      return;
    case msgpack::type::MAP:
      lua_createtable(state, 0, static_cast<int>(value.via.map.size));
      for (std::uint32_t i = 0; i < value.via.map.size; ++i) {
        const msgpack::object_kv& pair = value.via.map.ptr[i];
        push(state, pair.key, depth + 1);
        // Neither can be a key.
        const bool none =
            lua_isnil(state, -1) || (lua_isnumber(state, -1) && lua_tonumber(state, -1) != lua_tonumber(state, -1));
        if (none) luaL_error(state, "args: nil and nan can't be keys");
        push(state, pair.val, depth + 1);
        lua_rawset(state, -3);
      }
      return;
    case msgpack::type::EXT: luaL_error(state, "args: a handle or blob is no value that scripts can use");
  }
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(at < text.size() ? text[at] : 0); };
    const unsigned char head = byte(i);
    const std::size_t more = head < 0x80                   ? 0
                             : head >= 0xc2 && head < 0xe0 ? 1
                             : (head & 0xf0) == 0xe0       ? 2
                             : head >= 0xf0 && head < 0xf5 ? 3
                                                           : 4;
    if (more == 4) return false;
    for (std::size_t k = 1; k <= more; ++k)
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    if ((head == 0xe0 && byte(i + 1) < 0xa0) || (head == 0xed && byte(i + 1) > 0x9f) ||
        (head == 0xf0 && byte(i + 1) < 0x90) || (head == 0xf4 && byte(i + 1) > 0x8f))
      return false;
    i += more + 1;
  }
  return true;
}

using packer = msgpack::packer<msgpack::sbuffer>;

// Whether the table's keys are 1 to n; and how many pairs it has.
bool is_array(lua_State* state, int table, std::uint32_t& count) {
  const lua_Unsigned size = lua_rawlen(state, table);
  bool array = true;
  count = 0;
  for (lua_pushnil(state); lua_next(state, table); lua_pop(state, 1)) {
    ++count;
    array = array && lua_isinteger(state, -2) && lua_tointeger(state, -2) >= 1 &&
            static_cast<lua_Unsigned>(lua_tointeger(state, -2)) <= size;
  }
  return array && count == size && count > 0;
}

}  // namespace

void push(lua_State* state, const msgpack::object& value) { push(state, value, 0); }

void pack(lua_State* state, int index, std::size_t limit, msgpack::sbuffer& to, int depth) {
  packer out(to);
  if (depth > depth_limit || !lua_checkstack(state, 4))
    throw script_error("the result is nested too deeply, or contains itself");
  if (to.size() > limit) throw script_error("the result has more than " + std::to_string(limit) + " bytes");
  index = lua_absindex(state, index);
  switch (lua_type(state, index)) {
    case LUA_TNIL: out.pack_nil(); return;
    case LUA_TBOOLEAN: lua_toboolean(state, index) ? out.pack_true() : out.pack_false(); return;
    case LUA_TNUMBER:
      if (lua_isinteger(state, index)) out.pack(static_cast<std::int64_t>(lua_tointeger(state, index)));
      else out.pack(static_cast<double>(lua_tonumber(state, index)));
      return;
    case LUA_TSTRING: {
      std::size_t size = 0;
      const char* text = lua_tolstring(state, index, &size);
      if (size > limit) throw script_error("the result has more than " + std::to_string(limit) + " bytes");
      if (is_utf8({text, size})) {
        out.pack_str(static_cast<std::uint32_t>(size));
        out.pack_str_body(text, static_cast<std::uint32_t>(size));
      } else {
        out.pack_bin(static_cast<std::uint32_t>(size));
        out.pack_bin_body(text, static_cast<std::uint32_t>(size));
      }
      return;
    }
    case LUA_TTABLE: {
      std::uint32_t count = 0;
      if (is_array(state, index, count)) {
        out.pack_array(count);
        for (std::uint32_t i = 1; i <= count; ++i) {
          lua_rawgeti(state, index, i);
          pack(state, -1, limit, to, depth + 1);
          lua_pop(state, 1);
        }
        return;
      }
      out.pack_map(count);
      for (lua_pushnil(state); lua_next(state, index); lua_pop(state, 1)) {
        pack(state, -2, limit, to, depth + 1);
        pack(state, -1, limit, to, depth + 1);
      }
      return;
    }
    default:
      throw script_error(std::string("a ") + lua_typename(state, lua_type(state, index)) +
                         " can't be part of the result");
  }
}

}  // namespace lua
