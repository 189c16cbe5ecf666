// Running this program again under gdb.
#pragma once

#include <string>
#include <vector>

namespace bulkhead::cli {

// Becomes gdb, which runs `bulkhead WORDS...` and shows the stack if it crashes; without a terminal it ends then. `core`: a
// file that it writes a core dump to in that case; empty: none. Throws std::runtime_error when there is no gdb.
[[noreturn]] void run_in_gdb(const std::vector<std::string>& words, const std::string& core = "");

}  // namespace bulkhead::cli
