// Values between the command line and MessagePack: arguments by the method's signature, results as JSON.
#pragma once

#include <bulkhead/call.hpp>

#include <nlohmann/json.hpp>

namespace bulkhead::cli {

struct parameter {
  std::string type, name;
  bool optional = false;
};

// The parameters of a signature "(bin image, int max_side, str? format) -> bin".
std::vector<parameter> parse_signature(const std::string& signature);

// Packs one argument. JSON, but: for bin and blob, a JSON string or a bare word is its bytes and @FILE the contents of
// a file; for handle, @FILE is opened for reading and passed; for str, a bare word need not be quoted. Throws
// std::runtime_error "expected int, got str".
void pack_text(packed_arguments& out, const parameter& wanted, const std::string& text);
void pack_bytes(packed_arguments& out, const std::string& data);
std::string read_file(const std::string& path);  // "-": standard input

// A result as JSON. Binary data becomes {"$bin": base64} when `binary`, else a note on its size.
nlohmann::ordered_json to_json(const msgpack::object& value, bool binary);

}  // namespace bulkhead::cli
