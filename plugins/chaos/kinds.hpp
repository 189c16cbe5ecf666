// The kinds of misbehaviour, by name. Each can happen in a call or at a moment of the plugin's life (see chaos.cpp).
#pragma once

#include <span>
#include <string_view>

namespace chaos {

struct kind {
  const char* name;
  void (*act)();  // may return, throw, hang or end the process
};

// Everything that needs no call to misbehave with.
std::span<const kind> kinds();
// Null when there is none of that name.
const kind* find(std::string_view name);

// channel_abuse.cpp: to the channel's descriptor, which is the only stream socket a worker has.
void close_channel();
void close_all_fds();
void garbage_on_channel();
void forged_response();

// memory_abuse.cpp
void memory_bomb();
void stdout_flood();
void stderr_lines();

// Never comes back, uses no processor.
[[noreturn]] void sleep_forever();

}  // namespace chaos
