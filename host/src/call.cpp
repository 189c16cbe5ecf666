// See call.hpp.
#include <bulkhead/call.hpp>

#include <mutex>

#include <fcntl.h>

namespace bulkhead {
namespace {

std::vector<std::uint8_t> with_bytes(ipc::byte_span value, const ipc::held_blobs& blobs) {
  std::size_t next = 0;
  return ipc::without_references(value, [&](const ipc::blob_reference&) -> std::optional<ipc::byte_span> {
    if (next >= blobs.size()) return std::nullopt;
    return blobs[next++]->bytes();
  });
}

std::size_t total(const ipc::held_blobs& blobs) {
  std::size_t bytes = 0;
  for (const auto& each : blobs) bytes += each->bytes().size();
  return bytes;
}

}  // namespace

std::vector<std::uint8_t> packed_arguments::plain() const { return with_bytes(params.view(), blobs); }
std::size_t packed_arguments::size() const { return params.view().size() + total(blobs); }

struct reply::held {
  ipc::held_blobs blobs;
  std::once_flag once;
  std::vector<std::uint8_t> plain;
};

reply::reply(ipc::completion&& data, std::shared_ptr<const crash_report> report)
    : outcome_(data.code),
      message_(std::move(data.failure.message)),
      data_(std::move(data.failure.data)),
      frame_(std::move(data.frame)),
      offset_(data.result_offset),
      size_(data.result_size),
      report_(std::move(report)) {
  if (!data.handles.empty()) handles_ = std::make_shared<const std::vector<unique_fd>>(std::move(data.handles));
  if (data.blobs.empty()) return;
  blobs_ = std::make_shared<held>();
  blobs_->blobs = std::move(data.blobs);
}

std::size_t reply::size() const { return size_ + (blobs_ ? total(blobs_->blobs) : 0); }

ipc::byte_span reply::expanded() const {
  std::call_once(blobs_->once, [this] { blobs_->plain = with_bytes(packed(), blobs_->blobs); });
  return blobs_->plain;
}

msgpack::object_handle reply::unpack() const {
  msgpack::object_handle unpacked = ipc::unpack(packed());
  if (!blobs_) return unpacked;
  msgpack::object value = unpacked.get();
  detail::put_bytes_in(value, blobs_->blobs);
  unpacked.set(value);
  return unpacked;
}

shared_blob reply::blob() const {
  throw_if_failed();
  ipc::byte_span rest = packed();
  const auto found = ipc::next_bytes(rest);
  if (!found || found->whole.size() != packed().size() || (found->kind == ipc::packed_bytes::kind::ext && !blobs_))
    throw call_error(bulkhead::outcome::plugin_error,
                     std::string("the result: expected bytes or text, got ") + typed::kind_of(unpack().get()));
  if (found->kind == ipc::packed_bytes::kind::ext) return shared_blob(blobs_->blobs.front());
  return shared_blob(detail::private_blob(found->contents));
}

unique_fd reply::handle(std::size_t index) const {
  throw_if_failed();
  if (!handles_ || index >= handles_->size())
    throw call_error(bulkhead::outcome::plugin_error, "the result has " +
                                                          std::to_string(handles_ ? handles_->size() : 0) +
                                                          " descriptors, not one numbered " + std::to_string(index));
  return detail::duplicate((*handles_)[index].get());
}

namespace detail {

unique_fd duplicate(int fd) {
  return unique_fd(checked(::fcntl(fd, F_DUPFD_CLOEXEC, 3), "pass_fd: the descriptor can't be duplicated"));
}

}  // namespace detail
}  // namespace bulkhead
