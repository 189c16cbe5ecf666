// See distributor.hpp: its thread, and what happens to workers.
#include "cluster/distributor.hpp"

#include "cluster/keys.hpp"
#include "signals_blocked.hpp"

#include <algorithm>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

namespace bulkhead {
namespace {

constexpr std::chrono::milliseconds urgent{100}, helping_turn{20};
constexpr std::chrono::seconds calm{1};
constexpr std::size_t most_taken_in = 4096;  // of the backlog, at the end
constexpr std::chrono::milliseconds doorbell_rest{
    1};  // a worker that rings without end is heeded so often, and no more

std::uint32_t milliseconds(std::chrono::nanoseconds time) {
  const auto count = std::chrono::ceil<std::chrono::milliseconds>(time).count();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(count, 0, UINT32_MAX));
}

}  // namespace

// The answer to the call that a worker serves in.
class distributor::call_end final : public reply_handler {
 public:
  call_end(std::weak_ptr<distributor> to, std::uint64_t seat) : to_(std::move(to)), seat_(seat) {}
  void complete(reply&& result) override {
    const auto to = to_.lock();
    if (!to) return;
    to->post(
        [raw = to.get(), id = seat_, kept = std::make_shared<reply>(std::move(result))] { raw->finished(id, *kept); });
  }

 private:
  const std::weak_ptr<distributor> to_;
  const std::uint64_t seat_;
};

distributor::distributor(std::shared_ptr<host_core> core, unique_fd listener, cluster_options options, std::string name)
    : core_(std::move(core)),
      options_(std::move(options)),
      name_(std::move(name)),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      wake_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      listener_(std::move(listener)) {}

distributor::~distributor() { join(); }

void distributor::start() {
  epoll_event event{EPOLLIN, {.u64 = keys::wake}};
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event), "epoll_ctl");
  event = {0, {.u64 = keys::listener}};
  if (options_.schedule == schedule::round_robin)
    checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event), "epoll_ctl");
  const signals_blocked guard;
  thread_ = std::thread([this] { run(); });
}

void distributor::join() {
  if (!thread_.joinable()) return;
  post([this] { joined_ = true; });
  thread_.join();
}

void distributor::post(std::function<void()> what) {
  {
    std::lock_guard held(queue_mutex_);
    queue_.push_back(std::move(what));
  }
  ::eventfd_write(wake_.get(), 1);
}

void distributor::run() {
  ::prctl(PR_SET_NAME, "bulkhead-serve");
  epoll_event events[64];
  for (bool over = false; !over;) {
    int wait = static_cast<int>(doorbell_rest.count());
    {
      std::lock_guard held(mutex_);
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_tick_ - ipc::clock::now()).count();
      if (resting_.empty()) wait = static_cast<int>(std::clamp<std::int64_t>(left, 0, 1000));
    }
    const int n = ::epoll_wait(epoll_.get(), events, std::size(events), wait);
    std::vector<std::function<void()>> later;
    {
      std::lock_guard held(mutex_);
      if (!resting_.empty() && ipc::clock::now() >= rested_at_) rearm_doorbells();
      for (int i = 0; i < n; ++i) turn(events[i].data.u64);
      if (ipc::clock::now() >= next_tick_) tick();
      watch_listener();
      later.swap(later_);
      over = joined_;
    }
    changed_.notify_all();
    for (const auto& each : later) each();
  }
  std::lock_guard held(mutex_);
  while (!connections_.empty()) drop(connections_.begin()->first);
}

void distributor::turn(std::uint64_t key) {
  if (key == keys::wake) {
    eventfd_t count = 0;
    ::eventfd_read(wake_.get(), &count);
    std::vector<std::function<void()>> asked;
    {
      std::lock_guard held(queue_mutex_);
      asked.swap(queue_);
    }
    for (const auto& each : asked) each();
    if (news_.exchange(false)) {
      for (const auto& [id, each] : seats_) {
        each->news = true;
        tell_news(*each);
      }
    }
  } else if (key == keys::listener) {
    accept();
  } else if (key & keys::connection) {
    hung_up(key & keys::number);
  } else if (const auto found = seats_.find(key & keys::number); found != seats_.end()) {
    on_doorbell(*found->second);
  }
}

// What is not told by an event.
void distributor::tick() {
  const auto now = ipc::clock::now();
  const auto interval = options_.load.supervision.heartbeat.interval;
  next_tick_ = now + (interval.count() > 0 ? std::clamp<std::chrono::nanoseconds>(interval, helping_turn, calm) : calm);
  for (const auto& [id, each] : seats_) {
    each->full = false;
    each->sweep();
    take_back(*each);
    if (each->leaving && !each->told_to_leave) drain(*each);
    tell_news(*each);
    check_alive(*each, now);
  }
  pass_waiting();
  if (!waiting_.empty() || accept_again_ > now) soon();
}

