// Denied system calls, in the worker: SIGSYS arrives on the thread that made the call, its handler writes one line to
// the worker's log (see violation_text.hpp) and makes the call fail. No cost where nothing is denied.
#pragma once

#include "report/black_box.hpp"
#include <bulkhead/policy.hpp>

#include <vector>

#include <linux/filter.h>

namespace bulkhead::sandbox {

// Puts in front of a filter what it can't be told to do: SIGSYS's handler can't be replaced; and to explain or to learn,
// the calls of the handler itself pass, while opening files is trapped, and to explain also what else names files or ports.
void add_trap_prologue(std::vector<sock_filter>& program, const policy::values& granted);

// Installs the handler. `box` says which method was in progress, and counts.
void install_violation_trap(const policy::values& granted, black_box& box);

}  // namespace bulkhead::sandbox
