// The child's side of the process server's clone: from its first instruction to execve(). For a child without a sandbox it
// runs in the server's memory (as after vfork), so it allocates nothing and changes nothing there.
#pragma once

#include "process/protocol.hpp"
#include "sandbox/sandbox.hpp"

#include <vector>

#include <sys/resource.h>

namespace bulkhead::process {

struct start {
  const request* head = nullptr;
  int failure_pipe = -1;
  int end_pipe = -1;  // for an init: it has a PID namespace
  // From where the number of the group that it is to be in means nothing: the server puts it there, and writes the error,
  // or 0, to this pipe.
  int group_told = -1, group_teller = -1;
  std::vector<int> cgroups{};         // files to write "0" to, to be in them
  std::vector<int> streams{};         // the child's 0, 1, 2, …
  std::vector<char*> candidates{};    // files to try, in the order of PATH
  std::vector<char*> argv{}, envp{};  // both end with null
  const char* directory = "";         // empty: where the server is
  rlimit files{};                     // RLIMIT_NOFILE as the host has it
  sandbox::prepared* prepared = nullptr;
  int supervisor = -1;  // with `prepared`
};

// For clone(2): takes a start*, returns an exit status if the program can't be executed.
int start_child(void* start);

}  // namespace bulkhead::process
