// Finds the end of a MessagePack value in a stream, byte by byte as it arrives, without building anything from it.
// A header that promises more than the limits allow is refused on sight: every element still owed is at least one
// byte, so the sum of all promises is bounded by the frame limit and no length is ever believed.
#pragma once

#include <bulkhead/ipc/limits.hpp>

#include <array>
#include <cstdint>
#include <span>

namespace bulkhead::ipc {

class scanner {
 public:
  enum class status { need_more, complete, violation };

  static constexpr unsigned max_depth = 64;  // limits.depth is capped at this

  explicit scanner(const limits& limits = {});

  // Takes bytes that follow those taken before and reports how many of them belong to the value in `used`. After
  // `complete`, call reset() before the next value; after `violation`, the stream is lost.
  status feed(std::span<const std::uint8_t> bytes, std::size_t& used);
  void reset();

  // Bytes of the current value taken so far.
  std::size_t size() const { return size_; }
  // File descriptors (ext type 1) that the current value refers to.
  unsigned handles() const { return handles_; }
  // References to blobs (ext type 2) in it.
  unsigned blobs() const { return blobs_; }
  // What was wrong, after `violation`: a static text.
  const char* violation() const { return violation_; }

 private:
  status header(const std::uint8_t* at);
  status payload_ahead(std::uint64_t bytes);
  status container(std::uint64_t elements);
  status value_done();
  status refuse(const char* why);

  std::size_t frame_limit_;
  unsigned depth_limit_;

  std::array<std::uint64_t, max_depth> owed_;  // elements still to come, per open container; depth_ of them are set
  unsigned depth_ = 0;
  std::uint64_t promised_ = 0;            // the sum of owed_
  std::uint64_t skip_ = 0;                // payload bytes still to come
  std::array<std::uint8_t, 6> header_{};  // of a header that came in pieces
  unsigned header_have_ = 0;
  std::size_t size_ = 0;
  unsigned handles_ = 0, blobs_ = 0;
  const char* violation_ = "";
};

// The size of the first value in `bytes`, or 0 when it is not complete, too deep or not MessagePack.
std::size_t value_size(std::span<const std::uint8_t> bytes);

}  // namespace bulkhead::ipc
