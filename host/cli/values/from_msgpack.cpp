// See from_msgpack.hpp.
#include "values/from_msgpack.hpp"

#include "values/base64.hpp"

#include <span>

namespace bulkhead::cli {
namespace {

std::span<const std::uint8_t> bytes_of(const char* data, std::size_t size) {
  return {reinterpret_cast<const std::uint8_t*>(data), size};
}

std::string key_text(const msgpack::object& key) {
  if (key.type == msgpack::type::STR) return {key.via.str.ptr, key.via.str.size};
  return compact(from_msgpack(key, bytes_as::base64));
}

// JSON leaves DEL and the C1 controls (U+0080 to U+009F) as they are, which terminals take for commands.
std::string without_controls(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  auto escape = [&](unsigned char c) {
    constexpr char hex[] = "0123456789abcdef";
    out.append({'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]});
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (c == 0x7f) {
      escape(c);
    } else if (c == 0xc2 && next >= 0x80 && next <= 0x9f) {
      escape(next);
      ++i;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

void write_pretty(std::string& out, const json& value, std::size_t indent, std::size_t used, std::size_t width) {
  const std::string line = compact(value);
  if (!value.is_structured() || value.empty() || indent + used + line.size() <= width) {
    out += line;
    return;
  }
  const bool object = value.is_object();
  out += object ? "{\n" : "[\n";
  std::size_t left = value.size();
  for (const auto& [key, element] : value.items()) {
    out.append(indent + 2, ' ');
    const std::string name = object ? compact(key) + ": " : "";
    out += name;
    write_pretty(out, element, indent + 2, name.size(), width);
    out += --left ? ",\n" : "\n";
  }
  out.append(indent, ' ');
  out += object ? "}" : "]";
}

}  // namespace

json from_msgpack(const msgpack::object& value, bytes_as how) {
  switch (value.type) {
    case msgpack::type::NIL: return nullptr;
    case msgpack::type::BOOLEAN: return value.via.boolean;
    case msgpack::type::POSITIVE_INTEGER: return value.via.u64;
    case msgpack::type::NEGATIVE_INTEGER: return value.via.i64;
    case msgpack::type::FLOAT32:
    case msgpack::type::FLOAT64: return value.via.f64;
    case msgpack::type::STR: return std::string(value.via.str.ptr, value.via.str.size);
    case msgpack::type::BIN: {
      if (how == bytes_as::summary) return "<bin " + std::to_string(value.via.bin.size) + " bytes>";
      return {{"$bin", to_base64(bytes_of(value.via.bin.ptr, value.via.bin.size))}};
    }
    case msgpack::type::EXT:
      return {{"$ext", value.via.ext.type()}, {"data", to_base64(bytes_of(value.via.ext.data(), value.via.ext.size))}};
    case msgpack::type::ARRAY: {
      json list = json::array();
      for (const auto& element : std::span(value.via.array.ptr, value.via.array.size))
        list.push_back(from_msgpack(element, how));
      return list;
    }
    case msgpack::type::MAP: {
      json object = json::object();
      // Appended as they come, twice the same key included: looking each one up would take a plugin's million keys
      // squared.
      auto& fields = static_cast<json::object_t::Container&>(object.get_ref<json::object_t&>());
      for (const auto& [key, field] : std::span(value.via.map.ptr, value.via.map.size))
        fields.emplace_back(key_text(key), from_msgpack(field, how));
      return object;
    }
  }
  return nullptr;
}

std::string compact(const json& value) {
  return without_controls(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

std::string pretty(const json& value, std::size_t width) {
  std::string out;
  write_pretty(out, value, 0, 0, width);
  return out;
}

}  // namespace bulkhead::cli
