// isolation::none: the plugin in this process, called on the caller's own thread, one call at a time.
#pragma once

#include "host_core.hpp"
#include "instance.hpp"
#include "owned_mutex.hpp"
#include "worker/plugin_runtime.hpp"

#include <condition_variable>
#include <list>
#include <thread>

namespace bulkhead {

class in_process_instance final : plugin_runtime::link, public std::enable_shared_from_this<in_process_instance> {
 public:
  // Throws call_error when the plugin can't be loaded.
  in_process_instance(std::shared_ptr<host_core> core, std::string name, const std::string& path, unique_fd file,
                      load_options options, std::weak_ptr<instance_owner> owner);

  // Blocks until the outcome.
  reply call(call_request& request);
  void async_call(const std::shared_ptr<call_request>& request, std::unique_ptr<reply_handler> handler);
  // Runs it on a thread of its own.
  void open(const std::shared_ptr<call_request>& request, std::unique_ptr<reply_handler> handler);
  worker_info info() const { return {::getpid(), phase::ready, outstanding_}; }
  plugin_info description() const { return description_; }
  // Between calls. Throw call_error.
  std::vector<std::uint8_t> save_state();
  void restore_state(ipc::byte_span state);
  // Calls that come from now on are refused; waits for those in progress, until the deadline, and then for the one that
  // runs. Not on the dispatch thread.
  void end(ipc::time_point deadline);
  // Whether this is the dispatch thread: then it is a function lent to the plugin that asks.
  bool on_dispatch_thread() const { return dispatch_.mine(); }
  // Throws call_error if it is.
  void refuse_reentry() const;

 private:
  struct pending;
  bool admit();
  std::string unloaded() const { return "plugin " + name_ + " has been unloaded"; }
  std::string reentered() const;
  void ended_one();
  void answer(bulkhead_call& call, ipc::byte_span result) override;
  bool may_send_handles() const override { return true; }
  void fail(bulkhead_call& call, ipc::call_failure failure) override;
  void progress(bulkhead_call& call, ipc::byte_span value) override;
  void log(int level, std::string_view text) override;
  bool emit(std::string_view name, ipc::byte_span value, std::vector<unique_fd> handles) override;
  void poll(bulkhead_call& call) override;
  void leave(std::string_view why) override { log(BULKHEAD_LOG_WARNING, "it must go: " + std::string(why)); }
  std::optional<ipc::byte_span> open_blob(bulkhead_call& call, const ipc::blob_reference& reference) override;
  std::optional<ipc::snapshot> published(const std::string& name) override;
  ipc::completion call_host(bulkhead_call* on_behalf_of, std::string_view function, ipc::byte_span arguments,
                            std::vector<unique_fd> handles) override;

  const std::shared_ptr<host_core> core_;
  const std::string name_;
  const load_options options_;
  const std::weak_ptr<instance_owner> owner_;
  plugin_runtime runtime_;
  plugin_info description_;
  owned_mutex dispatch_;  // whoever holds it is the dispatch thread
  std::atomic<unsigned> outstanding_{0};
  std::mutex idle_mutex_;
  std::condition_variable idle_;
  bool closing_ = false;            // with idle_mutex_: no call is taken any more
  std::atomic<bool> ended_{false};  // and none is begun: with dispatch_, the plugin may be gone
  serial_queue callbacks_{[this] { return core_->handlers(); }};  // until the plugin is gone
  struct streaming {
    std::weak_ptr<call_stream> stream;
    std::atomic<bool> done{false};
    std::jthread thread;
  };
  std::mutex streaming_mutex_;
  std::list<streaming> streaming_;
};

}  // namespace bulkhead
