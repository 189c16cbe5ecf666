// Closes descriptors that came from workers, on a thread of its own: the last close of a file may take as long as the
// sender likes (a socket with SO_LINGER whose peer does not read, a file on a network), and nobody else is to wait.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace bulkhead {

class closer {
 public:
  closer() = default;
  ~closer() { stop(); }
  closer(const closer&) = delete;

  // Never blocks. Any thread.
  void take(std::vector<unique_fd> descriptors);
  // Waits until all are closed, but no longer than a moment: a thread that still hangs in one is left to end by itself.
  void stop();

 private:
  struct work {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<unique_fd> waiting;
    bool stopped = false, ended = false;
  };
  static void close_all(const std::shared_ptr<work>& shared);

  std::mutex mutex_;
  std::shared_ptr<work> work_;  // from the first descriptor on
  std::thread thread_;
};

}  // namespace bulkhead
