// References to blobs in bytes of any kind, and the account of an arena's parts: what is found lies within the bytes, what
// is put in the place of references leaves one whole value, and no part is given out twice.
#include "fuzz.hpp"
#include <bulkhead/ipc/blob.hpp>
#include <bulkhead/ipc/scanner.hpp>

using namespace bulkhead;

namespace {

constexpr std::size_t arena = std::size_t{64} << 10;

unsigned references(ipc::byte_span value) {
  unsigned found = 0;
  for (ipc::byte_span rest = value; const auto next = ipc::next_bytes(rest);) {
    must(next->whole.data() >= value.data() && next->whole.data() + next->whole.size() <= value.data() + value.size());
    must(next->whole.data() + next->whole.size() == next->contents.data() + next->contents.size());
    const auto reference = ipc::reference_in(*next);
    if (!reference) continue;
    ++found;
    ipc::buffer again;
    ipc::append_reference(again, *reference);
    must(ipc::value_size(again.view()) == again.view().size());
    if (reference->within(arena)) must(reference->offset + reference->length <= arena);
  }
  return found;
}

void replace(ipc::byte_span value) {
  static const std::vector<std::uint8_t> memory(arena, 0xc1);  // no byte of a value
  unsigned replaced = 0;
  const auto plain =
      ipc::without_references(value, [&](const ipc::blob_reference& at) -> std::optional<ipc::byte_span> {
        if (!at.within(arena)) return std::nullopt;
        ++replaced;
        return ipc::byte_span(memory).subspan(at.offset, at.length);
      });
  must(ipc::value_size(plain) == plain.size());
  must(references(plain) + replaced == references(value));
}

// Two bytes of the input are a step: a size to be taken, or which of those taken is given back.
void share_out(ipc::byte_span steps) {
  ipc::range_allocator ranges(arena);
  std::map<std::size_t, std::size_t> taken;
  for (; steps.size() >= 2; steps = steps.subspan(2)) {
    const std::size_t value = static_cast<std::size_t>(steps[0] & 0x7f) << 8 | steps[1];
    if (steps[0] & 0x80) {
      const bool there = taken.erase(value / 16 * ipc::range_allocator::unit) > 0;
      must(ranges.give(value / 16 * ipc::range_allocator::unit) == there);
    } else if (const auto offset = ranges.take(value)) {
      const auto after = taken.lower_bound(*offset);
      must(*offset + value <= arena && (after == taken.end() || *offset + value <= after->first));
      if (after != taken.begin()) must(std::prev(after)->first + std::prev(after)->second <= *offset);
      must(taken.emplace(*offset, value).second);
    }
    must(ranges.empty() == taken.empty());
  }
  for (const auto& each : taken) must(ranges.give(each.first));
  must(ranges.take(arena) == 0);  // in one piece again
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ipc::byte_span bytes(data, size);
  references(bytes);
  if (const std::size_t value = ipc::value_size(bytes)) replace(bytes.first(value));
  share_out(bytes);
  return 0;
}
