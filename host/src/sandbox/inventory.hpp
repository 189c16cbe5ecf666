// What descriptors a worker has, looked over as the last step of its birth.
#pragma once

namespace bulkhead::sandbox {

// Asserts that no descriptor above this one is open. Throws std::runtime_error naming one.
void check_inventory(int highest_allowed);

}  // namespace bulkhead::sandbox
