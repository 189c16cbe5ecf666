// See distributor.hpp: what happens to connections.
#include "cluster/distributor.hpp"
#include "cluster/keys.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

namespace bulkhead {
namespace {

constexpr int accepted_at_once = 64;
constexpr std::chrono::milliseconds accept_pause{100};  // when there are no descriptors left

}  // namespace

void distributor::accept() {
  for (int i = 0; i < accepted_at_once && (closing_ || waiting_.empty()); ++i) {
    unique_fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if (errno == EINVAL) {  // whoever has lent it has shut it down
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
        core_->log({log_level::error, name_, -1, "the listening socket has been shut down: nobody is accepted", 0});
      } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
        accept_again_ = ipc::clock::now() + accept_pause;
        soon();
      }
      return;
    }
    const std::uint64_t id = ++last_id_;
    epoll_event event{0, {.u64 = keys::connection | id}};  // its end
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) continue;
    ++past_.accepted;
    connection& added = connections_[id];
    added.fd = std::move(fd);
    pass(id, added);
  }
}

// Only while somebody is free: the backlog is the better place to wait.
void distributor::watch_listener() {
  const bool wanted = listener_ && options_.schedule == schedule::round_robin && waiting_.empty() &&
                      ipc::clock::now() >= accept_again_ && next_free(nullptr);
  if (wanted == listening_ || !listener_) return;
  epoll_event event{wanted ? EPOLLIN : 0u, {.u64 = keys::listener}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event) == 0) listening_ = wanted;
}

// The one with the fewest connections; of several, the next after the last that got one.
seat* distributor::next_free(const seat* except) {
  seat* best = nullptr;
  const auto later = [&](const seat& a) { return a.id > last_given_; };
  for (const auto& [id, each] : seats_) {
    if (!each->serving || each->full || each.get() == except || !each->has_room()) continue;
    if (!best || each->open < best->open || (each->open == best->open && later(*each) && !later(*best)))
      best = each.get();
  }
  return best;
}

void distributor::pass(std::uint64_t id, connection& which, const seat* except) {
  while (seat* const to = next_free(except))
    if (give(*to, id, which)) return;
  waiting_.push_back(id);
  soon();
}

bool distributor::give(seat& to, std::uint64_t id, connection& which) {
  const auto slot = to.take_slot(id);
  if (slot &&
      to.send({.type = BULKHEAD_SERVE_CONNECTION, .slot = *slot, .generation = to.slots[*slot].generation, .value = 0},
              which.fd.get())) {
    which.at = &to;
    which.slot = *slot;
    last_given_ = to.id;
    return true;
  }
  if (slot) to.release(*slot, true);
  to.full = true;  // until the next tick
  soon();
  return false;
}

void distributor::pass_waiting() {
  std::deque<std::uint64_t> those;
  those.swap(waiting_);
  for (const std::uint64_t id : those)
    if (const auto found = connections_.find(id); found != connections_.end()) pass(id, found->second);
}

// Those that the worker has returned or ended.
void distributor::take_back(seat& from) {
  if (from.open == 0) return;
  for (std::uint32_t i = 0; i < from.slots.size(); ++i) {
    const std::uint64_t id = from.slots[i].connection;
    if (id == 0) continue;
    const std::uint32_t state = from.state_of(i);
    if (state != BULKHEAD_SERVE_RETURNED && state != BULKHEAD_SERVE_DONE) continue;
    from.release(i, true);
    connection& which = connections_.at(id);
    which.at = nullptr;
    if (state == BULKHEAD_SERVE_DONE) {
      drop(id);
    } else {
      ++past_.handed_over;
      pass(id, which, &from);
    }
  }
}

// Its worker is dead: nobody else reads from its connections, and its table is as it left it.
void distributor::abandon(seat& dead) {
  dead.serving = false;
  take_back(dead);
  const auto lost = past_.lost + past_.lost_idle, handed_over = past_.handed_over;
  for (std::uint32_t i = 0; i < dead.slots.size() && dead.open > 0; ++i) {
    const std::uint64_t id = std::exchange(dead.slots[i].connection, 0);
    if (id == 0) continue;
    --dead.open;
    connection& which = connections_.at(id);
    which.at = nullptr;
    if (dead.state_of(i) == BULKHEAD_SERVE_BUSY) {
      ++past_.lost;
      drop(id);
    } else {
      ++past_.handed_over;
      pass(id, which);
    }
  }
  if (options_.schedule == schedule::shared) {
    const auto [open, busy] = dead.own_connections();
    past_.lost += busy;
    past_.lost_idle += open - busy;
  }
  past_.requests += dead.requests();
  past_.accepted += dead.accepted();
  if (const auto count = past_.lost + past_.lost_idle - lost; count > 0)
    core_->log({log_level::warning, name_, dead.pid,
                "ended with " + std::to_string(count) + " connections; " +
                    std::to_string(past_.handed_over - handed_over) + " others go on in another worker",
                0});
}

// Both directions of a connection have been shut down, or the client has reset it.
void distributor::hung_up(std::uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  if (seat* const at = std::exchange(found->second.at, nullptr)) {
    const std::uint32_t state = at->state_of(found->second.slot);
    const bool done = state == BULKHEAD_SERVE_DONE || state == BULKHEAD_SERVE_RETURNED;
    at->release(found->second.slot, done);
    if (!done) soon();
    drop(id);
    if (!waiting_.empty()) pass_waiting();
  } else {
    drop(id);  // its number stays in waiting_, which does no harm
  }
}

void distributor::drop(std::uint64_t id) {
  const auto found = connections_.find(id);
  const int fd = found->second.fd.get();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);  // closing alone would not: the worker has it open, too
  const linger none{};                                    // whatever the worker has set: the last close must not block
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  connections_.erase(found);
}

}  // namespace bulkhead
