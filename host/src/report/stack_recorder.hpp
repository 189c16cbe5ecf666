// Records in the black box where a worker was when it crashed: registers, return addresses and the files they lie in.
// It runs in a signal handler of a process whose memory is ruined or hostile, so each step may itself crash: it then
// ends there, and what has been recorded stays. Nothing here looks names up; that is done elsewhere, from the files.
#pragma once

#include "report/black_box.hpp"

#include <string>

#include <ucontext.h>

namespace bulkhead {

// Which file is the plugin's, by the name that the loader knows it under.
void name_plugin_file(const std::string& path);

// Async-signal-safe; for one thread, once, with all signals blocked. Needs the worker's handlers for SIGSEGV and SIGBUS.
void record_stack(black_box& box, const ucontext_t& crashed);

// For the handler of a signal: when record_stack() itself has caused it, goes on with the recorder's next step and does
// not return.
void resume_recorder();

}  // namespace bulkhead
