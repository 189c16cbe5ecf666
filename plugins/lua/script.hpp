// Runs one script in a Lua state of its own, within limits of memory and time. The state has what computes and nothing
// that reaches out: no files, no processes, no bytecode.
#pragma once

#include <msgpack.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lua {

struct limits {
  std::size_t memory = std::size_t{64} << 20;                 // bytes, of all its values together
  std::chrono::nanoseconds time = std::chrono::seconds(10);   // by the clock
  std::size_t result = std::size_t{8} << 20;                  // bytes, packed
  std::function<bool()> cancelled = [] { return false; };     // asked each 1,000 instructions
  std::function<void(std::string_view)> print = [](auto) {};  // a line of print()
};

// What is wrong with the script, with its line; or which limit it ran into.
class script_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs `source` with the global `args` (an array, or nil), and packs what it returns: nothing as nil, several values as an
// array. Tables with keys 1 to n are arrays, others maps. Throws script_error. Blocks until it is done; a single call of a
// function of Lua's own library (a search for a pathological pattern) is not interrupted, nor is a __close metamethod of a
// coroutine that ran out of time: those are ended with their worker, at the deadline of the call.
void run(std::string_view source, const msgpack::object& args, const limits& within, msgpack::sbuffer& result);

}  // namespace lua
