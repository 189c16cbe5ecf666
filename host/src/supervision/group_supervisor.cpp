// See group_supervisor.hpp.
#include "group_supervisor.hpp"

#include <algorithm>
#include <utility>

namespace bulkhead::supervision {

group_supervisor::member_id group_supervisor::add(std::string name) {
  members_.push_back({.name = std::move(name)});
  return members_.size() - 1;
}

group_supervisor::action_list group_supervisor::removed(member_id gone, time_point now) {
  members_[gone] = {.name = members_[gone].name, .at = state::removed};
  return advance(now);
}

// Whatever was to become of the old version is done to the new one.
group_supervisor::action_list group_supervisor::replaced(member_id which, time_point now) {
  member& each = members_[which];
  if (each.at == state::removed) return {};
  if (each.at == state::starting || each.at == state::stopping) each.again = each.held.empty();
  each.at = state::running;
  each.due = time_point::min();
  return advance(now);
}

group_supervisor::action_list group_supervisor::failed(member_id which, time_point due, time_point now) {
  const state at = members_[which].at;
  if (at != state::running && at != state::starting) return {};
  for (member_id id = 0; id < members_.size(); ++id) {
    member& each = members_[id];
    if (!reaches(which, id) || each.at == state::out || each.at == state::removed || !each.held.empty()) continue;
    each.again = true;
  }
  members_[which].due = due;
  return advance(now);
}

group_supervisor::action_list group_supervisor::stopped(member_id which, time_point now) {
  if (members_[which].at == state::stopping) members_[which].at = state::stopped;
  return advance(now);
}

group_supervisor::action_list group_supervisor::whole(member_id which, time_point now) {
  if (members_[which].at != state::starting || members_[which].again) return {};
  members_[which].at = state::running;
  return advance(now);
}

group_supervisor::action_list group_supervisor::out(member_id which, bool fatal, const std::string& how,
                                                    time_point now) {
  member& gone = members_[which];
  if (gone.at == state::removed || gone.at == state::out) return {};
  fatal = fatal || gone.at == state::starting;  // those after it wait for it
  gone.at = state::out;
  gone.again = false;
  gone.held.clear();
  if (fatal)
    for (member_id id = members_.size(); id-- > 0;)
      if (reaches(which, id)) hold(id, "plugin " + gone.name + " of its group " + how);
  return advance(now);
}

group_supervisor::action_list group_supervisor::reset_all(time_point now) {
  for (member_id id = 0; id < members_.size(); ++id) {
    member& each = members_[id];
    if (each.at == state::removed) continue;
    out_.emplace_back(reset{id});
    if (each.at == state::out) each.at = state::stopped;
    if (each.at == state::stopped || each.at == state::stopping) each.again = true;
    each.held.clear();
    each.due = now;
  }
  return advance(now);
}

group_supervisor::action_list group_supervisor::tick(time_point now) { return advance(now); }

time_point group_supervisor::wake_at() const {
  auto due = time_point::min();
  bool waits = false;
  for (const auto& each : members_) {
    if (each.at == state::stopping || each.at == state::starting) return never;
    waits = waits || each.to_start();
    due = std::max(due, each.due);
  }
  return waits ? due : never;
}

bool group_supervisor::reaches(member_id from, member_id to) const {
  return strategy_ == restart_strategy::one_for_all || to >= from;
}

// Stops a member until reset_all(); the calls that wait for it fail.
void group_supervisor::hold(member_id id, const std::string& reason) {
  member& each = members_[id];
  if (each.at == state::out || each.at == state::removed || !each.held.empty()) return;
  each.again = false;
  each.held = reason;
  if (each.at != state::stopped && each.at != state::stopping) return;  // its turn comes
  each.at = state::stopping;
  out_.emplace_back(stop{id, false, reason});
}

group_supervisor::action_list group_supervisor::advance(time_point now) {
  const auto stopping = [](const member& each) { return each.at == state::stopping; };
  if (std::none_of(members_.begin(), members_.end(), stopping)) {
    const auto last =
        std::find_if(members_.rbegin(), members_.rend(), [](const member& each) { return each.to_stop(); });
    if (last != members_.rend()) {
      last->at = state::stopping;
      const auto id = static_cast<member_id>(std::distance(last, members_.rend()) - 1);
      out_.emplace_back(stop{id, last->held.empty(), last->held});
    } else if (wake_at() <= now) {
      const auto first =
          std::find_if(members_.begin(), members_.end(), [](const member& each) { return each.to_start(); });
      first->at = state::starting;
      first->again = false;
      out_.emplace_back(start{static_cast<member_id>(std::distance(members_.begin(), first))});
    }
  }
  return std::exchange(out_, {});
}

}  // namespace bulkhead::supervision
