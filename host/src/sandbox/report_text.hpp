// A report of layers as it travels from the fork server to the host: lines "name\tin force\tdetail", the level first.
#pragma once

#include <bulkhead/policy.hpp>

namespace bulkhead::sandbox {

std::string to_lines(const sandbox_report& report);
std::string to_line(const sandbox_layer& layer);
sandbox_report from_lines(std::string_view text);

// In a layer's detail, ahead of the paths that are granted and could not be opened.
inline constexpr std::string_view not_there = "granted but not there: ";
// What the layers in force say of those, from there on; empty if there are none.
std::string missing_grants(const sandbox_report& report);

}  // namespace bulkhead::sandbox
