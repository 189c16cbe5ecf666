// See closer.hpp.
#include "closer.hpp"

#include "signals_blocked.hpp"

#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace bulkhead {
namespace {

constexpr int dying_ms = 50;  // after SIGKILL; most take less than one
constexpr std::chrono::seconds undead_pause{1};

bool reaped(const unique_fd& pidfd) {
  pollfd end{pidfd.get(), POLLIN, 0};
  ::poll(&end, 1, dying_ms);
  siginfo_t how{};
  return ::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &how, WEXITED | WNOHANG | __WALL) != 0 || how.si_pid != 0;
}

}  // namespace

void closer::run(const std::shared_ptr<work>& shared) {
  std::vector<unique_fd> undead;
  std::unique_lock locked(shared->mutex);
  const auto due = [&] { return shared->stopped || !shared->waiting.empty() || !shared->dying.empty(); };
  for (;;) {
    if (undead.empty()) shared->changed.wait(locked, due);
    else shared->changed.wait_for(locked, undead_pause, due);
    std::vector<unique_fd> those = std::exchange(shared->waiting, {});
    for (unique_fd& each : std::exchange(shared->dying, {})) undead.push_back(std::move(each));
    const bool last = shared->stopped;
    locked.unlock();
    // Most are harmless after this. The sender may still change it back through a copy of its own.
    constexpr linger none{};
    for (const unique_fd& each : those) ::setsockopt(each.get(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
    those.clear();
    std::erase_if(undead, reaped);
    locked.lock();
    if (last) break;
  }
  shared->ended = true;
  shared->changed.notify_all();
}

void closer::take(std::vector<unique_fd> descriptors) noexcept {
  if (!descriptors.empty()) add(&work::waiting, descriptors);
}

void closer::reap(unique_fd pidfd) noexcept {
  add(&work::dying, {&pidfd, 1});
  if (pidfd) reaped(pidfd);
}

// Those that there is no memory for are left.
void closer::add(std::vector<unique_fd> work::*to, std::span<unique_fd> what) noexcept {
  std::lock_guard held(mutex_);
  try {
    if (!work_) work_ = std::make_shared<work>();
    {
      std::lock_guard locked(work_->mutex);
      for (unique_fd& each : what) ((*work_).*to).push_back(std::move(each));
      work_->changed.notify_all();
    }
    if (thread_.joinable()) return;
    const signals_blocked guard;
    thread_ = std::thread(run, work_);
  } catch (const std::exception&) {  // no thread is to be had: they wait for the next that come, or for the end
  }
}

void closer::stop() {
  std::lock_guard held(mutex_);
  if (!thread_.joinable()) {  // none was to be had, or needed
    if (const auto rest = std::exchange(work_, nullptr)) std::erase_if(rest->dying, reaped);
    return;
  }
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
