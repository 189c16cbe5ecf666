// A mutex that knows whether the thread that asks is the one that holds it. For std::lock_guard and the like.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace bulkhead {

class owned_mutex {
 public:
  void lock() {
    mutex_.lock();
    holder_ = std::this_thread::get_id();
  }
  void unlock() {
    holder_ = std::thread::id();
    mutex_.unlock();
  }
  bool mine() const { return holder_ == std::this_thread::get_id(); }

 private:
  std::mutex mutex_;
  std::atomic<std::thread::id> holder_{};
};

}  // namespace bulkhead
