// Where plugins are: a path is taken as it is, a bare name is looked up.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace bulkhead::cli {

// The file of PLUGIN as given on the command line. With a '/', that is a path; otherwise NAME.so is looked for in the
// folders of BULKHEAD_PLUGIN_PATH (separated by colons), in the installed plugins, and in ../plugins as seen from the
// program. Throws usage_error that lists the places searched.
std::filesystem::path find_plugin(const std::string& plugin);

// The names that find_plugin() finds, sorted.
std::vector<std::string> installed_plugins();

}  // namespace bulkhead::cli
