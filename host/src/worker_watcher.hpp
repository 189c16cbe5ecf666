// Gives the workers of a plugin something to do beside calls, as long as they live: a cluster.
#pragma once

#include <functional>
#include <memory>
#include <vector>

namespace bulkhead {

class worker_process;

class worker_watcher {
 public:
  virtual ~worker_watcher() = default;
  // A worker takes part; it counts as busy until `done` is called, once, without locks. The pool's lock is held, here and
  // in the next two.
  virtual void on_admitted(const std::shared_ptr<worker_process>& process, std::function<void()> done) = 0;
  // It is to come to an end, and be done.
  virtual void on_draining(const std::shared_ptr<worker_process>& process) = 0;
  virtual void on_ended(const std::shared_ptr<worker_process>& process) = 0;
  // What one of them may read of what is published has changed, and a message that says so is on its channel. Only the
  // lock of what is published is held.
  virtual void on_published() noexcept = 0;
  // Blocks until all these do what they are for; throws call_error when one does not.
  virtual void await_serving(const std::vector<std::shared_ptr<worker_process>>& processes) = 0;
};

}  // namespace bulkhead
