// The range on which the escape suite shoots: a worker with the attack plugin, things outside that it should not get at,
// and the rule by which an attempt's result tells the layer that stopped it.
#pragma once

#include "outside.hpp"
#include <bulkhead/host.hpp>

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace bulkhead::testing {

struct stop {
  std::string layer;
  std::vector<std::string> errors;  // by name; empty: any, for those that are known by a reported denial
};

struct attempt {
  int index = 0;
  std::string family, name;
  std::vector<stop> stops;
};

struct shot {
  const attempt* what = nullptr;
  std::string expected;  // the layer; empty: nothing is left to stop it, so it was not made
  std::string got;       // "EACCES", "EPERM by seccomp", "succeeded", "worker lost"
  bool as_expected = false;
};

// What the attacker is given: "strict" is nothing; "grants" are three directories, to create in, to write and to read;
// "passed" are descriptors; "returned" is that it may send some. "unsealed passed" and "unsealed returned" are the same
// without the layer "seals".
class firing_range {
 public:
  explicit firing_range(policy rules, std::string setting = "strict");

  const std::vector<attempt>& attempts() const { return attempts_; }
  std::set<std::string> layers_in_force();
  sandbox_report report();
  // Makes an attempt, expecting it to be stopped by the first of its stops that is in `layers`.
  shot fire(const attempt& what, const std::set<std::string>& layers);
  // One system call by number: its result, and whether it was reported denied.
  struct number_result {
    long result = 0;
    bool denied = false, lost = false;
  };
  number_result call_number(int table, int number);
  // From here on the worker has open what descriptors it may have.
  void leave_descriptors_open() { attacker_.call("leave_open"); }

 private:
  void tell_facts();
  reply make_attempt(const attempt& what, std::string& damage);
  const std::string setting_;
  outside outside_;
  std::unique_ptr<bulkhead::host> host_;
  plugin sibling_, attacker_;
  std::vector<attempt> attempts_;
};

}  // namespace bulkhead::testing
