// One JSON value packed as MessagePack of the type that a signature asks for.
#pragma once

#include "values/signature.hpp"
#include <bulkhead/call.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <span>
#include <string>

namespace bulkhead::cli {

class value_packer {
 public:
  explicit value_packer(packed_arguments& out) : out_(out), packer_(out.params) {}

  // Throws argument_error "expected int, got str", with the index or key of an element that is at fault.
  void pack(const type& wanted, const nlohmann::ordered_json& value);
  void pack_bytes(std::span<const std::uint8_t> bytes);
  void pack_text(std::string_view text);
  void pack_nil() { packer_.pack_nil(); }
  // Opens "@FILE" for reading and packs the descriptor.
  void pack_file(std::string_view at_path);
  void pack_handle(unique_fd file);
  void begin(std::size_t arguments) { packer_.pack_array(static_cast<std::uint32_t>(arguments)); }

 private:
  void pack_any(const nlohmann::ordered_json& value);
  void pack_list(const type& wanted, const nlohmann::ordered_json& value);
  void pack_map(const type& wanted, const nlohmann::ordered_json& value);
  void pack_key(const type& wanted, const std::string& key);

  packed_arguments& out_;
  ipc::packer packer_;
};

// What a JSON value is, in the words of signatures.
std::string kind_of(const nlohmann::ordered_json& value);

}  // namespace bulkhead::cli
