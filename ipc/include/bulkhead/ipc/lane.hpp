// Lanes: two byte rings in shared memory, one for each direction, that carry what the socket would otherwise carry. This
// file is the memory and the rings; lane_transport.hpp puts them behind a channel.
//
// A side has one memory that it writes (the ring it sends by, and its own cursors and flags of both rings) and one that
// it only reads. So nobody can disturb what the other keeps there, and what is read is hostile on the host's side: each
// cursor is loaded once, compared with private copies, and bytes are copied out before anyone looks at them.
//
// Both memories are made, filled and sealed by the host. The worker's bootstrap maps its own for writing, then seals it:
// from then on nobody maps it so again, resizes it or punches holes into it (F_SEAL_FUTURE_WRITE), whoever has a
// descriptor. The host takes it into use only when it finds the seals there.
#pragma once

#include <bulkhead/ipc/lane_options.hpp>
#include <bulkhead/ipc/message.hpp>

#include <boost/interprocess/mapped_region.hpp>

#include <atomic>

namespace bulkhead::ipc {

// What a side says of both rings. Each word is written by the memory's owner alone.
struct lane_control {
  alignas(64) std::atomic<std::uint32_t> tail;  // bytes ever written to the ring behind this
  alignas(64) std::atomic<std::uint32_t> head;  // bytes ever read from the other ring
  // Whether its reader and its writer wait to be woken, 0: no. The low two bits say how (enum lane_wait), the rest
  // changes each time.
  alignas(64) std::atomic<std::uint32_t> reader_waits;
  std::atomic<std::uint32_t> writer_waits;
  std::atomic<std::uint32_t> bell;     // counts up when the other side is woken; what it sleeps on
  std::atomic<std::uint32_t> one_cpu;  // the number plus 1 of the only CPU it may run on; 0: it has a choice
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

enum lane_wait : std::uint32_t { by_futex = 1, by_socket = 2, lane_wait_mask = 3 };

class lane_memory {
 public:
  static constexpr std::size_t control_size = 4096, least_ring = 4096, most_ring = std::size_t{16} << 20;

  // A memory for a ring of so many bytes, all of it there, that can't be resized. Throws std::system_error, or
  // std::invalid_argument for a size that is no power of two within the limits.
  static unique_fd make(std::size_t ring);
  // Forbids for good that it is mapped for writing once more, or that its seals change.
  static void seal(int fd);
  static bool sealed(int fd);

  // Maps it. Throws std::exception. The descriptor is no longer needed then.
  lane_memory(int fd, bool writable);

  lane_control& control() const { return *static_cast<lane_control*>(region_.get_address()); }
  std::uint8_t* ring() const { return static_cast<std::uint8_t*>(region_.get_address()) + control_size; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(region_.get_size() - control_size); }

 private:
  boost::interprocess::mapped_region region_;
};

// The sending end of a ring.
class lane_writer {
 public:
  lane_writer(const lane_memory& mine, const lane_memory& theirs)
      : control_(mine.control()), theirs_(theirs.control()), ring_(mine.ring()), size_(mine.size()) {}

  // Bytes that can be put now, at least `enough` if there are as many. False when the other side's cursor makes no sense.
  bool room(std::uint32_t& bytes, std::uint32_t enough = 1);
  // Within that; seen by nobody until publish().
  void put(byte_span bytes);
  // The other side sees it soon; what is loaded after it may have been loaded before.
  void publish() { control_.tail.store(tail_, std::memory_order_release); }

 private:
  lane_control& control_;
  const lane_control& theirs_;
  std::uint8_t* const ring_;
  const std::uint32_t size_;
  std::uint32_t tail_ = 0, head_ = 0;  // head_: as it was last seen
};

// The receiving end.
class lane_reader {
 public:
  lane_reader(const lane_memory& mine, const lane_memory& theirs)
      : control_(mine.control()), theirs_(theirs.control()), ring_(theirs.ring()), size_(theirs.size()) {}

  // Bytes that have come. False when the other side's cursor makes no sense.
  bool available(std::uint32_t& bytes);
  // Copies at most that many, and gives their room back.
  void take(std::span<std::uint8_t> into);

  std::uint32_t size() const { return size_; }

 private:
  lane_control& control_;
  const lane_control& theirs_;
  const std::uint8_t* const ring_;
  const std::uint32_t size_;
  std::uint32_t head_ = 0, tail_ = 0;  // tail_: as it was last seen
};

}  // namespace bulkhead::ipc
