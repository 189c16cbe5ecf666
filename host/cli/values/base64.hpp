// Base64 as in RFC 4648, with padding: how bytes stand in JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead::cli {

std::string to_base64(std::span<const std::uint8_t> bytes);
// Nothing when it is not base64, to the last bit.
std::optional<std::vector<std::uint8_t>> from_base64(std::string_view text);

}  // namespace bulkhead::cli
