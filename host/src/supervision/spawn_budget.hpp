// What all plugins of a host may spend together on spawns: so many at once, and so many restarts within some seconds.
// Spawns beyond that wait their turn here, in the order they were asked for; a restart that must wait lets first starts
// pass. Pure: the driver asks, spawns what is granted, and says when a worker is ready or gone.
#pragma once

#include "restart_window.hpp"

#include <list>
#include <set>
#include <vector>

namespace bulkhead::supervision {

// What a worker is spawned for.
enum class spawn_kind {
  first,        // somebody waits for it
  replacement,  // of one that still serves
  restart,
};

class spawn_budget {
 public:
  using ticket = std::uint64_t;

  explicit spawn_budget(unsigned at_once = spawn_limits{}.at_once, restart_intensity restarts = spawn_limits{}.restarts)
      : at_once_(at_once), restarts_(restarts) {}

  // Queues a spawn; granted() returns the ticket when its turn has come.
  ticket ask(spawn_kind kind) {
    queue_.push_back({++last_, kind});
    return last_;
  }

  // The spawn is over: its worker is ready or gone, or is no longer wanted. Harmless for a ticket that is over already.
  void done(ticket spawn) {
    if (starting_.erase(spawn) > 0) return;
    queue_.remove_if([&](const request& each) { return each.spawn == spawn; });
  }

  // Those whose turn it is now, first ones only if there are to be no others. To be asked after each ask() and done(), and
  // at wake_at().
  std::vector<ticket> granted(time_point now, bool others = true) {
    std::vector<ticket> turn;
    for (auto each = queue_.begin(); each != queue_.end() && starting_.size() < at_once_;) {
      const bool may = each->kind == spawn_kind::first ||
                       (others && (each->kind == spawn_kind::replacement || restarts_.admit(now)));
      if (!may) {
        ++each;
        continue;
      }
      starting_.insert(each->spawn);
      turn.push_back(each->spawn);
      each = queue_.erase(each);
    }
    return turn;
  }

  // When a spawn that waits could be granted though nothing else happens.
  time_point wake_at(time_point now, bool others = true) {
    if (queue_.empty() || starting_.size() >= at_once_ || !others) return never;
    return restarts_.open_at(now);
  }

  std::size_t waiting() const { return queue_.size(); }
  std::size_t starting() const { return starting_.size(); }

 private:
  struct request {
    ticket spawn;
    spawn_kind kind;
  };
  unsigned at_once_;
  restart_window restarts_;
  std::list<request> queue_;
  std::set<ticket> starting_;
  ticket last_ = 0;
};

}  // namespace bulkhead::supervision
