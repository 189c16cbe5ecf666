// See bulkhead/blob.hpp.
#include <bulkhead/blob.hpp>

#include <cstring>
#include <stdexcept>

namespace bulkhead {

const ipc::held_blob& shared_blob::held(const char* wanted) const {
  if (held_) return *held_;
  throw std::logic_error(
      std::string("bulkhead::shared_blob::") + wanted +
      (any_ ? ": the blob was released before" : ": there is no blob here; plugin::make_blob() makes one"));
}

std::span<std::uint8_t> shared_blob::writable() const {
  const ipc::held_blob& blob = held("writable()");
  if (!blob.writable()) throw std::logic_error("bulkhead::shared_blob::writable(): this blob is a result: copy() it");
  return blob.bytes();
}

void shared_blob::release() {
  held("release()");
  held_.reset();
}

namespace detail {
namespace {

class private_memory final : public ipc::blob_arena {
 public:
  explicit private_memory(ipc::byte_span from) : bytes(from.begin(), from.end()) {}
  void give_back(std::size_t) noexcept override {}
  bulkhead::bytes bytes;
};

void put_bytes_in(msgpack::object& value, const ipc::held_blobs& blobs, std::size_t& next) {
  switch (value.type) {
    case msgpack::type::EXT: {
      const ipc::byte_span payload(reinterpret_cast<const std::uint8_t*>(value.via.ext.data()), value.via.ext.size);
      if (value.via.ext.type() != ipc::ext_blob || next >= blobs.size()) return;
      const auto reference = ipc::blob_reference::read(payload);
      if (!reference) return;
      const std::span<std::uint8_t> bytes = blobs[next++]->bytes();
      value.type = reference->text ? msgpack::type::STR : msgpack::type::BIN;
      value.via.bin = {static_cast<std::uint32_t>(bytes.size()), reinterpret_cast<const char*>(bytes.data())};
      return;
    }
    case msgpack::type::ARRAY:
      for (msgpack::object& each : std::span(value.via.array.ptr, value.via.array.size))
        put_bytes_in(each, blobs, next);
      return;
    case msgpack::type::MAP:
      for (msgpack::object_kv& each : std::span(value.via.map.ptr, value.via.map.size)) {
        put_bytes_in(each.key, blobs, next);
        put_bytes_in(each.val, blobs, next);
      }
      return;
    default: return;
  }
}

}  // namespace

void put_bytes_in(msgpack::object& value, const ipc::held_blobs& blobs) {
  std::size_t next = 0;
  put_bytes_in(value, blobs, next);
}

std::shared_ptr<ipc::held_blob> private_blob(ipc::byte_span from) {
  auto memory = std::make_shared<private_memory>(from);
  const std::span<std::uint8_t> bytes = memory->bytes;
  return std::make_shared<ipc::held_blob>(std::move(memory), ipc::blob_reference{false, 0, 0, bytes.size()}, bytes,
                                          false);
}

bool blob_outlet::take(ipc::buffer& packed, ipc::byte_span body) {
  // Bodies come with a header of 16 or 32 bits of length just before them; what has none is no string or byte array.
  std::vector<std::uint8_t>& out = packed.bytes();
  const std::size_t header = body.size() < 0x10000 ? 3 : 5;
  if (out.size() < header || body.size() > ipc::blob_reference::most) return false;
  const std::uint8_t* at = out.data() + out.size() - header;
  const bool text = at[0] == (header == 3 ? 0xda : 0xdb);
  std::size_t length = 0;
  for (std::size_t i = 1; i < header; ++i) length = length << 8 | at[i];
  if ((!text && at[0] != (header == 3 ? 0xc5 : 0xc6)) || length != body.size()) return false;
  const auto made = source_.make(body.size());
  if (!made) return false;
  std::memcpy(made->bytes().data(), body.data(), body.size());
  out.resize(out.size() - header);
  ipc::blob_reference reference = made->reference();
  reference.text = text;
  to_.push_back(made);
  ipc::append_reference(packed, reference);
  return true;
}

}  // namespace detail
}  // namespace bulkhead
