// The sandboxes of a server's children: each is prepared once for a policy and a plugin's file, then kept for the children
// to come.
#pragma once

#include "sandbox/sandbox.hpp"

#include <list>
#include <string>
#include <utility>

namespace bulkhead {

class sandbox_cache {
 public:
  // Enters the namespaces that they share.
  explicit sandbox_cache(const sandbox::namespaces::options& options) : spaces_(options) {}

  // `library`: the plugin's file, -1 for none. What is returned is there until the next call. Throws when it can't be prepared.
  sandbox::prepared& prepare(const std::string& rules, int library);
  // The same for a child: none when the sandbox that the policy requires can't be had, and then `text` says why; else it says
  // what is in force.
  sandbox::prepared* for_child(const std::string& rules, int library, std::string& text);

 private:
  const sandbox::namespaces spaces_;
  std::list<std::pair<std::string, sandbox::prepared>> kept_;  // the last used first
};

}  // namespace bulkhead
