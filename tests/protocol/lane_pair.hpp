// Two ends of lanes in one process: the host's, as a transport, and the worker's, whose memory the test can write as a
// hostile worker would.
#pragma once

#include "connection.hpp"
#include "page.hpp"
#include <bulkhead/ipc/lane_transport.hpp>

namespace bulkhead::testing {

struct lane_pair {
  static constexpr std::size_t ring = 4096;
  unique_fd down, up;
  ipc::lane_memory host_down{down.get(), true}, host_up{up.get(), false};
  ipc::lane_memory worker_up{up.get(), true}, worker_down{down.get(), false};
  ipc::lane_memory scribbled{up.get(), true};  // all that a worker can write
  std::pair<unique_fd, unique_fd> ends = ipc::socket_transport::make_pair();
  int host_socket = ends.first.get(), worker_socket = ends.second.get();

  explicit lane_pair(std::size_t size = ring) : down(ipc::lane_memory::make(size)), up(ipc::lane_memory::make(size)) {}

  // Each once.
  std::unique_ptr<ipc::lane_transport> host(const ipc::lane_options& options = {}, unsigned handles = 0) {
    return end(std::move(ends.first), std::move(host_down), std::move(host_up), true, options, handles);
  }
  std::unique_ptr<ipc::lane_transport> worker(const ipc::lane_options& options = {}) {
    return end(std::move(ends.second), std::move(worker_up), std::move(worker_down), false, options, 16);
  }

 private:
  static std::unique_ptr<ipc::lane_transport> end(unique_fd socket, ipc::lane_memory mine, ipc::lane_memory theirs,
                                                  bool counts, const ipc::lane_options& options, unsigned handles) {
    auto made = std::make_unique<ipc::lane_transport>(
        std::make_unique<ipc::socket_transport>(std::move(socket), handles, ipc::read_patience), std::move(mine),
        std::move(theirs), counts);
    made->configure(options);
    made->engage();
    return made;
  }
};

inline constexpr ipc::lane_options sleepy{.spin = std::chrono::nanoseconds(0)};

inline bytes_t read_once(ipc::transport& from, ipc::transport::io expected = ipc::transport::io::ok) {
  std::uint8_t chunk[8192];
  std::vector<unique_fd> handles;
  const auto got = from.read(chunk, handles, false);
  CHECK(got.status == expected);
  return {chunk, chunk + got.bytes};
}

// An event loop that does nothing by itself and remembers what it was asked for.
struct idle_loop final : ipc::channel::wakeups {
  bool armed = false;
  int looks = 0;
  void arm(bool reading, bool) override { armed = reading; }
  void schedule(ipc::time_point) override {}
  bool again() override { return ++looks > 0; }
};

}  // namespace bulkhead::testing
