// A stage for a supervisor: a clock that moves when told, and the actions of the last event as short texts such as
// "spawn 3@0" (worker 3 for place 0), so that a test reads as a play.
#pragma once

#include "supervision/supervisor.hpp"

#include <string>
#include <utility>

namespace bulkhead::supervision {

using namespace std::chrono_literals;
using script = std::vector<std::string>;

inline std::string text(const action& what) {
  struct {
    static std::string id(worker_id worker) { return std::to_string(worker); }
    std::string operator()(const actions::spawn& a) {
      return (a.kind == spawn_kind::restart ? "respawn " : "spawn ") + id(a.worker) + "@" + std::to_string(a.place);
    }
    std::string operator()(const actions::serve& a) { return "serve " + id(a.worker) + "@" + std::to_string(a.place); }
    std::string operator()(const actions::ping& a) { return "ping " + id(a.worker); }
    std::string operator()(const actions::drain& a) { return "drain " + id(a.worker); }
    std::string operator()(const actions::shutdown& a) { return "shutdown " + id(a.worker); }
    std::string operator()(const actions::kill& a) {
      const char* const why = a.reason == exit_reason::hung            ? " hung"
                              : a.reason == exit_reason::start_timeout ? " start_timeout"
                              : a.reason == exit_reason::shut_down     ? ""
                                                                       : " ?";
      return "kill " + id(a.worker) + why;
    }
    std::string operator()(const actions::fail_calls& a) { return "fail_calls: " + a.reason; }
    std::string operator()(const actions::admit_calls&) { return "admit_calls"; }
    std::string operator()(const actions::stopped&) { return "stopped"; }
    std::string operator()(const actions::ended&) { return "ended"; }
    std::string operator()(const actions::restart_group&) { return "restart_group"; }
    std::string operator()(const actions::reset_group&) { return "reset_group"; }
    std::string operator()(const actions::restarting& a) {
      return "restarting " + id(a.worker) + " in " + std::to_string(a.delay / 1ms) + " ms";
    }
    std::string operator()(const actions::degraded& a) {
      return "degraded " + std::to_string(a.serving) + "/" + std::to_string(a.instances);
    }
    std::string operator()(const actions::recovered&) { return "recovered"; }
    std::string operator()(const actions::gave_up& a) {
      return "gave_up: " + a.reason + ", " + std::to_string(a.last_exits.size()) + " exits";
    }
    std::string operator()(const actions::quarantined&) { return "quarantined"; }
    std::string operator()(const actions::soon_heavy&) { return "soon_heavy"; }
    std::string operator()(const actions::undead& a) { return "undead " + id(a.worker); }
  } writer;
  return std::visit(writer, what);
}

// No heartbeat, so that tests of other things need not answer it.
inline supervisor_settings settings(std::size_t instances = 1, unsigned spares = 0) {
  supervisor_settings made;
  made.instances = instances;
  made.rules.spares = spares;
  made.rules.heartbeat.interval = 0ns;
  return made;
}

class stage {
 public:
  explicit stage(supervisor_settings with = settings(), double jitter = 0)
      : subject(with, [jitter] { return jitter; }), instances_(with.instances + with.rules.spares) {}

  script tell(const event& what) {
    actions_ = subject.handle(what, now);
    script all;
    for (const action& each : actions_) all.push_back(text(each));
    return all;
  }
  script wait(std::chrono::nanoseconds time) {
    now += time;
    return tell(events::tick{});
  }
  // Moves to where the supervisor's own timer is.
  script wake() {
    now = subject.wake_at();
    return tell(events::tick{});
  }

  script ready(worker_id id) {
    tell(events::started{id, phase::spawn});
    return tell(events::ready{id});
  }
  script crash(worker_id id) { return tell(exit(id, exit_class::abnormal)); }
  static event exit(worker_id id, exit_class how, bool calls_pending = false) {
    auto report = std::make_shared<crash_report>();
    report->exit_code = static_cast<int>(id);
    return events::exited{id, how, calls_pending, std::move(report)};
  }
  // Started, all workers ready: numbers 1 to instances + spares.
  stage& up() {
    tell(events::start{});
    for (worker_id id = 1; id <= instances_; ++id) ready(id);
    return *this;
  }
  // Its worker crashes, and the next as soon as it is there, until the plugin is given up. Returns the last script.
  script crash_until_given_up(worker_id first) {
    for (worker_id id = first;; ++id) {
      auto last = crash(id);
      if (subject.state() == supervisor_state::gave_up) return last;
      if (subject.wake_at() != never) wake();
      ready(id + 1);
    }
  }
  template <class T>
  const T* last() const {
    for (const action& each : actions_)
      if (const T* const found = std::get_if<T>(&each)) return found;
    return nullptr;
  }

  supervisor subject;
  time_point now{1000s};

 private:
  std::size_t instances_;
  action_list actions_;
};

}  // namespace bulkhead::supervision
