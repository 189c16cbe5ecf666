// Decides how a failure in one plugin of a group reaches the others: events in, actions out, no clock and no process,
// like the supervisors of its members, which it sits above.
//
// A driver holds it under the lock that the group's plugins share, tells it what their supervisors say, and carries out
// what comes back in its order; it sets a timer to wake_at(). Members are numbered in the order in which they were
// added, which is the order in which they start. They stop in reverse order, and both one at a time: the next is not
// stopped before the last has ended, nor started before the last takes calls.
//
// Only for strategies other than one_for_one.
#pragma once

#include "clock.hpp"
#include <bulkhead/supervision.hpp>

#include <string>
#include <variant>
#include <vector>

namespace bulkhead::supervision {

class group_supervisor {
 public:
  using member_id = std::size_t;
  struct stop {  // events::stop to this member; answered by stopped()
    member_id member;
    bool calls_wait;
    std::string reason;
  };
  struct start {  // events::start to it; answered by whole(), failed() or out()
    member_id member;
  };
  struct reset {  // events::reset to it, without a start
    member_id member;
  };
  using action = std::variant<stop, start, reset>;
  using action_list = std::vector<action>;

  explicit group_supervisor(restart_strategy strategy) : strategy_(strategy) {}

  // A plugin that takes calls joins.
  member_id add(std::string name);
  // It is unloaded, and never started again.
  action_list removed(member_id member, time_point now);
  // A new version of it takes calls.
  action_list replaced(member_id member, time_point now);

  // Its supervisor wants a restart, not before `due`.
  action_list failed(member_id member, time_point due, time_point now);
  // None of its workers runs any more.
  action_list stopped(member_id member, time_point now);
  // All of its workers take calls, but those that are not to be restarted.
  action_list whole(member_id member, time_point now);
  // It was given up or quarantined (`fatal`), or all its workers have ended as they may. `how` follows its name.
  action_list out(member_id member, bool fatal, const std::string& how, time_point now);
  // All that is out or held back is started again.
  action_list reset_all(time_point now);
  action_list tick(time_point now);
  // When to come with tick().
  time_point wake_at() const;

  enum class state { running, starting, stopping, stopped, out, removed };
  state state_of(member_id member) const { return members_[member].at; }
  // Why it was stopped and waits for reset_all(); empty: it does not.
  const std::string& held(member_id member) const { return members_[member].held; }

 private:
  struct member {
    std::string name;
    state at = state::running;
    bool again = false;  // to be started, once all that are to be stopped have been
    std::string held{};
    time_point due = time_point::min();  // the restart it wants does not come before
    bool to_stop() const { return (again || !held.empty()) && (at == state::running || at == state::starting); }
    bool to_start() const { return again && at == state::stopped; }
  };

  bool reaches(member_id from, member_id to) const;
  void hold(member_id held, const std::string& reason);
  action_list advance(time_point now);

  const restart_strategy strategy_;
  std::vector<member> members_;
  action_list out_;
};

}  // namespace bulkhead::supervision
