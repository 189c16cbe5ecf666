// A worker's sandbox put together from its layers. The fork server prepares one for each policy and plugin and keeps
// it; each worker enters it in two steps: `enter` right after its birth, `seal` just before the plugin is loaded.
#pragma once

#include "report/black_box.hpp"
#include "sandbox/landlock.hpp"
#include "sandbox/limits.hpp"
#include "sandbox/namespaces.hpp"
#include "sandbox/privileges.hpp"
#include "sandbox/seccomp_filter.hpp"

#include <optional>

namespace bulkhead::sandbox {

class prepared {
 public:
  // In the fork server (or, with no namespaces, in the worker itself). `library` is the plugin's file, -1 for a foreign
  // program. `supervised`: whether seal() has somebody to hand the filter's listener to.
  prepared(const namespaces& spaces, const policy& wanted, int library, bool supervised);

  const sandbox_report& report() const { return report_; }
  // Whether the level that the policy requires is reached; if not, why, in one sentence.
  bool sufficient() const { return report_.level >= granted_.required; }
  std::string shortcoming() const;
  bool wants_pid_namespace() const { return pid_.in_force; }
  // Where the worker finds the plugin's file; empty: only through its descriptor.
  const std::string& library() const { return library_; }
  const policy::values& granted() const { return granted_; }

  // In the worker, in this order. They throw std::system_error naming what failed: the worker must end then.
  void enter_files();
  // The one descriptor that seal() needs, moved to the first free number from this one on.
  void move_descriptor(int lowest) { landlock_->move_descriptor(lowest); }
  void enter();
  // `highest_descriptor`: there must be none above it any more; -1: not checked. `supervisor`: a socket which the filter's
  // listener goes to; it is closed.
  void seal(black_box& box, int highest_descriptor, unique_fd supervisor);
  // Whether a listener will come.
  bool listens() const { return seccomp_->listens(); }

 private:
  sandbox_level level() const;
  // What is granted to a part and can't be held to that part here, for a layer's report; empty if all is.
  std::string not_held() const;

  const policy::values granted_;
  const bool namespaces_complete_, own_user_namespace_;
  sandbox_layer namespaces_, root_status_, pid_;
  unique_fd root_;
  std::string library_;
  std::optional<landlock> landlock_;
  limits limits_;
  privileges privileges_;
  std::optional<seccomp_filter> seccomp_;
  std::string not_held_;
  sandbox_report report_;
};

}  // namespace bulkhead::sandbox
