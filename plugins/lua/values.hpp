// MessagePack values to Lua's and back.
#pragma once

#include <lua.hpp>
#include <msgpack.hpp>

namespace lua {

// Pushes it. May raise a Lua error: for memory, depth, or an extension type.
void push(lua_State* state, const msgpack::object& value);

// Packs the value at `index`. Throws script_error for what is no data (functions, cycles) or exceeds `limit` bytes; runs no
// code of the script's.
void pack(lua_State* state, int index, std::size_t limit, msgpack::sbuffer& to, int depth = 0);

}  // namespace lua
