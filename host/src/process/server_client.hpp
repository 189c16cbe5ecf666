// The host's side of the process servers: starts them when they are first needed, asks them for children, starts another
// when one has died.
#pragma once

#include "fork_server/server_process.hpp"
#include "process/protocol.hpp"
#include <bulkhead/policy.hpp>

#include <array>
#include <map>
#include <mutex>
#include <optional>

namespace bulkhead::process {

struct spawn_request {
  std::uint32_t flags = 0;
  unsigned user = 0, group = 0;
  std::string file, directory;
  std::vector<std::string> arguments, environment;  // argv, envp
  std::vector<int> cgroups;                         // files by which it joins them
  std::vector<int> streams;                         // the child's 0, 1, 2, …
  std::optional<bulkhead::policy> policy;           // with the flag `sandboxed`
  int reports = -1;                                 // with a policy: a pipe where denials are written
  int end = -1;                                     // a pipe for how it ends
};

struct spawned_child {
  unique_fd pidfd;
  pid_t pid = -1;
  std::string layers;      // of its sandbox, as sandbox::from_lines() reads them
  bool uncounted = false;  // there is none: see `cgroup_settled`
};

class server_client {
 public:
  server_client(const std::filesystem::path& configured, unsigned user);
  ~server_client() { stop(); }

  // Waits until the program is executed. Throws boost::system::system_error naming the step that failed and its object;
  // std::runtime_error when the sandbox can't be had. Nothing is left of a child that failed. Any thread.
  spawned_child spawn(const spawn_request& wanted);
  // The child with this pidfd has ended.
  void forget(int pidfd);
  // The server of the child with this pidfd has died: starts another at once, unless that has been done, which ends the child
  // with the application. Returns a pidfd of that one, of whose death the child learns by nothing else; none if it could not
  // be started, or too many have died since a spawn: then it is the next spawn that does.
  unique_fd replace_server_of(int pidfd) noexcept;
  // Kills and forgets a child whose pidfd may be closed already.
  void disown(int pidfd, pid_t pid);
  // Kills all children that are not detached.
  void stop();
  pid_t pid() const;

  const std::filesystem::path& program() const { return program_; }

 private:
  struct known {
    pid_t pid;
    std::uint32_t flags;
    bool adopted = false;  // the server is not the one that has started it
  };
  struct server {
    fork_server::server_process process{};
    std::map<int, known> living{};  // by pidfd
    unsigned successors = 0;        // of one that had died, since it was last asked for a child
  };
  void start(std::size_t which);
  void bury(server& dead);
  void kill(server& with, pid_t pid);
  bool exchange(server& with, const request& head, const std::string& strings, const std::vector<int>& fds, answer& out,
                std::string& text, unique_fd& pidfd);

  const std::filesystem::path program_;
  const unsigned user_;
  mutable std::mutex mutex_;
  std::array<server, 6> servers_;  // by process_server_kind; the same for detached children
  bool stopped_ = false;
};

}  // namespace bulkhead::process
