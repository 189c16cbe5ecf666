// The checks, one function each, in the order in which they are made: later ones use what earlier ones have found out.
#pragma once

#include "check/findings.hpp"
#include "check/subject.hpp"

namespace bulkhead::cli::check {

struct sample {
  made_arguments arguments;
  outcome how = outcome::ok;
  std::vector<std::uint8_t> result{};
};

struct method_under_check {
  method_info info;
  signature form{};
  bool typed = false;                    // whether its signature could be read
  std::vector<sample> samples{};         // of arguments that are right, those that succeeded first
  std::optional<made_arguments> slow{};  // with these it runs into its deadline
};

struct exam {
  settings with;
  plugin_info info{};
  std::vector<method_under_check> methods{};
  policy rules{};  // what it is granted: its requests, as far as settings::most allows
  std::set<std::string> misuses{}, extensions{};

  void keep(const observations& seen) {
    misuses.insert(seen.misuses.begin(), seen.misuses.end());
    extensions.insert(seen.extensions.begin(), seen.extensions.end());
  }
};

// What its file says to the linker, read in a sandbox.
void check_file(exam& of, result& found);
// That it starts, and what it says of itself. False: it does not, and nothing else can be checked.
bool check_start(exam& of, result& found);
void check_methods(exam& of, result& found);
void check_arguments(exam& of, result& found);
// The one case of arguments with this seed.
void reproduce(exam& of, std::uint64_t seed, result& found);
void check_leaks(exam& of, result& found);
void check_cancellation(exam& of, result& found);
void check_deadlines(exam& of, result& found);
void check_threads(exam& of, result& found);
void check_life(exam& of, result& found);
void check_permissions(exam& of, result& found);
void check_host_use(exam& of, result& found);

// "worker_lost: killed by SIGSEGV ...", in one line.
std::string describe(const reply& failed);

}  // namespace bulkhead::cli::check
