// What is read from a frame: its envelope, an error of any shape, text, an object tree, what is said about a stream. Each
// either fails or gives what keeps its promises.
#include "fuzz.hpp"
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/scanner.hpp>
#include <bulkhead/ipc/stream.hpp>

using namespace bulkhead;

namespace {

void check(ipc::byte_span frame) {
  if (const std::size_t size = ipc::value_size(frame)) {
    must(size <= frame.size());
    try {
      (void)ipc::unpack(frame.first(size));
    } catch (const msgpack::unpack_error&) {
    } catch (const msgpack::type_error&) {
    }
  }
  ipc::limits limits;
  limits.frame = 1 << 16;
  ipc::scanner scan(limits);
  std::size_t used = 0;
  if (scan.feed(frame, used) != ipc::scanner::status::complete) return;
  must(used <= limits.frame && used <= frame.size());
  const auto message = ipc::parse_message(frame.first(used));
  if (!message) return;
  const auto within = [&](ipc::byte_span part) {
    return part.empty() || (part.data() >= frame.data() && part.data() + part.size() <= frame.data() + used);
  };
  must(within(message->params) && within(message->error) && within(message->result));
  if (message->kind == ipc::message_kind::response) {
    const ipc::call_failure failure = ipc::parse_failure(message->error);
    must(failure.code != outcome::ok && failure.message.size() <= 4096);
  } else if (ipc::is_about_stream(message->method)) {
    if (const auto said = ipc::read_about_stream(*message)) must(within(said->value));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check({data, size});
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string clean = ipc::sanitised(text, 100);
  must(clean.size() <= 100 && ipc::sanitised(clean, 100) == clean);
  return 0;
}
