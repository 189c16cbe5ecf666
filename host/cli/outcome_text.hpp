// What came of a call, for people and as JSON.
#pragma once

#include "values/from_msgpack.hpp"
#include <bulkhead/host.hpp>

namespace bulkhead::cli {

// A failed call or start: what reply and call_error have in common.
struct failure {
  bulkhead::outcome outcome = bulkhead::outcome::unavailable;
  std::string message;
  std::vector<std::uint8_t> data;
  std::shared_ptr<const crash_report> report;
};
failure failure_of(const reply& failed);
failure failure_of(const call_error& error);

// The same with names in the stack of a worker that crashed, as far as they can be found.
failure with_names(failure what, const host& by);

// To stderr: outcome, message, details; and of a worker that died its end, its stack and its last lines.
void print_failure(const failure& what);

// {"message": ..., "data": ...}, and all that a crash report says; null when there is none.
json error_json(const failure& what);
json report_json(const std::shared_ptr<const crash_report>& report);

}  // namespace bulkhead::cli
