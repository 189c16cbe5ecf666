// One running copy of a plugin, wherever it runs: in a worker process or in this one.
#pragma once

#include <bulkhead/host.hpp>

namespace bulkhead {

// A call on its way. The parts that outlive a synchronous caller's stack are owned.
struct call_request {
  std::string method;
  packed_arguments arguments;
  ipc::time_point deadline = ipc::never;
  bool default_deadline = false;  // the worker knows it already
  std::stop_token stop;
  std::function<void(const msgpack::object&)> on_progress;
};

class instance {
 public:
  virtual ~instance() = default;

  // Blocks until the outcome.
  virtual reply call(call_request& request) = 0;
  // Leaves `request` and `handler` as they are and returns an outcome other than ok when the call could not be started.
  virtual outcome async_call(call_request& request, std::unique_ptr<reply_handler>& handler) = 0;

  // Whether new calls can go to it.
  virtual bool alive() const = 0;
  // Whether nothing is left of it to wait for.
  virtual bool ended() const = 0;
  virtual worker_info info() const = 0;
  virtual unsigned outstanding() const = 0;

  // Blocks until it is ready; throws call_error when it can't get ready.
  virtual void wait_ready() = 0;
  // What it said of itself when it got ready.
  virtual plugin_info description() const = 0;

  // Ends it in good order, in three steps so that several can end side by side. Each may block until `deadline`.
  virtual void drain(ipc::time_point deadline) = 0;
  virtual void ask_to_leave() = 0;
  virtual void end(ipc::time_point deadline) = 0;
};

// What an instance tells its pool; any thread.
class instance_owner {
 public:
  virtual ~instance_owner() = default;
  virtual void on_event(const std::string& name, const msgpack::object& value) = 0;
  virtual void on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) = 0;
  // By the fork server; those that the worker itself reports come as on_log().
  virtual void on_violation(violation what) = 0;
  virtual void on_lifecycle(enum lifecycle_event::kind kind, pid_t pid, std::shared_ptr<const crash_report> report) = 0;
};

// Reads a description as in $/ready. Any shape is accepted and sanitised.
plugin_info read_description(const msgpack::object& value);

// Runs a function lent to a plugin; its failure becomes the outcome.
ipc::completion run_function(const functions& table, const std::string& name, ipc::byte_span arguments);

}  // namespace bulkhead