void distributor::soon() { next_tick_ = std::min(next_tick_, ipc::clock::now() + urgent); }

// --- what pools tell --------------------------------------------------------------------------------------------------

void distributor::on_admitted(const std::shared_ptr<worker_process>& process, std::function<void()> done) {
  post([this, process, done = std::move(done)] { admit(process, done); });
}
void distributor::on_draining(const std::shared_ptr<worker_process>& process) {
  post([this, process] {
    if (seat* const from = find(process)) drain(*from);
  });
}
void distributor::on_ended(const std::shared_ptr<worker_process>& process) {
  post([this, process] { remove(process); });
}

void distributor::on_published() noexcept {
  news_ = true;
  ::eventfd_write(wake_.get(), 1);
}

seat* distributor::find(const std::shared_ptr<worker_process>& process) {
  for (const auto& [id, each] : seats_)
    if (each->process == process) return each.get();
  return nullptr;
}

void distributor::admit(const std::shared_ptr<worker_process>& process, std::function<void()> done) {
  std::unique_ptr<seat> added;
  try {
    added = std::make_unique<seat>(++last_id_, process, options_.connections);
    epoll_event event{EPOLLIN | EPOLLONESHOT, {.u64 = keys::seat | added->id}};
    checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, added->doorbell.get(), &event), "epoll_ctl");
  } catch (const std::exception& e) {
    process->kill(exit_reason::closed, std::string("it can't be given connections: ") + e.what());
    later_.push_back(std::move(done));
    return failed(process, e.what());
  }
  added->done = std::move(done);
  auto request = std::make_shared<call_request>();
  request->method = BULKHEAD_SERVE_METHOD;
  request->arguments = added->serve_arguments(options_.settings);
  request->begun = ipc::clock::now();
  if (options_.schedule == schedule::shared && listener_)
    added->send({.type = BULKHEAD_SERVE_LISTENER, .slot = 0, .generation = 0, .value = 0}, listener_.get());
  later_.push_back([process, request, to = weak_from_this(), id = added->id] {
    std::unique_ptr<reply_handler> handler = std::make_unique<call_end>(to, id);
    const outcome code = process->async_call(request, handler);
    if (code == outcome::ok) return;
    handler->complete(
        reply(ipc::completion::failed(code, worker_process::not_started(code, *request, process->limits()))));
  });
  seats_.emplace(added->id, std::move(added));
}

void distributor::drain(seat& from) {
  from.leaving = true;
  from.serving = false;
  from.told_to_leave = from.send({.type = closing_ ? BULKHEAD_SERVE_END : BULKHEAD_SERVE_DRAIN,
                                  .slot = 0,
                                  .generation = 0,
                                  .value = milliseconds(options_.load.supervision.drain.calls)});
  if (!from.told_to_leave) soon();
}

// The news itself goes by the channel, and has to be there when the worker looks.
void distributor::tell_news(seat& to) {
  if (!to.news) return;
  to.news =
      !to.process->all_sent() || !to.send({.type = BULKHEAD_SERVE_PUBLISHED, .slot = 0, .generation = 0, .value = 0});
  if (to.news) soon();
}

// The call that a worker serves in has been answered, or is lost with it; then remove() comes, too.
void distributor::finished(std::uint64_t id, const reply& result) {
  const auto found = seats_.find(id);
  if (found == seats_.end()) return;
  seat& at = *found->second;
  at.answered = true;
  at.serving = false;
  take_back(at);
  if (at.done) later_.push_back(std::exchange(at.done, {}));
  // One that died while it served is told of by its exit. One that has died before is asked for its reason, which the
  // answer to its call has: its own, or how it ended.
  if (at.leaving || (!at.process->alive() && at.says_serving())) return;
  const std::string why = result ? "it has stopped serving" : result.message();
  failed(at.process, why);
  at.failure = why;
  at.process->kill(exit_reason::closed, why);
}

void distributor::failed(const std::shared_ptr<worker_process>& process, std::string why) {
  core_->log({log_level::error, name_, process->info().pid, "does not serve: " + why, 0});
  last_failure_ = why;
  if (awaited_ > 0) failures_.emplace(process.get(), std::move(why));
}

void distributor::remove(const std::shared_ptr<worker_process>& process) {
  seat* const gone = find(process);
  if (!gone) return;
  // It may have said why before anybody waited.
  if (awaited_ > 0 && !gone->says_serving())
    failures_.emplace(process.get(), gone->failure.empty() ? "the worker ended before it served" : gone->failure);
  abandon(*gone);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, gone->doorbell.get(), nullptr);
  if (gone->done) later_.push_back(std::move(gone->done));
  seats_.erase(gone->id);
}

