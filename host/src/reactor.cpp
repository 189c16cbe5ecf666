// See reactor.hpp.
#include "reactor.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

namespace bulkhead {
namespace {
constexpr std::uint64_t timer_id = 0;
}

reactor::reactor(boost::asio::any_io_executor executor)
    : executor_(executor),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      timer_(checked(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create")),
      descriptor_(std::in_place, executor) {
  unique_fd copy(checked(::fcntl(epoll_.get(), F_DUPFD_CLOEXEC, 3), "fcntl(F_DUPFD_CLOEXEC)"));
  descriptor_->assign(copy.get());  // owns it only if this succeeds
  copy.release();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = timer_id;
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), &event), "epoll_ctl");
}

void reactor::start() { wait(); }

void reactor::stop() {
  std::lock_guard held(mutex_);
  stopped_ = true;
  // It comes round once more: Asio's own way to wake a thread is lost where it could not be registered, which it does not tell.
  const itimerspec at_once{.it_interval = {}, .it_value = {0, 1}};
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &at_once, nullptr);
}

void reactor::close() {
  std::lock_guard held(mutex_);
  descriptor_.reset();
}

void reactor::wait() {
  std::lock_guard held(mutex_);
  if (stopped_) return;
  descriptor_->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](boost::system::error_code failure) {
                            if (failure) return;
                            self->run_ready();
                            self->wait();
                          });
}

void reactor::help(ipc::time_point until) {
  {
    std::unique_lock held(mutex_);
    if (!again_.empty()) {
      held.unlock();
      return run_again();
    }
  }
  pollfd ready{epoll_.get(), POLLIN, 0};
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - ipc::clock::now()).count();
  if (::poll(&ready, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1000))) > 0) run_ready();
}

void reactor::run_ready() {
  const std::lock_guard turn(turn_);
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, 64, 0);
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == timer_id) {
      std::uint64_t expirations = 0;
      [[maybe_unused]] const ssize_t n = ::read(timer_.get(), &expirations, sizeof expirations);
      std::vector<std::weak_ptr<target>> due;
      {
        std::lock_guard held(mutex_);
        for (const auto now = ipc::clock::now(); !timers_.empty() && timers_.front().when <= now; timers_.pop_back()) {
          std::pop_heap(timers_.begin(), timers_.end());
          due.push_back(std::move(timers_.back().target));
        }
        set_timer();
      }
      for (const auto& weak : due)
        if (const auto alive = weak.lock()) alive->on_timer();
      continue;
    }
    std::shared_ptr<target> alive;
    int tag = 0;
    {
      std::lock_guard held(mutex_);
      if (const auto found = watched_.find(std::uint64_t{events[i].data.u64}); found != watched_.end()) {
        alive = found->second.target.lock();
        tag = found->second.tag;
      }
    }
    if (alive) alive->on_ready(tag, events[i].events);
  }
}

bool reactor::again(std::weak_ptr<target> target, int tag) {
  std::lock_guard held(mutex_);
  if (stopped_) return false;
  again_.push_back({std::move(target), tag});
  if (again_.size() == 1) boost::asio::post(executor_, [self = shared_from_this()] { self->run_again(); });
  return true;
}

void reactor::run_again() {
  const std::lock_guard turn(turn_);
  {
    std::lock_guard held(mutex_);
    turning_.swap(again_);
  }
  for (const watched& each : turning_)
    if (const auto alive = each.target.lock()) alive->on_ready(each.tag, 0);
  turning_.clear();
}

void reactor::add(std::uint64_t id, int fd, std::weak_ptr<target> target, int tag, std::uint32_t events) {
  {
    std::lock_guard held(mutex_);
    watched_.emplace(id, watched{std::move(target), tag});
  }
  epoll_event event{};
  event.events = events | EPOLLONESHOT;
  event.data.u64 = id;
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl(ADD)");
}

void reactor::arm(int fd, std::uint64_t id, std::uint32_t events) noexcept {
  epoll_event event{};
  event.events = events | EPOLLONESHOT;
  event.data.u64 = id;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void reactor::remove(int fd, std::uint64_t id) noexcept {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  std::lock_guard held(mutex_);
  watched_.erase(id);
}

void reactor::schedule(ipc::time_point when, std::weak_ptr<target> target) {
  std::lock_guard held(mutex_);
  const bool next = timers_.empty() || when < timers_.front().when;
  timers_.push_back({when, std::move(target)});
  std::push_heap(timers_.begin(), timers_.end());
  if (next) set_timer();
}

void reactor::set_timer() {
  if (stopped_) return;  // it is set for the last time
  itimerspec spec{};
  if (!timers_.empty()) {
    const auto ns = std::max<std::int64_t>(1, timers_.front().when.time_since_epoch().count());
    spec.it_value = {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

}  // namespace bulkhead
