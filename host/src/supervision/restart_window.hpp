// A sliding window over restarts: says whether one more is within the intensity. Used for plugins, groups of them, the
// fork server, and all restarts of a host.
#pragma once

#include "clock.hpp"
#include <bulkhead/supervision.hpp>

#include <deque>

namespace bulkhead::supervision {

// The fork server is respawned at once; its third death within the period is its last, and the host fails closed.
inline constexpr restart_intensity fork_server_intensity{2, std::chrono::seconds(60)};

class restart_window {
 public:
  explicit restart_window(restart_intensity limit) : limit_(limit) {}

  // Counts a restart at `now` and returns true if it is within the intensity; otherwise counts nothing.
  bool admit(time_point now) {
    if (open_at(now) > now) return false;
    if (limit_.restarts > 0) at_.push_back(now);
    return limit_.restarts > 0;
  }

  // When one more restart would be admitted: `now` or later.
  time_point open_at(time_point now) {
    while (!at_.empty() && now - at_.front() >= limit_.period) at_.pop_front();
    return at_.size() < limit_.restarts || at_.empty() ? now : after(at_.front(), limit_.period);
  }

  void clear() { at_.clear(); }
  const restart_intensity& limit() const { return limit_; }

 private:
  restart_intensity limit_;
  std::deque<time_point> at_;  // of the restarts in the window, the oldest first
};

}  // namespace bulkhead::supervision
