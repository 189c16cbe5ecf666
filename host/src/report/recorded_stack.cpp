// See recorded_stack.hpp.
#include "report/recorded_stack.hpp"

#include <bulkhead/ipc/message.hpp>

#include <algorithm>
#include <cstring>

namespace bulkhead {
namespace {

std::string hexadecimal(const unsigned char* bytes, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += "0123456789abcdef"[bytes[i] >> 4];
    text += "0123456789abcdef"[bytes[i] & 15];
  }
  return text;
}

void place(stack_frame& frame, const black_box::module& in) {
  if (in.kind == 0 || in.kind > static_cast<std::uint32_t>(code_origin::library) || frame.address < in.bias) return;
  frame.origin = static_cast<code_origin>(in.kind);
  frame.offset = frame.address - in.bias;
  frame.build_id = hexadecimal(in.build_id, std::min<std::size_t>(in.build_id_size, sizeof in.build_id));
  if (frame.origin == code_origin::library)
    frame.module = ipc::sanitised({in.name, ::strnlen(in.name, sizeof in.name)});
}

}  // namespace

recorded_stack read_stack(const black_box& box) {
  recorded_stack made;
  made.instruction_pointer = box.instruction_pointer;
  made.stack_pointer = box.stack_pointer;
  const std::uint64_t seen = box.frames_seen;
  if (seen > black_box::frames_limit) made.omitted = seen - black_box::frames_limit;
  const std::size_t modules = std::min<std::size_t>(box.modules_recorded, black_box::modules_limit);
  for (std::uint64_t i = 0; i < seen; ++i) {
    if (i == black_box::frames_first) i += made.omitted;
    const black_box::frame& recorded = box.frames[black_box::place_of(i)];
    stack_frame frame;
    frame.address = recorded.address;
    frame.guessed = recorded.guessed != 0;
    if (recorded.module < modules) place(frame, box.modules[recorded.module]);
    made.frames.push_back(std::move(frame));
  }
  return made;
}

}  // namespace bulkhead
