// isolation::none: the plugin in this process, called on the caller's own thread, one call at a time.
#pragma once

#include "host_core.hpp"
#include "instance.hpp"
#include "worker/plugin_runtime.hpp"

namespace bulkhead {

class in_process_instance final : public instance,
                                  plugin_runtime::link,
                                  public std::enable_shared_from_this<in_process_instance> {
 public:
  // Throws call_error when the plugin can't be loaded.
  in_process_instance(std::shared_ptr<host_core> core, std::string name, const std::string& path, unique_fd file,
                      load_options options, std::weak_ptr<instance_owner> owner);

  reply call(call_request& request) override;
  outcome async_call(call_request& request, std::unique_ptr<reply_handler>& handler) override;
  bool alive() const override { return !ended_; }
  bool ended() const override { return ended_; }
  worker_info info() const override { return {::getpid(), phase::ready, outstanding()}; }
  unsigned outstanding() const override { return outstanding_; }
  void wait_ready() override {}
  plugin_info description() const override { return description_; }
  void drain(ipc::time_point deadline) override;
  void ask_to_leave() override {}
  void end(ipc::time_point deadline) override;

 private:
  struct pending;
  void answer(bulkhead_call& call, ipc::byte_span result) override;
  bool may_send_handles() const override { return true; }
  void fail(bulkhead_call& call, ipc::call_failure failure) override;
  void progress(bulkhead_call& call, ipc::byte_span value) override;
  void log(int level, std::string_view text) override;
  bool emit(std::string_view name, ipc::byte_span value) override;
  void poll(bulkhead_call&) override {}
  ipc::completion call_host(bulkhead_call* on_behalf_of, std::string_view function, ipc::byte_span arguments) override;

  const std::shared_ptr<host_core> core_;
  const std::string name_;
  const load_options options_;
  const std::weak_ptr<instance_owner> owner_;
  plugin_runtime runtime_;
  plugin_info description_;
  std::mutex dispatch_;  // whoever holds it is the dispatch thread
  std::atomic<unsigned> outstanding_{0};
  std::atomic<bool> ended_{false};
};

}  // namespace bulkhead
