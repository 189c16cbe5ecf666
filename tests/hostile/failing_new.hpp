// `new` that fails when it is told to, in the programs that failing_new.cpp is linked into.
#pragma once

namespace bulkhead::testing {

// Of allocations by `new` on this thread: how many were made since one is to fail, the first that does (negative: none), and
// whether all do from there on.
extern thread_local long allocations, failing_allocation;
extern thread_local bool all_after;

}  // namespace bulkhead::testing
