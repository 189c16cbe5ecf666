// What a plugin's sandbox denied during a call, for `bulkhead call --explain`; and what a plugin needed, boiled down to
// the least policy and manifest, for `bulkhead call --learn`.
#pragma once

#include <bulkhead/policy.hpp>

#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace bulkhead::cli {

// The grants that cover all of `needed` and nothing else: no file below a directory that is granted, nothing that every
// worker may read. Pure.
std::vector<std::string> least_grants(const std::set<std::string>& needed);

class denial_book {
 public:
  void add(const violation& what);  // any thread
  // Both to stderr. `had`: the policy under which it ran.
  void explain(const policy& had) const;
  void learn(const std::string& plugin) const;

 private:
  struct entry {
    violation first;
    unsigned count = 0;
  };
  mutable std::mutex mutex_;
  std::vector<entry> entries_;
};

}  // namespace bulkhead::cli
