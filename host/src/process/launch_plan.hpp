// From options to what the process server is asked for: environment, files, the policy's additions. No processes here.
#pragma once

#include "process/server_client.hpp"
#include <bulkhead/child.hpp>

namespace bulkhead::process {

// Throws std::invalid_argument when options don't go together. `streams`, `reports`, `end` and `cgroups` are left to
// the caller.
spawn_request plan(const std::string& file, const std::vector<std::string>& arguments, const process_options& options);

// The application's environment, or what the options say, with their additions.
std::vector<std::string> environment_of(const process_options& options);

}  // namespace bulkhead::process
