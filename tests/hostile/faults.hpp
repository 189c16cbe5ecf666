// What else can be made to fail in test_faults, beside the places that faults.cpp goes through one by one.
#pragma once

#include <atomic>

namespace bulkhead::testing {

// While set, sendmsg() of descriptors fails with ETOOMANYREFS (and is counted), and no descriptor is duplicated: EMFILE.
extern std::atomic<bool> no_descriptors_sent, no_duplicates;
extern std::atomic<int> refused_descriptors, duplicates;  // attempts of the latter, whether they failed or not

}  // namespace bulkhead::testing
