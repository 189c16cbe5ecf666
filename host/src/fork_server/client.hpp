// The host's side of the fork server: starts the process, asks it for workers, starts it again when it has died.
#pragma once

#include "fork_server/protocol.hpp"
#include "supervision/restart_window.hpp"
#include <bulkhead/ipc/system.hpp>
#include <bulkhead/policy.hpp>

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace bulkhead::fork_server {

struct spawned {
  unique_fd pidfd;
  pid_t pid = -1;
  std::string layers;  // of its sandbox, as sandbox::from_lines() reads them
};

// The end of a fork server that nobody had asked for. Its workers live on.
struct death {
  pid_t pid = -1;
  std::string how;        // "was killed by SIGKILL"
  std::string gave_up{};  // empty: another has been started; else why none will be
};

class client {
 public:
  // Both are called under a lock, and must not call back. `started`: what to watch for the end of a fork server, which
  // calls for revive(); the descriptor is good until `ended` says so. `ended`: null when the host has ended it.
  struct observer {
    std::function<void(bool network, int pidfd)> started;
    std::function<void(bool network, int pidfd, const death*)> ended;
  };

  // `user`: whom workers run as when the host is root. Throws std::runtime_error when the program is missing or can't be
  // run.
  client(const std::filesystem::path& configured, unsigned user);
  ~client();

  // `fds` in the order that request_kind states; `arguments` is empty for a plugin. Blocks for about a millisecond.
  // Throws std::system_error or std::runtime_error, which says so when the policy's sandbox can't be had. Any thread.
  spawned spawn(const std::vector<int>& fds, const std::vector<std::string>& arguments,
                std::vector<std::string> environment, const policy& rules);
  // Tells of all that run and that will.
  void observe(observer to);
  // Starts the fork server again if it has died; after its third death within a minute none is started until reset().
  // Blocks for about a millisecond, or as long as a spawn takes.
  void revive(bool network);
  // Forgets all deaths.
  void reset();
  // The layers that a worker with this policy would have, as sandbox::from_lines() reads them.
  std::string examine(const policy& rules);
  // The worker with this pidfd is gone: a fork server started later need not know of it. Does not block.
  void forget(int pidfd);

  void stop();
  pid_t pid() const;
  // Of the fork server and its workers.
  const std::filesystem::path& program() const { return program_; }

 private:
  // There are two at most: most workers come from one without a network, those that were granted some from another.
  struct server {
    const bool network;
    unique_fd control{}, pidfd{};
    pid_t pid = -1;
    std::map<int, int> living{};  // pidfds of workers; under living_mutex_
    supervision::restart_window restarts{supervision::fork_server_intensity};
    std::string gave_up{};
  };
  server& server_for(const policy& rules);
  void launch(server& which);
  void start(server& which);
  void bury(server& which);
  void adopt_all(server& which);
  static bool exchange(server& which, const request& head, const std::string& strings, const std::vector<int>& fds,
                       answer& out, std::string& text, unique_fd& pidfd);

  const std::filesystem::path program_;
  const unsigned user_;
  mutable std::mutex mutex_;
  std::mutex living_mutex_;  // its own, for it is never held while a fork server is waited for: nor is forget() then
  server isolated_{false}, networked_{true};
  observer observer_;
  bool stopped_ = false;
};

}  // namespace bulkhead::fork_server
