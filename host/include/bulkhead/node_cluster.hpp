// A primary for Node's own cluster: scripts that use Node's `cluster`, `http` and `net` as ever are its workers, and find
// `cluster.isWorker` true. It starts and replaces them, and what they listen on is this process's.
//
//   bulkhead::launcher launch;
//   bulkhead::node_cluster site(launch, "server.js", {.on_listening = …});
//   ...
//   site.reload();  // new workers first, then the old ones leave
//   site.stop();
//
// Sockets stay open while workers are replaced, and for `patience` after all have closed them: nobody is refused. What a
// worker had accepted is lost when it crashes; a connection that it was just being passed goes to another.
#pragma once

#include <bulkhead/cluster.hpp>
#include <bulkhead/process.hpp>

namespace BULKHEAD_PUBLIC bulkhead {

// What a node_cluster runs, and with what. All of it is optional.
struct node_cluster_options {
  unsigned workers = 0;  // 0: one for each processor that the application may run on
  // Not for datagram sockets, which are always shared. round_robin: accepted here and passed to the next worker that has
  // taken its last one. shared: workers accept for themselves.
  enum schedule schedule = schedule::round_robin;
  std::vector<std::string> arguments{};  // of the script
  process_options process{};             // how each worker is started; its events are not used
  // How often those are replaced that have ended unasked, or leave within a minute after they came.
  restart_intensity intensity{};
  // How long a worker may take to finish what it serves, once it was told to leave. Then it is killed.
  std::chrono::nanoseconds patience = std::chrono::seconds(5);
  // Whether workers may have a socket here bound there; `address` as they name it, "" for all, or with port 0 an absolute
  // path without . and .. in it. Unset: yes for any, but no for workers under a policy, and no path for those with a uid or gid.
  std::function<bool(const std::string& address, std::uint16_t port)> may_listen{};
  // A worker listens; if on a path, `port` is 0. This, those below and may_listen (which refuses when it throws) are called
  // as child_events are: see there. Workers are numbered from 1, and no number comes twice.
  std::function<void(unsigned worker, const std::string& address, std::uint16_t port)> on_listening{};
  // A worker has sent a message, perhaps with a handle.
  std::function<void(unsigned worker, const nlohmann::json& message, passed_handle handle)> on_message{};
  std::function<void(unsigned worker, const exit_status& status)> on_exit{};  // a worker has ended
  // No more workers are started: they have ended too often or can't be. With the last of them the sockets are closed.
  std::function<void(const std::string& why)> on_gave_up{};
};

// What a node_cluster has done, as it was when it was asked.
struct node_cluster_stats {
  // One of its workers.
  struct worker {
    unsigned number = 0;     // as in the handlers
    pid_t pid = -1;          // as the application sees it
    bool listening = false;  // on anything
    bool leaving = false;    // it was told to
  };
  std::vector<worker> workers;      // those that there are now
  std::uint64_t passed = 0;         // connections that workers have taken
  std::uint64_t redistributed = 0;  // and such that the first did not take
  unsigned restarts = 0;            // as node_cluster_options::intensity counts them
  bool gave_up = false;             // see on_gave_up
};

// Thread-safe. The launcher must outlive it.
class node_cluster {
 public:
  // Starts the workers, and waits for none. Throws as launcher::fork(). std::invalid_argument: options that can't be.
  node_cluster(launcher& with, const std::string& script, node_cluster_options options = {});
  // As stop().
  ~node_cluster();
  node_cluster(const node_cluster&) = delete;
  node_cluster& operator=(const node_cluster&) = delete;

  // To one worker; false when it is not there, or has too much to read. Throws std::invalid_argument as child::send().
  bool send(unsigned worker, const nlohmann::json& message, passed_handle handle = {});
  // Starts a new worker for each there is, which leaves once its successor listens. Throws as launcher::fork().
  void reload();
  // Tells all to leave, waits for their end (for `patience`, then kills whom it may), closes the sockets. Idempotent.
  void stop();
  // How it is, and what it has done. Does not block for long: it takes a lock.
  node_cluster_stats stats() const;

 private:
  class core;
  std::shared_ptr<core> core_;
};

}  // namespace bulkhead
