// Opens what a policy grants by path, once for each layer that needs it. Where a plugin may write it may have made links,
// and a manifest may name a link beneath what is granted: to follow one would grant what the host did not. None is
// followed there, however one gets there; everywhere else they are, as policy.hpp says.
#pragma once

#include <bulkhead/ipc/system.hpp>
#include <bulkhead/policy.hpp>

#include <set>
#include <string>
#include <utility>

#include <sys/types.h>

namespace bulkhead::sandbox {

class granted_paths {
 public:
  // In the mount namespace in which paths will be opened.
  explicit granted_paths(const policy::values& granted);

  // By O_PATH. None if there is nothing, or if a link stands in the way.
  unique_fd open(const std::string& path);
  // What was not opened, for a link or because it is not there, to go at the end of a layer's report; empty if there is none.
  std::string left_out() const { return refused_ + missing_; }

 private:
  unique_fd walk(unique_fd from, std::string rest, bool changeable) const;

  const std::set<std::string> within_;
  std::set<std::pair<dev_t, ino_t>> changeable_;  // the directories beneath which a plugin may have made links
  std::string refused_, missing_;
};

}  // namespace bulkhead::sandbox
