// What a call's method reports, on its way to call_options::on_progress: in order, one at a time, on a handler thread; or
// in the end on the thread of a synchronous caller, so that nothing is told once that has returned.
#pragma once

#include "host_core.hpp"

#include <condition_variable>
#include <deque>

namespace bulkhead {

class progress_reports {
 public:
  progress_reports(std::function<void(const msgpack::object&)> to, std::shared_ptr<host_core> core, std::string plugin)
      : to_(std::move(to)), core_(std::move(core)), plugin_(std::move(plugin)) {}

  // A packed value, which is copied as it is: as objects it may take 24 times as much. Never blocks; deliver() has to follow
  // on a handler thread. Dropped when the call is over.
  void add(ipc::byte_span value);
  // Tells what has come, unless another thread is at it.
  void deliver();
  // The call is over: nothing is taken any more. Never blocks.
  void close();
  // The same for a synchronous call: all that has come has been told when this returns.
  void end();

 private:
  using lock = std::unique_lock<std::mutex>;
  void tell_all(lock& held);

  const std::function<void(const msgpack::object&)> to_;
  const std::shared_ptr<host_core> core_;
  const std::string plugin_;
  std::mutex mutex_;
  std::condition_variable told_;
  std::deque<std::vector<std::uint8_t>> values_;
  bool telling_ = false, closed_ = false;
};

}  // namespace bulkhead
