// Calls of the application's code that are made one at a time and in order: an Asio strand that is made when it is first
// needed, and that can be let go.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>

#include <functional>
#include <mutex>
#include <optional>
#include <utility>

namespace bulkhead {

class serial_queue {
 public:
  // `executor` is asked for one with the first job.
  explicit serial_queue(std::function<boost::asio::any_io_executor()> executor) : executor_(std::move(executor)) {}

  // Never runs the job itself. False when this is closed: then nobody does. Any thread.
  template <class Job>
  bool post(Job job) {
    const std::lock_guard held(mutex_);
    if (closed_) return false;
    if (!strand_) strand_.emplace(executor_());
    boost::asio::post(*strand_, std::move(job));
    return true;
  }

  // No more jobs are taken. Does not wait for those that were. The executor's context may be gone before this is. Any thread.
  void close() {
    const std::lock_guard held(mutex_);
    closed_ = true;
    strand_.reset();
  }

 private:
  const std::function<boost::asio::any_io_executor()> executor_;
  std::mutex mutex_;
  bool closed_ = false;
  std::optional<boost::asio::strand<boost::asio::any_io_executor>> strand_;
};

}  // namespace bulkhead
