// See closer.hpp.
#include "closer.hpp"

#include "signals_blocked.hpp"

#include <sys/socket.h>

namespace bulkhead {

void closer::close_all(const std::shared_ptr<work>& shared) {
  std::unique_lock locked(shared->mutex);
  for (;;) {
    shared->changed.wait(locked, [&] { return shared->stopped || !shared->waiting.empty(); });
    if (shared->waiting.empty()) break;
    std::vector<unique_fd> those = std::move(shared->waiting);
    shared->waiting.clear();
    locked.unlock();
    // Most are harmless after this. The sender may still change it back through a copy of its own.
    constexpr linger none{};
    for (const unique_fd& each : those) ::setsockopt(each.get(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
    those.clear();
    locked.lock();
  }
  shared->ended = true;
  shared->changed.notify_all();
}

void closer::take(std::vector<unique_fd> descriptors) {
  if (descriptors.empty()) return;
  std::lock_guard held(mutex_);
  if (!work_) work_ = std::make_shared<work>();
  {
    std::lock_guard locked(work_->mutex);
    for (unique_fd& each : descriptors) work_->waiting.push_back(std::move(each));
    work_->changed.notify_all();
  }
  if (thread_.joinable()) return;
  const signals_blocked guard;
  try {
    thread_ = std::thread(close_all, work_);
  } catch (const std::system_error&) {  // no thread is to be had: they wait for the next that come, or for the end
  }
}

void closer::stop() {
  std::lock_guard held(mutex_);
  if (!thread_.joinable()) return work_.reset();
  std::unique_lock locked(work_->mutex);
  work_->stopped = true;
  work_->changed.notify_all();
  const bool ended = work_->changed.wait_for(locked, std::chrono::milliseconds(100), [this] { return work_->ended; });
  locked.unlock();
  if (ended) thread_.join();
  else thread_.detach();
  work_.reset();
}

}  // namespace bulkhead
