// The host's side of the fork server: starts the process, asks it for workers, starts it again when it has died.
#pragma once

#include "fork_server/protocol.hpp"

#include <bulkhead/ipc/system.hpp>

#include <chrono>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace bulkhead::fork_server {

struct spawned {
  unique_fd pidfd;
  pid_t pid = -1;
  bool pid_namespace = false;
};

class client {
 public:
  // Throws std::runtime_error when the program is missing or can't be run.
  explicit client(const std::filesystem::path& configured);
  ~client();

  // `fds` in the order that request_kind states; `arguments` is empty for a plugin. Blocks for about a millisecond.
  // Throws std::system_error or std::runtime_error. Any thread.
  spawned spawn(const std::vector<int>& fds, const std::vector<std::string>& arguments,
                const std::vector<std::string>& environment, std::uint64_t memory_limit);
  // The worker with this pidfd is gone: a fork server started later need not know of it.
  void forget(int pidfd);

  void stop();
  pid_t pid() const;

 private:
  void start();
  void adopt_all();
  bool exchange(const request& head, const std::string& strings, const std::vector<int>& fds, answer& out,
                unique_fd& pidfd);

  const std::filesystem::path program_;
  mutable std::mutex mutex_;
  unique_fd control_;
  pid_t pid_ = -1;
  std::map<int, int> living_;                                        // pidfds of workers
  std::deque<std::chrono::steady_clock::time_point> deaths_;
  bool stopped_ = false;
};

// Where the bulkhead-worker program is. Throws std::runtime_error naming the places searched.
std::filesystem::path find_worker_program(const std::filesystem::path& configured);

}  // namespace bulkhead::fork_server
