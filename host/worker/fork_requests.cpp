// See fork_requests.hpp.
#include "fork_requests.hpp"

#include "control_message.hpp"

#include <algorithm>
#include <cstring>

namespace bulkhead::fork_server {

bool receive(int control, incoming& in) {
  in.bytes.resize(strings_limit);
  const auto got = control_message::receive<descriptors_limit>(control, in.head, in.bytes, in.fds);
  const auto kind = in.head.kind;
  if (!got.whole || in.head.magic != magic || in.head.version != version || got.rest != in.head.strings_size ||
      kind < request_kind::spawn_plugin || kind > request_kind::examine)
    return false;
  in.bytes.resize(got.rest);
  if (!in.bytes.empty() && in.bytes.back() != 0) return false;
  for (char *at = in.bytes.data(), *end = at + in.bytes.size(); at < end; at += std::strlen(at) + 1)
    in.strings.push_back(at);
  if (in.strings.size() != in.head.strings) return false;
  return kind == request_kind::adopt || in.head.arguments < in.head.strings;
}

bool send(int control, answer& out, std::string& text, int pidfd) {
  text.resize(std::min(text.size(), report_limit));
  out.text_size = static_cast<std::uint32_t>(text.size());
  return control_message::send<1>(control, out, text, {&pidfd, pidfd >= 0 ? std::size_t{1} : 0}) ==
         static_cast<ssize_t>(sizeof out + text.size());
}

}  // namespace bulkhead::fork_server
