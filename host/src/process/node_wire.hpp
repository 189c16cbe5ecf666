// What goes over Node's channel, without the channel: checks of what comes, envelopes for handles. Pure.
#pragma once

#include <bulkhead/passed_handle.hpp>

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace bulkhead::node {

inline constexpr std::size_t depth_limit = 64;

// An object that Node keeps to itself: "cmd" begins with NODE_ and is longer than that.
bool is_internal(const nlohmann::json& message);
bool is_command(const nlohmann::json& message, std::string_view command);

// One line from a peer. Throws std::runtime_error saying what is wrong with it; arrays and objects deeper than the limit
// are, since whatever handles them later recurses. Lone surrogates in its strings are replaced by U+FFFD.
nlohmann::json parse_line(std::string_view line);
// With the line break. Text that is not UTF-8 is replaced. Throws std::invalid_argument for discarded values, which are no
// JSON.
std::string to_line(const nlohmann::json& message);

// {"cmd":"NODE_HANDLE",…} around a message with this handle. Throws std::invalid_argument for one that Node can't take,
// unless `any`.
nlohmann::json envelope(const nlohmann::json& message, const passed_handle& handle, bool any);

// The handle's descriptor, to be discarded.
std::vector<unique_fd> descriptor_of(passed_handle handle);

}  // namespace bulkhead::node
