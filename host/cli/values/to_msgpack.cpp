// See to_msgpack.hpp.
#include "values/to_msgpack.hpp"

#include "values/arguments.hpp"
#include "values/base64.hpp"

#include <fcntl.h>

namespace bulkhead::cli {
namespace {

using json = nlohmann::ordered_json;

[[noreturn]] void mismatch(const type& wanted, const json& value) {
  throw argument_error("expected " + to_string(wanted) + ", got " + kind_of(value));
}

// {"$bin": "base64"}, which is also how results are printed.
const json* bytes_member(const json& value) {
  if (!value.is_object() || value.size() != 1) return nullptr;
  const auto found = value.find("$bin");
  return found != value.end() && found->is_string() ? &*found : nullptr;
}

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// Runs `pack` for one element; says which one it was that did not fit.
template <class F>
void element(const std::string& where, F pack) {
  try {
    pack();
  } catch (const argument_error& error) {
    throw argument_error(where + ": " + error.what());
  }
}

}  // namespace

std::string kind_of(const json& value) {
  switch (value.type()) {
    case json::value_t::null: return "nil";
    case json::value_t::boolean: return "bool";
    case json::value_t::number_integer:
    case json::value_t::number_unsigned: return "int";
    case json::value_t::number_float: return "float";
    case json::value_t::string: return "str";
    case json::value_t::array: return "array";
    case json::value_t::object: return bytes_member(value) ? "bin" : "map";
    default: return "nothing";
  }
}

void value_packer::pack(const type& wanted, const json& value) {
  if (wanted.optional && value.is_null()) return pack_nil();
  switch (wanted.kind) {
    case kind::any: return pack_any(value);
    case kind::array: return pack_list(wanted, value);
    case kind::map: return pack_map(wanted, value);
    case kind::nil:
      if (value.is_null()) return pack_nil();
      break;
    case kind::boolean:
      if (value.is_boolean()) return static_cast<void>(packer_.pack(value.get<bool>()));
      break;
    case kind::integer:
      if (value.is_number_integer()) return pack_any(value);
      break;
    case kind::real:
      if (value.is_number()) return static_cast<void>(packer_.pack_double(value.get<double>()));
      break;
    case kind::text:
      if (value.is_string()) return pack_text(value.get_ref<const std::string&>());
      break;
    case kind::binary:
    case kind::blob:
      if (value.is_string()) return pack_bytes(bytes_of(value.get_ref<const std::string&>()));
      if (bytes_member(value)) return pack_any(value);
      break;
    case kind::handle:
      if (value.is_string()) return pack_file(value.get_ref<const std::string&>());
      break;
  }
  mismatch(wanted, value);
}

void value_packer::pack_any(const json& value) {
  switch (value.type()) {
    case json::value_t::boolean: packer_.pack(value.get<bool>()); return;
    case json::value_t::number_integer: packer_.pack(value.get<std::int64_t>()); return;
    case json::value_t::number_unsigned: packer_.pack(value.get<std::uint64_t>()); return;
    case json::value_t::number_float: packer_.pack_double(value.get<double>()); return;
    case json::value_t::string: return pack_text(value.get_ref<const std::string&>());
    case json::value_t::array: return pack_list({kind::array}, value);
    case json::value_t::object: {
      const json* encoded = bytes_member(value);
      if (!encoded) return pack_map({kind::map}, value);
      const auto bytes = from_base64(encoded->get_ref<const std::string&>());
      if (!bytes) throw argument_error("{\"$bin\": ...} does not hold base64");
      return pack_bytes(*bytes);
    }
    default: return pack_nil();
  }
}

void value_packer::pack_list(const type& wanted, const json& value) {
  if (!value.is_array()) mismatch(wanted, value);
  packer_.pack_array(static_cast<std::uint32_t>(value.size()));
  const type of = wanted.of.empty() ? type{} : wanted.of[0];
  std::size_t index = 0;
  for (const json& each : value) {
    element("element " + std::to_string(index), [&] { pack(of, each); });
    ++index;
  }
}

void value_packer::pack_map(const type& wanted, const json& value) {
  if (!value.is_object()) mismatch(wanted, value);
  packer_.pack_map(static_cast<std::uint32_t>(value.size()));
  const bool typed = wanted.of.size() == 2;
  for (const auto& [key, field] : value.items()) {
    element("key '" + key + "'", [&, &name = key] { pack_key(typed ? wanted.of[0] : type{kind::text}, name); });
    element("value of '" + key + "'", [&, &given = field] { pack(typed ? wanted.of[1] : type{}, given); });
  }
}

// Keys are text in JSON; one of another type is written as it would be written as a value: {"1": "one"}.
void value_packer::pack_key(const type& wanted, const std::string& key) {
  if (wanted.kind == kind::text || wanted.kind == kind::any) return pack_text(key);
  const json parsed = json::parse(key, nullptr, false);
  if (parsed.is_discarded()) throw argument_error("expected " + to_string(wanted) + ", got str");
  pack(wanted, parsed);
}

void value_packer::pack_text(std::string_view text) {
  packer_.pack_str(static_cast<std::uint32_t>(text.size()));
  packer_.pack_str_body(text.data(), static_cast<std::uint32_t>(text.size()));
}

void value_packer::pack_bytes(std::span<const std::uint8_t> bytes) {
  packer_.pack_bin(static_cast<std::uint32_t>(bytes.size()));
  packer_.pack_bin_body(reinterpret_cast<const char*>(bytes.data()), static_cast<std::uint32_t>(bytes.size()));
}

void value_packer::pack_file(std::string_view at_path) {
  if (!at_path.starts_with('@') || at_path.size() < 2)
    throw argument_error("expected handle, got str; write @FILE to open a file for reading and pass it");
  const std::string path(at_path.substr(1));
  unique_fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!file) throw std::runtime_error(path + " can't be opened: " + std::generic_category().message(errno));
  pack_handle(std::move(file));
}

void value_packer::pack_handle(unique_fd file) {
  const char index = static_cast<char>(out_.handles.size());
  out_.handles.push_back(std::move(file));
  packer_.pack_ext(1, ipc::ext_handle);
  packer_.pack_ext_body(&index, 1);
}

}  // namespace bulkhead::cli
