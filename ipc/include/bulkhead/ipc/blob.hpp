// Bytes in bulk in shared memory: arenas (memfds that the host makes), references to parts of them that travel in
// messages (ext type 2), and who holds which part.
//
// The idea: whoever hands out parts of an arena keeps the account of them in private memory. A reference that comes from
// elsewhere is three numbers, compared with the arena's size before they are used; nothing in shared memory is believed.
#pragma once

#include <bulkhead/export.hpp>
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/system.hpp>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>

namespace bulkhead::ipc {

// The payload of ext type 2: kind, arena, offset, length; big-endian.
struct blob_reference {
  static constexpr std::size_t packed_size = 21;     // bytes of the payload
  static constexpr std::uint64_t most = UINT32_MAX;  // as a MessagePack value has a length of 32 bits

  bool text = false;         // it stands for a str, not for a bin
  std::uint32_t arena = 0;   // the number that the host has given the arena
  std::uint64_t offset = 0;  // in bytes, from the arena's begin
  std::uint64_t length = 0;  // in bytes

  // The payload.
  std::array<std::uint8_t, packed_size> pack() const;
  // Nothing when it can't be one. What it refers to is still to be checked.
  static std::optional<blob_reference> read(byte_span payload);
  // Whether it lies within an arena of `size` bytes.
  bool within(std::uint64_t size) const { return length <= most && offset <= size && length <= size - offset; }
};

// Adds it as a whole ext value.
BULKHEAD_PUBLIC void append_reference(buffer& to, const blob_reference& reference);

// A memfd and its mapping here; never resized. Movable; all but the bytes is for one thread at a time.
class shared_memory {
 public:
  shared_memory() = default;
  // `other` is empty afterwards.
  shared_memory(shared_memory&& other) noexcept { *this = std::move(other); }
  // Swaps the two.
  shared_memory& operator=(shared_memory&& other) noexcept;
  ~shared_memory();

  // A new one, all zeroes, sealed against any change of its size. Throws std::system_error.
  static shared_memory make(const char* name, std::size_t size, bool writable);
  // One that somebody else made. For workers only: a host maps nothing that it did not make. Throws std::system_error.
  static shared_memory map(int fd, std::size_t size, bool writable);

  // From here on no mapping of it can be made that writes, and no page be taken away: by nobody, this process included.
  // Those that are there go on.
  void seal();
  // Sealed, and from here on mapped for reading only: it stays as it is for ever, for all.
  void freeze();
  // Has all pages there, so that no later access costs a page that is not. False when there is not enough memory.
  bool fill() noexcept;
  // Whether all pages are there. Once it is sealed they stay.
  bool filled() const noexcept;
  // The mapping stays.
  void close_fd() { fd_.reset(); }

  std::uint8_t* data() const { return data_; }  // the mapping; null: there is none
  std::size_t size() const { return size_; }    // in bytes
  int fd() const { return fd_.get(); }          // still owned by this; -1: none

 private:
  void map_here(int fd, std::size_t size, bool writable);

  unique_fd fd_;
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

// One version of a value that a host has published.
struct snapshot {
  std::shared_ptr<const shared_memory> memory;  // none: it could not be mapped
  std::size_t size = 0;                         // bytes of the value, at the memory's begin
  std::uint64_t version = 0;                    // one more with each that is published
};

// Which parts of an arena are taken: first fit, whole pages. Private to the one who hands them out; one thread at a time.
class range_allocator {
 public:
  static constexpr std::size_t unit = 4096;  // every part is a multiple of as many bytes

  // Of an arena of `size` bytes, all free.
  explicit range_allocator(std::size_t size) { free_.emplace(0, size); }
  // The offset of `size` bytes, if there are as many in one piece.
  std::optional<std::size_t> take(std::size_t size);
  // False when no part that is taken begins there. Takes no memory.
  bool give(std::size_t offset) noexcept;
  bool empty() const { return taken_.empty(); }  // nothing is taken

 private:
  std::map<std::size_t, std::size_t> free_, taken_;  // offset: size
};

// An arena as the host sees it.
class blob_arena {
 public:
  virtual ~blob_arena() = default;
  // The part at this offset is held no more. Called from any thread, also where there is no memory.
  virtual void give_back(std::size_t offset) noexcept = 0;
};

// A part of an arena, kept for as long as this lives.
class held_blob {
 public:
  // Of a part that has been taken: `bytes` is where it is mapped here.
  held_blob(std::shared_ptr<blob_arena> arena, blob_reference reference, std::span<std::uint8_t> bytes, bool writable)
      : arena_(std::move(arena)), reference_(reference), bytes_(bytes), writable_(writable) {}
  ~held_blob() { arena_->give_back(reference_.offset); }
  held_blob(const held_blob&) = delete;

  const std::shared_ptr<blob_arena>& arena() const { return arena_; }  // what it is a part of
  const blob_reference& reference() const { return reference_; }       // which part
  std::span<std::uint8_t> bytes() const { return bytes_; }             // valid as long as this; see writable()
  bool writable() const { return writable_; }                          // whether this process may write to them

 private:
  const std::shared_ptr<blob_arena> arena_;
  const blob_reference reference_;
  const std::span<std::uint8_t> bytes_;
  const bool writable_;
};
// What a call keeps while it runs.
using held_blobs = std::vector<std::shared_ptr<held_blob>>;

// One str, bin or ext within a packed value.
struct packed_bytes {
  // What it can be.
  enum class kind {
    text,   // a str
    bytes,  // a bin
    ext,    // an ext of any type
  };
  enum kind kind = kind::bytes;  // which of them it is
  int type = 0;                  // of an ext
  byte_span whole;               // with its header
  byte_span contents;            // without
};
// The next one of `rest`, which begins with a whole value and is taken up to the end of what is returned. Nothing when
// there is none, or when it is not MessagePack.
std::optional<packed_bytes> next_bytes(byte_span& rest);
// The reference that it is, if it is one.
std::optional<blob_reference> reference_in(const packed_bytes& found);

// `value` with what `bytes_of` finds for each reference in its place. What it does not find stays as it is.
std::vector<std::uint8_t> without_references(
    byte_span value, const std::function<std::optional<byte_span>(const blob_reference&)>& bytes_of);

}  // namespace bulkhead::ipc
