// The system calls that a policy can grant, in groups named for what they are for. Allow-lists only: what is in none of
// the granted groups is denied, also what kernels to come will add.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace bulkhead::sandbox {

// The names in a group; empty when there is none of that name. "base" is what every plugin has. Calls that are in
// addition filtered by argument (see seccomp.cpp) are in the lists too.
std::span<const char* const> syscall_group(std::string_view name);
// Names of all groups that allow_syscalls() takes.
std::span<const char* const> syscall_group_names();

// Whether it is a group, or the name of a system call of this machine.
bool known_syscalls(const std::string& group_or_name);
// Calls that undo the sandbox: no policy may name them.
bool never_granted(std::string_view name);

// "openat"; "syscall 999" when it has no name.
std::string syscall_name(int number);
// -1 when there is none of that name on this machine.
int syscall_number(const std::string& name);

}  // namespace bulkhead::sandbox
