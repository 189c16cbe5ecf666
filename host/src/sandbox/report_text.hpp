// A report of layers as it travels from the fork server to the host: lines "name\tin force\tdetail", the level first.
#pragma once

#include <bulkhead/policy.hpp>

namespace bulkhead::sandbox {

std::string to_lines(const sandbox_report& report);
std::string to_line(const sandbox_layer& layer);
sandbox_report from_lines(std::string_view text);

}  // namespace bulkhead::sandbox
