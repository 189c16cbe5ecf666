// The plugins of a group: carries out what their group_supervisor decides. In a group that restarts together they share
// one lock, that of their pools; functions marked (locked) expect it held.
#pragma once

#include "host_core.hpp"
#include "supervision/group_supervisor.hpp"
#include "supervision/restart_window.hpp"

#include <deque>

namespace bulkhead {

class BULKHEAD_PRIVATE group_core final : public reactor::target, public std::enable_shared_from_this<group_core> {
 public:
  using member_id = supervision::group_supervisor::member_id;

  group_core(std::shared_ptr<host_core> core, const group_options& options);

  // A failure in one member may reach others.
  bool coupled() const { return options_.strategy != restart_strategy::one_for_one; }

  // In a group that is not coupled.
  void add_alone(std::weak_ptr<plugin_pool> pool);
  // These in one that is, all (locked).
  member_id add(const std::string& name, std::weak_ptr<plugin_pool> pool);
  void removed(member_id member);
  void replaced(member_id member);
  void failed(member_id member, supervision::time_point due);
  void stopped(member_id member);
  void whole(member_id member);
  void out(member_id member, bool fatal, const std::string& how);
  void reset();
  // Calls of any member may have got a worker, or are to fail. The lock is not held.
  void announce();
  // In the order in which they were loaded, without those that were unloaded.
  std::vector<std::shared_ptr<plugin_pool>> pools();

  // reactor::target
  void on_ready(int, std::uint32_t) override {}
  void on_timer() override;

  const std::shared_ptr<host_core> core;
  const std::shared_ptr<std::mutex> mutex = std::make_shared<std::mutex>();
  supervision::restart_window window;  // (locked)

 private:
  void carry_out(supervision::group_supervisor::action_list actions);

  const group_options options_;
  supervision::group_supervisor supervisor_;
  std::vector<std::weak_ptr<plugin_pool>> pools_;  // by member
  std::deque<supervision::group_supervisor::action> actions_;
  bool executing_ = false;
};

}  // namespace bulkhead
