// See values.hpp.
#include "values.hpp"

#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iostream>

namespace bulkhead::cli {
namespace {

using json = nlohmann::ordered_json;

const char* kind(const json& value) {
  switch (value.type()) {
    case json::value_t::null: return "nil";
    case json::value_t::boolean: return "bool";
    case json::value_t::number_integer:
    case json::value_t::number_unsigned: return "int";
    case json::value_t::number_float: return "float";
    case json::value_t::string: return "str";
    case json::value_t::array: return "array";
    case json::value_t::object: return "map";
    default: return "unknown";
  }
}

void pack_json(ipc::packer& packer, const json& value) {
  const std::vector<std::uint8_t> bytes = json::to_msgpack(value);
  packer.pack(msgpack::unpack(reinterpret_cast<const char*>(bytes.data()), bytes.size()).get());
}

bool fits(const std::string& type, const json& value) {
  const std::string base = type.substr(0, type.find('<'));
  if (base == "any") return true;
  if (base == "float") return value.is_number();
  return base == kind(value);
}

std::string base64(const char* data, std::size_t size) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < size; i += 3) {
    std::uint32_t three = 0;
    for (std::size_t k = 0; k < 3; ++k) three = three << 8 | (i + k < size ? static_cast<unsigned char>(data[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= size ? digits[three >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace

std::vector<parameter> parse_signature(const std::string& signature) {
  std::vector<parameter> parameters;
  int depth = 0;
  std::string current;
  auto end = [&] {
    const std::size_t from = current.find_first_not_of(' ');
    if (from == std::string::npos) return;
    current.erase(0, from);
    parameter one;
    const std::size_t space = current.find(' ');
    one.type = current.substr(0, space);
    if (space != std::string::npos) one.name = current.substr(space + 1);
    if (one.type.ends_with('?')) {
      one.optional = true;
      one.type.pop_back();
    }
    parameters.push_back(std::move(one));
    current.clear();
  };
  for (std::size_t i = signature.starts_with('(') ? 1 : 0; i < signature.size(); ++i) {
    const char c = signature[i];
    if (c == '<') ++depth;
    if (c == '>') --depth;
    if (depth == 0 && (c == ',' || c == ')')) {
      end();
      if (c == ')') break;
    } else {
      current += c;
    }
  }
  return parameters;
}

std::string read_file(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("file " + path + " can't be read: " + std::strerror(errno));
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void pack_bytes(packed_arguments& out, const std::string& data) {
  ipc::packer packer(out.params);
  packer.pack_bin(static_cast<std::uint32_t>(data.size()));
  packer.pack_bin_body(data.data(), static_cast<std::uint32_t>(data.size()));
}

void pack_text(packed_arguments& out, const parameter& wanted, const std::string& text) {
  ipc::packer packer(out.params);
  if (wanted.type == "handle") {
    if (!text.starts_with('@')) throw std::runtime_error("expected a handle: @FILE");
    const unique_fd file(::open(text.c_str() + 1, O_RDONLY | O_CLOEXEC));
    if (!file) throw std::runtime_error("file " + text.substr(1) + " can't be opened: " + std::strerror(errno));
    detail::pack_argument(out, packer, pass_fd{file.get()});
    return;
  }
  const bool binary = wanted.type == "bin" || wanted.type == "blob";
  if (binary && text.starts_with('@')) return pack_bytes(out, read_file(text.substr(1)));
  json value = json::parse(text, nullptr, false);
  // A bare word is text where text is wanted, and so is anything else that is no JSON string.
  if ((wanted.type == "str" || binary) && !value.is_string() && !(wanted.optional && value.is_null())) value = text;
  if (wanted.type == "any" && value.is_discarded()) value = text;
  if (value.is_discarded()) throw std::runtime_error("expected " + wanted.type + ", got what is not JSON: " + text);
  if (binary && value.is_string()) return pack_bytes(out, value.get<std::string>());
  if (!fits(wanted.type, value) && !(wanted.optional && value.is_null()))
    throw std::runtime_error("expected " + wanted.type + ", got " + kind(value));
  pack_json(packer, value);
}

json to_json(const msgpack::object& value, bool binary) {
  switch (value.type) {
    case msgpack::type::NIL: return nullptr;
    case msgpack::type::BOOLEAN: return value.via.boolean;
    case msgpack::type::POSITIVE_INTEGER: return value.via.u64;
    case msgpack::type::NEGATIVE_INTEGER: return value.via.i64;
    case msgpack::type::FLOAT32:
    case msgpack::type::FLOAT64: return value.via.f64;
    case msgpack::type::STR: return ipc::sanitised({value.via.str.ptr, value.via.str.size}, std::size_t{64} << 20);
    case msgpack::type::BIN:
      if (binary) return {{"$bin", base64(value.via.bin.ptr, value.via.bin.size)}};
      return "<bin of " + std::to_string(value.via.bin.size) + " bytes: --out FILE writes it>";
    case msgpack::type::EXT: return "<ext type " + std::to_string(value.via.ext.type()) + ">";
    case msgpack::type::ARRAY: {
      json array = json::array();
      for (const auto& each : std::span(value.via.array.ptr, value.via.array.size)) array.push_back(to_json(each, binary));
      return array;
    }
    case msgpack::type::MAP: {
      json map = json::object();
      for (const auto& [key, field] : std::span(value.via.map.ptr, value.via.map.size)) {
        const json name = to_json(key, binary);
        map[name.is_string() ? name.get<std::string>() : name.dump()] = to_json(field, binary);
      }
      return map;
    }
  }
  return nullptr;
}

}  // namespace bulkhead::cli
