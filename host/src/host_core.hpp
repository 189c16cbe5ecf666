// What all plugins of a host share: the fork server, the reactor with its thread, the executor for handlers.
#pragma once

#include "blobs/published_state.hpp"
#include "closer.hpp"
#include "fork_server/client.hpp"
#include "reactor.hpp"
#include "report/crash_writer.hpp"
#include "sandbox/cgroup.hpp"
#include "sandbox/manifest_requests.hpp"
#include "sandbox/plugin_file.hpp"
#include "serial_queue.hpp"
#include "supervision/spawner.hpp"
#include <bulkhead/host.hpp>

#include <boost/asio/io_context.hpp>

#include <array>
#include <optional>
#include <set>
#include <thread>

namespace bulkhead {

class BULKHEAD_PRIVATE host_core : public reactor::target, public std::enable_shared_from_this<host_core> {
 public:
  host_core(host_options options, std::optional<boost::asio::any_io_executor> executor);
  static std::shared_ptr<host_core> make(host_options options, std::optional<boost::asio::any_io_executor> executor);
  ~host_core() override;

  // Where the embedder's code runs: never on the reactor's thread, unless the embedder gave its own executor; and never
  // within execute(), so no post() is needed.
  boost::asio::any_io_executor handlers();
  void shutdown();
  void add(const std::shared_ptr<plugin_pool>& pool);
  std::vector<std::shared_ptr<plugin_pool>> plugins();
  // Whether a thread that waits must do the reactor's work, since perhaps nobody runs the embedder's executor.
  bool needs_help() const { return external_.has_value(); }

  // Runs a callback of the application's; what it throws is logged, under the plugin's name if there is one.
  template <class F>
  void run(const std::string& plugin, F callback) noexcept {
    try {
      callback();
    } catch (...) {
      log_exception(plugin);
    }
  }

  // Posts to the application's callbacks, in order.
  void log(log_record record);
  void lifecycle(lifecycle_event event);
  void violation(bulkhead::violation what);

  // reactor::target: a fork server has ended.
  void on_ready(int network, std::uint32_t events) override;
  void on_timer() override;  // no thread was to be had for handlers: another try

  const host_options options;
  // Of the host and its workers together, if a cgroup limits it; as it was when the host was made.
  const std::optional<double> cpu_quota;
  fork_server::client forks;
  sandbox::plugin_files files;
  sandbox::manifest_requests requests;
  sandbox::cgroup_maker cgroups;
  supervision::spawner spawner;
  bulkhead::closer closer;
  published_state published;
  crash_writer crashes;

 private:
  void watch_fork_servers();
  // The same, but for shutdown(), after which none of the host's own callbacks may come.
  boost::asio::any_io_executor callback_executor();
  void start_handlers();  // (locked)
  void run_handlers();
  template <class F>
  void tell(F callback);
  void log_exception(const std::string& plugin) noexcept;  // the one being handled

  const std::optional<boost::asio::any_io_executor> external_;  // as handlers() gives it
  std::optional<boost::asio::io_context> io_;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_;

 public:
  std::shared_ptr<bulkhead::reactor> reactor;  // after io_, which it runs on

 private:
  std::thread io_thread_;
  std::mutex mutex_;
  boost::asio::io_context handler_io_;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> handler_work_;
  std::vector<std::thread> handler_threads_;
  std::atomic<bool> handlers_started_{false};  // all of them
  std::atomic<bool> handlers_ended_{false};    // by shutdown(); io_context::stopped() takes a lock
  serial_queue callbacks_{[this] { return callback_executor(); }};
  std::vector<std::weak_ptr<plugin_pool>> plugins_;
  std::array<std::uint64_t, 2> fork_server_watches_{};  // the second: with a network
  std::atomic<unsigned> queued_logs_{0}, queued_violations_{0};
  std::atomic<std::uint64_t> lost_logs_{0};
  bool stopped_ = false;
};

}  // namespace bulkhead
