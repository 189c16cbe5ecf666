// What a launcher's children share: the servers that start them, and where their events run.
#pragma once

#include "closer.hpp"
#include "process/child_core.hpp"
#include "sandbox/cgroup.hpp"
#include <bulkhead/process.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include <thread>

namespace bulkhead {

class BULKHEAD_PRIVATE launcher_core : public std::enable_shared_from_this<launcher_core> {
 public:
  launcher_core(launcher_options options, std::optional<boost::asio::any_io_executor> executor);
  ~launcher_core() { shutdown(); }

  child spawn(const std::string& file, const std::vector<std::string>& arguments, const process_options& options,
              const boost::asio::any_io_executor& executor, std::shared_ptr<void> context);
  child spawn(const std::string& file, const std::vector<std::string>& arguments, const process_options& options);
  static std::shared_ptr<child_core> core_of(const child& made) { return made.core_; }
  void start_spawn(std::string file, std::vector<std::string> arguments, process_options options,
                   detail::completion<boost::system::error_code, child> done);
  void shutdown();
  boost::asio::any_io_executor executor();

  const std::shared_ptr<process::server_client> servers;

 private:
  void run(boost::asio::io_context& io);
  std::unique_ptr<sandbox::cgroup> make_cgroup(const policy::values& granted, bool detached, std::string& layers);

  const launcher_options options_;
  const std::optional<boost::asio::any_io_executor> external_;
  sandbox::cgroup_maker cgroups_;
  std::mutex mutex_;
  std::shared_ptr<boost::asio::io_context> io_;  // with a thread, from when it is first needed
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_;
  std::thread thread_;
  std::optional<boost::asio::thread_pool> spawning_;  // one thread, which may block
  std::vector<std::weak_ptr<child_core>> children_;
  const std::shared_ptr<bulkhead::closer> closer_ = std::make_shared<bulkhead::closer>();
  std::size_t sweep_at_ = 64;
  bool stopped_ = false;
};

}  // namespace bulkhead
