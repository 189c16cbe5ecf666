// A denial as it travels from a worker to its host: one line of its log, written by a signal handler, and read here as
// hostile text.
#pragma once

#include <bulkhead/policy.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bulkhead::sandbox {

// What such a line begins with; then, separated by blanks: architecture, number, six arguments, the result (all hex),
// the method or "-", the call's path or address percent-encoded or "-", and frames as file+offset.
inline constexpr std::string_view violation_mark = "#!bulkhead-violation ";

// A system call by the table of an architecture (AUDIT_ARCH_…): "openat"; "x32:12" and the like by a foreign table.
std::string system_call_name(std::uint32_t arch, int number);

// Nothing when it is no such line. `plugin` and `pid` are left for the caller to fill in.
std::optional<violation> parse_violation(std::string_view line);

// The same line from the fork server, with the process's id in hex and its program, percent-encoded or "-", in front.
std::optional<violation> parse_report(std::string_view line);

// "system call socket(AF_INET, SOCK_STREAM, 0) denied with EPERM in method 'fetch'; the grant connect:PORT would allow it"
std::string describe(const violation& what);

}  // namespace bulkhead::sandbox
