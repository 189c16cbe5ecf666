// A plugin's workers: chooses one for each call, replaces those that died, ends them all in good order.
#pragma once

#include "host_core.hpp"
#include "instance.hpp"
#include "worker_process.hpp"

namespace bulkhead {

class plugin_pool final : public instance_owner, public std::enable_shared_from_this<plugin_pool> {
 public:
  plugin_pool(std::shared_ptr<host_core> core, std::string name, std::filesystem::path file,
              std::vector<std::string> argv, load_options options);
  ~plugin_pool() override;

  // What the application holds: the plugin is unloaded, by the application's own thread, when the last of it is gone.
  // Others (the reactor, handlers) may hold the pool itself meanwhile and never wait for anything.
  std::shared_ptr<plugin_pool> handle();

  // Starts all instances and waits for them. Throws call_error.
  void start();

  reply call(std::string_view method, packed_arguments arguments, const call_options& options);
  void async_call(std::string_view method, packed_arguments arguments, const call_options& options,
                  std::unique_ptr<reply_handler> handler);
  void on_event(std::function<void(const std::string&, const msgpack::object&)> handler);
  plugin_info describe();
  std::vector<worker_info> workers() const;
  void unload();
  host_core& core() { return *core_; }

  // instance_owner
  void on_event(const std::string& name, const msgpack::object& value) override;
  void on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) override;
  void on_violation(violation what) override { tell(std::move(what), 0); }
  void on_lifecycle(enum lifecycle_event::kind kind, pid_t pid, std::shared_ptr<const crash_report> report) override;

 private:
  void tell(violation what, std::uint64_t dropped);
  bool install(const std::function<void()>& take_in, const std::vector<std::shared_ptr<instance>>& fresh);
  std::string was_unloaded() const;
  class retrying_call;
  void heed_requests();
  std::shared_ptr<instance> make_instance();
  std::shared_ptr<instance> choose();
  void replace(std::shared_ptr<instance>& place, std::shared_ptr<instance> fresh);
  call_request make_request(std::string_view method, packed_arguments arguments, const call_options& options) const;
  void launch(call_request request, std::unique_ptr<reply_handler> handler, bool may_retry);

  const std::shared_ptr<host_core> core_;
  const std::string name_;
  const std::filesystem::path file_;
  std::shared_ptr<worker_settings> settings_;
  std::string sha256_;  // of the plugin's file
  mutable std::mutex mutex_;
  std::mutex spawning_;
  std::vector<std::shared_ptr<instance>> instances_;  // null: not started, or replaced after its death
  std::vector<std::shared_ptr<instance>> dying_;      // replaced before they had quite ended
  std::function<void(const std::string&, const msgpack::object&)> event_handler_;
  std::optional<plugin_info> info_;
  bool unloaded_ = false;
};

}  // namespace bulkhead
