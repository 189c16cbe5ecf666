// What the pool and those who run a plugin's code for it have in common: the call on its way, and what they report.
#pragma once

#include "metrics/call_meter.hpp"
#include <bulkhead/host.hpp>

namespace bulkhead {

class call_stream;
class progress_reports;

// A call on its way; shared by whoever may still look at it while another thread already completes it.
struct call_request {
  std::string_view method;  // of whoever waits for the call, or else in `name`
  std::string name;
  packed_arguments arguments;
  ipc::time_point deadline = ipc::never;
  bool default_deadline = false;  // the worker knows it already
  std::stop_token stop;
  call_key key;                                // of sticky dispatch
  std::shared_ptr<progress_reports> progress;  // if anybody listens
  std::shared_ptr<call_stream> stream;         // if it is one that streams
  call_meter::cell* counted = nullptr;
  ipc::time_point begun{};
  std::uint32_t id = 0;  // in the worker that it came back from
};

// What one who runs a plugin tells of it; any thread.
class instance_owner {
 public:
  virtual ~instance_owner() = default;
  // What it leaves of the handles is the caller's to close.
  virtual void on_event(const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles) = 0;
  virtual void on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) = 0;
  // By the fork server; those that the worker itself reports come as on_log().
  virtual void on_violation(violation what) = 0;
};

// Reads a description as in $/ready. Any shape is accepted and sanitised.
plugin_info read_description(const msgpack::object& value);

// Runs a function lent to a plugin, unless the deadline has passed; its failure becomes the outcome. What it leaves of the
// handles is the caller's to close.
ipc::completion run_function(const functions& table, const std::string& name, ipc::byte_span arguments,
                             std::vector<unique_fd>& handles, ipc::time_point deadline);

}  // namespace bulkhead
