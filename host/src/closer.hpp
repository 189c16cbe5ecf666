// Closes descriptors that came from workers, on a thread of its own: the last close of a file may take as long as the
// sender likes (a socket with SO_LINGER whose peer does not read, a file on a network), and nobody else is to wait. The
// same thread reaps killed workers that nobody else will: one may take as long to end as the kernel likes.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace bulkhead {

class closer {
 public:
  closer() = default;
  ~closer() { stop(); }
  closer(const closer&) = delete;

  // Never blocks, unless there is no memory: then they are closed at once. Any thread.
  void take(std::vector<unique_fd> descriptors) noexcept;
  // Of a process that was killed: reaps it once it has ended. Blocks for a moment where there is no memory. Any thread.
  void reap(unique_fd pidfd) noexcept;
  // Waits until all is done, but no longer than a moment: a thread that still hangs in one is left to end by itself.
  void stop();

 private:
  struct work {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<unique_fd> waiting, dying;
    bool stopped = false, ended = false;
  };
  static void run(const std::shared_ptr<work>& shared);
  void add(std::vector<unique_fd> work::*to, std::span<unique_fd> what) noexcept;

  std::mutex mutex_;
  std::shared_ptr<work> work_;  // from the first descriptor on
  std::thread thread_;
};

}  // namespace bulkhead
