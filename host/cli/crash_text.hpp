// A crash report as people read it.
#pragma once

#include "terminal.hpp"
#include <bulkhead/crash_report.hpp>

namespace bulkhead::cli {

enum class frames_shown { all, to_the_plugin };  // the latter leaves out how the worker came to call the plugin

// One line for each frame, or more where it is narrow; nothing for a report without any.
void print_stack(stream where, const crash_report& report, frames_shown which);
// The whole report, to stdout.
void print_report(const crash_report& report);
// "2024-05-01 12:03:01", of this machine's time zone.
std::string local_time(std::chrono::system_clock::time_point time);

}  // namespace bulkhead::cli
