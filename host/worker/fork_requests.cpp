// See fork_requests.hpp.
#include "fork_requests.hpp"

#include "control_message.hpp"

#include <algorithm>
#include <cstring>

namespace bulkhead::fork_server {

bool receive(int control, incoming& in) {
  std::vector<char> strings(strings_limit);
  const auto got = control_message::receive<descriptors_limit>(control, in.head, strings, in.fds);
  if (!got.whole || in.head.magic != magic || in.head.version != version || got.rest != in.head.strings_size)
    return false;
  const char* at = strings.data();
  const char* const end = at + in.head.strings_size;
  for (std::uint32_t i = 0; i < in.head.strings && at < end; ++i) {
    in.strings.emplace_back(at, ::strnlen(at, static_cast<std::size_t>(end - at)));
    at += in.strings.back().size() + 1;
  }
  return in.head.kind == request_kind::adopt || in.head.arguments + 1 <= in.strings.size();
}

bool send(int control, answer& out, std::string& text, int pidfd) {
  text.resize(std::min(text.size(), report_limit));
  out.text_size = static_cast<std::uint32_t>(text.size());
  return control_message::send<1>(control, out, text, {&pidfd, pidfd >= 0 ? std::size_t{1} : 0}) ==
         static_cast<ssize_t>(sizeof out + text.size());
}

}  // namespace bulkhead::fork_server
