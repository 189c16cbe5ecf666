// See node_wire.hpp.
#include "process/node_wire.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include <sys/socket.h>

namespace bulkhead::node {
namespace {

std::size_t depth_of(std::string_view text) {
  std::size_t depth = 0, deepest = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

// JavaScript cuts strings between the halves of a pair of surrogates, and its JSON has such a half as an escape, which no
// UTF-8 can be made of: U+FFFD stands for it, as in all that Node itself turns into UTF-8.
std::string without_lone_surrogates(std::string_view line) {
  std::string out(line);
  const auto unit = [&](std::size_t at) -> unsigned {  // of the escape \uXXXX there; 0: there is none
    if (out.compare(at, 2, "\\u") != 0 || out.size() - at < 6) return 0;
    unsigned value = 0;
    return std::from_chars(&out[at + 2], &out[at] + 6, value, 16).ptr == &out[at] + 6 ? value : 0;
  };
  for (std::size_t at = 0; (at = out.find('\\', at)) != std::string::npos;) {
    const unsigned first = unit(at);
    if ((first & 0xf800) != 0xd800) at += 2;  // the character escaped may be a backslash
    else if (first < 0xdc00 && (unit(at + 6) & 0xfc00) == 0xdc00) at += 12;
    else out.replace(at, 6, "\\ufffd");  // which is looked at again, and is none
  }
  return out;
}

bool has_discarded(const nlohmann::json& value) {
  return value.is_discarded() || (value.is_structured() && std::any_of(value.begin(), value.end(), has_discarded));
}

int option_of(int socket, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  ::getsockopt(socket, SOL_SOCKET, option, &value, &size);
  return value;
}

bool is_unix(handle_kind kind) { return kind == handle_kind::unix_socket || kind == handle_kind::unix_listener; }

}  // namespace

bool is_command(const nlohmann::json& message, std::string_view command) {
  const auto found = message.is_object() ? message.find("cmd") : message.end();
  return message.is_object() && found != message.end() && found->is_string() &&
         found->get_ref<const std::string&>() == command;
}

bool is_internal(const nlohmann::json& message) {
  if (!message.is_object()) return false;
  const auto found = message.find("cmd");
  if (found == message.end() || !found->is_string()) return false;
  const auto& command = found->get_ref<const std::string&>();
  return command.size() > 5 && command.starts_with("NODE_");
}

nlohmann::json parse_line(std::string_view line) {
  if (line.empty()) throw std::runtime_error("an empty line");
  if (depth_of(line) > depth_limit) throw std::runtime_error("a message nested deeper than 64");
  std::string whole;
  if (line.find("\\u") != line.npos) line = whole = without_lone_surrogates(line);
  auto message = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  if (message.is_discarded()) throw std::runtime_error("a line that is not JSON");
  return message;
}

std::string to_line(const nlohmann::json& message) {
  std::string line = message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  if (line.find("<discarded>") != line.npos && has_discarded(message))
    throw std::invalid_argument("a message with a discarded value in it, which is no JSON, can't be sent");
  return line;
}

nlohmann::json envelope(const nlohmann::json& message, const passed_handle& handle, bool any) {
  nlohmann::json out = {{"cmd", "NODE_HANDLE"}, {"msg", message}};
  if (!any && is_unix(handle.kind()) && option_of(handle.fd(), SO_TYPE) != SOCK_STREAM)
    throw std::invalid_argument(
        "a Unix socket that is no stream can't be sent to Node, which would take no handle after it");
  switch (handle.kind()) {
    case handle_kind::tcp_socket:
    case handle_kind::unix_socket:
    case handle_kind::pipe: out["type"] = "net.Socket"; break;
    case handle_kind::tcp_listener:
    case handle_kind::unix_listener: out["type"] = "net.Server"; break;
    case handle_kind::udp_socket:
      out["type"] = "dgram.Socket";
      out["dgramType"] = option_of(handle.fd(), SO_DOMAIN) == AF_INET6 ? "udp6" : "udp4";
      break;
    default:
      if (!any)
        throw std::invalid_argument("a handle of the kind " + std::string(to_string(handle.kind())) +
                                    " can't be sent to Node, which would abort, or take no handle after it");
      out["type"] = "net.Native";
  }
  return out;
}

std::vector<unique_fd> descriptor_of(passed_handle handle) {
  std::vector<unique_fd> alone;
  alone.push_back(handle.release());
  return alone;
}

}  // namespace bulkhead::node
