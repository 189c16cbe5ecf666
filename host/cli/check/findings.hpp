// What `bulkhead check` has found, and how it is told: a table for people, JSON, JUnit's XML for CI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bulkhead::cli::check {

enum class status { passed, warned, failed, skipped };

// One check. Its findings fail it, its warnings don't.
struct result {
  std::string name;
  std::string note;  // what was looked at, in a few words; or why it was skipped
  std::vector<std::string> failures{}, warnings{};
  bool skipped = false;
  double ms = 0;

  check::status status() const;
  // No more than ten of a kind are kept.
  void fail(std::string text);
  void warn(std::string text);
};

struct report {
  std::string plugin, version, file;
  std::uint64_t seed = 0;
  std::vector<result> results{};

  std::size_t count(check::status status) const;  // of the results
  void print() const;
  std::string json() const;
  std::string junit() const;
};

}  // namespace bulkhead::cli::check
