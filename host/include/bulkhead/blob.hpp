// Bytes in bulk that are shared with a plugin's workers instead of being sent to them. See docs/blobs.md.
//
//   bulkhead::shared_blob in = image.make_blob(size);           // shared memory
//   read_into(in.writable());                                   // filled where it lies
//   auto out = image.call<bulkhead::shared_blob>("blur", in, 3);  // the plugin reads `in`, writes `out`: nothing is copied
//   save(out.view());
//
// Long byte arrays and texts among the arguments and results of any call go the same way by themselves, with one copy.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/blob.hpp>
#include <bulkhead/sdk/type_names.hpp>

namespace BULKHEAD_PUBLIC bulkhead {

// When bytes go by shared memory, and how much of it there may be: load_options::blobs.
struct blob_options {
  // Byte arrays and texts of so many bytes or more, wherever in arguments and results, go by shared memory. At least
  // 1 KiB; SIZE_MAX: none does, unless it is a blob already.
  std::size_t threshold = std::size_t{64} << 10;
  // Shared memory for the arguments of the plugin's calls, and as much for the results of each of its workers: no blob can
  // be larger. Counts towards the address space of workers (load_options::memory_limit), too. At most 4 GiB. 0: no blobs.
  std::size_t memory = std::size_t{256} << 20;
  // Memory that no blob was in for so long is given back.
  std::chrono::nanoseconds idle = std::chrono::seconds(5);
};

// Bytes in shared memory. One that plugin::make_blob() made can be written by the application, and be an argument of any
// number of calls; workers can only read it. One that is a result can be read only; the worker that made it is able to
// change it for as long as it lives: what is parsed or checked is to be copied first. It stays readable when its worker
// has died, and when the plugin has been unloaded.
//
// Movable. Several threads may read one at the same time; a thread that writes, moves or releases it must be alone with it.
// Do not write while a call that it is an argument of is in progress, one that was given up included: the plugin would see
// some of it.
class shared_blob {
 public:
  shared_blob() = default;
  // Made by plugin::make_blob() and by replies.
  explicit shared_blob(std::shared_ptr<const ipc::held_blob> held) : held_(std::move(held)), any_(held_ != nullptr) {}
  // What was moved from is none any more.
  shared_blob(shared_blob&& other) noexcept : held_(std::move(other.held_)), any_(std::exchange(other.any_, false)) {}
  // Lets go of the one that it was before.
  shared_blob& operator=(shared_blob&& other) noexcept {
    held_ = std::move(other.held_);
    any_ = std::exchange(other.any_, false);
    return *this;
  }

  // Whether there is one.
  explicit operator bool() const { return held_ != nullptr; }
  // In bytes. This and those below throw std::logic_error when there is none: it was released, moved, or never made.
  std::size_t size() const { return held("size()").bytes().size(); }
  // All of it, where it lies; valid for as long as this is not released.
  bytes_view view() const { return held("view()").bytes(); }
  // The same.
  operator bytes_view() const { return view(); }
  // To fill it. Its contents are undefined at first. Throws std::logic_error for a result.
  std::span<std::uint8_t> writable() const;
  // Private bytes that nobody else can change.
  bytes copy() const {
    const bytes_view from = view();
    return bytes(from.begin(), from.end());
  }
  // Gives its memory back before the end of its life; calls in progress that it is an argument of keep it.
  void release();

  // Where it lies, for those who pack arguments; null when there is none.
  const std::shared_ptr<const ipc::held_blob>& place() const { return held_; }

 private:
  const ipc::held_blob& held(const char* wanted) const;

  std::shared_ptr<const ipc::held_blob> held_;
  bool any_ = false;  // there was one
};

// Where the blobs of a plugin's arguments are made.
class blob_source {
 public:
  virtual ~blob_source() = default;
  // From how many bytes on arguments go by blob now.
  virtual std::size_t threshold() const = 0;
  // Null when there is no memory for it.
  virtual std::shared_ptr<ipc::held_blob> make(std::size_t size) = 0;
  // Whether it was made here: then workers of the plugin can see it.
  virtual bool owns(const ipc::held_blob& blob) const = 0;
};

namespace detail {

// Puts long values that are packed into blobs.
class blob_outlet final : public ipc::buffer::outlet {
 public:
  blob_outlet(blob_source& source, ipc::held_blobs& to) : source_(source), to_(to), threshold_(source.threshold()) {}
  std::size_t threshold() const override { return threshold_; }
  bool take(ipc::buffer& packed, ipc::byte_span body) override;

 private:
  blob_source& source_;
  ipc::held_blobs& to_;
  const std::size_t threshold_;
};

// Puts the bytes of blobs in the place of references, in order; they stay where they are.
void put_bytes_in(msgpack::object& value, const ipc::held_blobs& blobs);

// A blob of bytes that are no longer shared with anybody.
std::shared_ptr<ipc::held_blob> private_blob(ipc::byte_span bytes);

}  // namespace detail
}  // namespace bulkhead
