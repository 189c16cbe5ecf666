// MessagePack values as JSON: for programs (bytes as {"$bin": base64}) and for people (bytes as their number). The
// values come from plugins: the text is valid UTF-8 and free of control characters, whatever they hold.
#pragma once

#include <msgpack.hpp>
#include <nlohmann/json.hpp>

#include <string>

namespace bulkhead::cli {

using json = nlohmann::ordered_json;  // maps keep their order

enum class bytes_as { base64, summary };

// Keys of maps that are no strings become their JSON text. Extension types are {"$ext": type, "data": base64}.
json from_msgpack(const msgpack::object& value, bytes_as how);

// One line.
std::string compact(const json& value);
// Indented; what fits into `width` stays on one line.
std::string pretty(const json& value, std::size_t width = 100);

}  // namespace bulkhead::cli
