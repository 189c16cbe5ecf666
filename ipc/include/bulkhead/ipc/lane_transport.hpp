// A connection over lanes, with a socket beside them. It begins on the socket; engage() moves both directions into the
// rings, for good. What is left to the socket then: file descriptors, each sent ahead of the message in the ring that
// refers to it; doorbells, for a peer that waits by polling; and its end, which is the end of the connection. All bytes on
// it are nil (0xc0).
//
// A side that finds nothing spins for a while (spin_policy.hpp), then says that it sleeps and looks once more before it
// does; the other looks for that after each message, and makes a system call only then. The sleep is on a futex at first,
// the quickest to be woken from; after read_patience it is a poll of the socket, which the end of the peer ends, too.
#pragma once

#include <bulkhead/ipc/lane.hpp>
#include <bulkhead/ipc/spin_policy.hpp>
#include <bulkhead/ipc/transport.hpp>

#include <memory>

namespace bulkhead::ipc {

class lane_transport final : public transport {
 public:
  // `mine` was mapped for writing, `theirs` need not be. `counts_bells`: the peer is not trusted to ring only when asked.
  lane_transport(std::unique_ptr<socket_transport> socket, lane_memory mine, lane_memory theirs, bool counts_bells);

  // Before engage(): how long to spin.
  void configure(const lane_options& options) { policy_ = spin_policy(options.spin, options.cpu_budget); }
  void engage() noexcept override;

  io_result read(std::span<std::uint8_t> into, std::vector<unique_fd>& handles, bool block) noexcept override;
  io_result write(bytes first, bytes second, std::span<const int> handles) noexcept override;
  void flush() noexcept override;
  bool wait(bool for_reading, bool for_writing, time_point deadline) noexcept override;
  void wake() noexcept override;
  void shutdown() noexcept override;
  int native_handle() const noexcept override { return socket_->native_handle(); }
  interest watch(bool reading, bool writing) noexcept override;
  bool reads_deaf() const noexcept override { return !engaged_.load(std::memory_order_relaxed); }
  bool linger(bool found) noexcept override;
  void on_event() noexcept override;
  void collect(std::vector<unique_fd>& handles, std::size_t wanted) noexcept override;
  const char* violation() const noexcept override { return broken_ ? broken_.load() : socket_->violation(); }

 private:
  bool readable() noexcept;
  bool writable() noexcept;
  bool ready(bool reading, bool writing) noexcept;
  void sleep_by_futex(bool reading, bool writing, time_point until) noexcept;
  bool sleep_by_socket(bool writing, bool full, time_point until) noexcept;
  void drain_socket() noexcept;
  void take_from_socket() noexcept;
  void drain_socket_of_idle_ring() noexcept;
  void say_all(bool reading, bool writing, std::uint32_t how) noexcept;
  void say(std::atomic<std::uint32_t>& word, std::uint32_t& epoch, std::uint32_t how) noexcept;
  void ring(const std::atomic<std::uint32_t>& waits, std::uint32_t& rung) noexcept;
  bool other_cpu() noexcept;
  void look_at_cpus() noexcept;
  void break_off(const char* why) noexcept;

  const std::unique_ptr<socket_transport> socket_;
  const lane_memory mine_, theirs_;
  const bool counts_bells_;
  lane_writer out_;
  lane_reader in_;
  std::atomic<bool> engaged_{false};
  std::atomic<const char*> broken_{nullptr};
  std::atomic<bool> shut_{false};

  // Of the reading thread.
  spin_policy policy_;
  std::vector<unique_fd> early_;    // descriptors ahead of their message
  std::atomic<bool> ended_{false};  // the socket has
  std::uint32_t reader_epoch_ = 0, writer_epoch_ = 0;
  std::uint32_t rung_room_ = 0;  // the peer's writer_waits when it was woken last
  unsigned looked_ = 0;
  bool watching_read_ = false, watching_write_ = false;  // the event loop waits in the reader's place
  std::uint32_t bells_due_ = 0;                          // that the peer was asked for and that have not come
  int fruitless_ = 0;                                    // times in a row that bells have come and no byte meanwhile
  std::uint32_t moved_ = 0;                              // bytes written and read when bells came last
  // Of the event loop that looks again instead of waiting: since when, for how long, when it looked last, what its looks
  // have taken so far, and for too long.
  time_point lingers_since_{}, looked_at_{};
  std::chrono::nanoseconds linger_window_{0}, looked_for_{0};
  bool lingered_out_ = false;
  std::atomic<bool> woken_{false};
  std::atomic<std::uint32_t> sleeping_{0};  // how the reader sleeps

  // Of the writing thread.
  std::uint32_t rung_data_ = 0;
  bool unflushed_ = false;
  std::atomic<time_point> rung_at_{never};  // when the peer was woken for the message sent last
  std::atomic<bool> socket_full_{false};
};

}  // namespace bulkhead::ipc
