// Records in the black box where a worker was when it crashed: registers, return addresses and the files they lie in.
// It runs in a signal handler of a process whose memory is ruined or hostile, so each step may itself crash: it then
// ends there, and what has been recorded stays. Nothing here looks names up; that is done elsewhere, from the files.
#pragma once

#include "report/black_box.hpp"

#include <span>
#include <string>

#include <ucontext.h>

namespace bulkhead {

// Which file is the plugin's, by the name that the loader knows it under.
void name_plugin_file(const std::string& path);

// Async-signal-safe; for one thread, once, with all signals blocked. Needs the worker's handlers for SIGSEGV and SIGBUS.
void record_stack(black_box& box, const ucontext_t& crashed);

// Who called whom where `at` was interrupted, as far as the unwinder finds code that is in a loaded file; as many of `out`
// as there were. Async-signal-safe, for any thread. Needs the same handlers.
std::span<const std::uint64_t> return_addresses(const ucontext_t& at, std::span<std::uint64_t> out);

// For the handler of a signal: when one of these itself has caused it, goes on with its next step and does not return.
void resume_recorder();

}  // namespace bulkhead