void distributor::on_doorbell(seat& at) {
  eventfd_t count = 0;
  ::eventfd_read(at.doorbell.get(), &count);
  if (resting_.empty()) rested_at_ = ipc::clock::now() + doorbell_rest;
  resting_.push_back(at.id);
  if (!at.serving && !at.leaving && !at.answered && at.says_serving()) {
    at.serving = true;
    pass_waiting();
  }
  take_back(at);
}

void distributor::rearm_doorbells() {
  for (const std::uint64_t id : std::exchange(resting_, {})) {
    const auto found = seats_.find(id);
    if (found == seats_.end()) continue;
    epoll_event event{EPOLLIN | EPOLLONESHOT, {.u64 = keys::seat | id}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, found->second->doorbell.get(), &event);
  }
}

// The thread that serves connections answers for itself: the one that takes calls may be free, or may be the same.
void distributor::check_alive(seat& at, ipc::time_point now) {
  if (at.answered) return;
  if (!at.says_serving()) {
    if (now - at.since > options_.load.start_timeout)
      at.process->kill(exit_reason::start_timeout, "it has not begun to serve");
    return;
  }
  const heartbeat_limits& limits = options_.load.supervision.heartbeat;
  if (limits.interval.count() == 0) return;
  if (at.pong() != at.ping) {
    if (now - at.pinged >= limits.silence)
      return at.process->kill(exit_reason::hung, "it has stopped heeding its connections");
  } else if (now - at.pinged >= limits.interval) {
    at.pinged = now;
    ++at.ping;
    at.ping_unsent = true;
  }
  if (at.ping_unsent)
    at.ping_unsent = !at.send({.type = BULKHEAD_SERVE_PING, .slot = 0, .generation = 0, .value = at.ping});
  if (at.ping_unsent) soon();
}

// --- for the application ------------------------------------------------------------------------------------------------

void distributor::await_serving(const std::vector<std::shared_ptr<worker_process>>& processes) {
  const auto deadline = ipc::clock::now() + options_.load.start_timeout;
  std::unique_lock held(mutex_);
  ++awaited_;
  std::string why;
  const auto one_fails = [&] {
    for (const auto& each : processes) {
      const auto found = failures_.find(each.get());
      if (found != failures_.end()) why = found->second;
      else if (!each->alive() && !find(each)) why = last_failure_;  // before anybody waited
      else continue;
      return true;
    }
    return false;
  };
  const auto all_serve = [&] {
    return std::all_of(processes.begin(), processes.end(), [&](const auto& each) {
      const seat* const found = find(each);
      return found && found->serving;
    });
  };
  while (!all_serve() && !one_fails()) {
    if (ipc::clock::now() >= deadline) {
      why = "it has not begun to serve in time";
      break;
    }
    if (core_->needs_help()) {
      held.unlock();
      core_->reactor->help(ipc::clock::now() + helping_turn);
      held.lock();
    } else {
      changed_.wait_for(held, urgent);
    }
  }
  if (--awaited_ == 0) failures_.clear();
  if (!why.empty()) throw call_error(outcome::unavailable, "plugin " + name_ + " can't serve: " + why);
}

void distributor::close() {
  if (!thread_.joinable()) return;
  bool done = false;
  post([this, &done] {
    while (listener_ && options_.schedule == schedule::round_robin && connections_.size() < most_taken_in) {
      const auto before = past_.accepted;
      accept();
      if (past_.accepted == before) break;
    }
    closing_ = true;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);  // others may have it open, too
    listener_.reset();
    done = true;
  });
  std::unique_lock held(mutex_);
  changed_.wait(held, [&] { return done; });
}

cluster_stats distributor::stats() const {
  std::lock_guard held(mutex_);
  cluster_stats out = past_;
  out.waiting = waiting_.size();
  for (const auto& [id, each] : seats_) {
    cluster_stats::worker one{each->pid, each->serving, each->open, 0, each->requests()};
    if (options_.schedule == schedule::shared) {
      std::tie(one.open, one.busy) = each->own_connections();
    } else {
      for (std::uint32_t i = 0; i < each->slots.size(); ++i)
        one.busy += each->slots[i].connection != 0 && each->state_of(i) == BULKHEAD_SERVE_BUSY;
    }
    out.requests += one.requests;
    out.accepted += each->accepted();
    out.workers.push_back(one);
  }
  return out;
}

}  // namespace bulkhead
