// A cluster: workers of one plugin that serve one listening socket between them, as many as there are processors.
//
//   bulkhead::host host;
//   bulkhead::cluster site(host, "http.so", {.port = 8080, .settings = {{"root", "/srv/www"}}});
//   ...
//   site.stop();
//
// The socket is the host's and stays open whatever becomes of the workers, so nobody is refused while some are replaced:
// after a crash, by plugin::recycle(), by plugin::reload(). What a worker's death costs depends on the schedule; see
// docs/cluster.md. All functions are thread-safe.
#pragma once

#include <bulkhead/host.hpp>

#include <map>
#include <mutex>

namespace BULKHEAD_PUBLIC bulkhead {

// Who accepts connections.
enum class schedule {
  // The host accepts, keeps a duplicate of each connection, and passes it to the next free worker: the one with the
  // fewest, in turn. Whatever ends a worker, connections on which no request is in progress go on in another worker.
  round_robin,
  // Each worker accepts for itself. The plugin gets the listening socket itself, and a worker that dies takes all its
  // connections along; those that are replaced in good order finish theirs.
  shared,
};

// What a cluster serves, and with what. All of it is optional.
struct cluster_options {
  unsigned workers = 0;                            // 0: one for each processor that the host may run on
  enum schedule schedule = schedule::round_robin;  // who accepts
  std::string address = "127.0.0.1";               // numeric, IPv4 or IPv6; "::" is all of both
  std::uint16_t port = 0;                          // 0: any that is free, see cluster::port()
  // A listening socket to serve instead, of any stream family. Borrowed: it is duplicated, and made not to block.
  int listener = -1;
  // That one worker has at once, at most; more wait in the socket's backlog.
  unsigned connections = 1000;
  // For the plugin.
  std::map<std::string, std::string> settings{};
  // How it is loaded. `instances` is `workers` above. Its policy gets what serving takes: descriptors, and with `shared`
  // accepting on the socket that is passed. supervision.drain.calls is how long a worker that is replaced may take to
  // finish its connections; supervision.heartbeat asks the thread that serves them.
  load_options load{};
};

// What a cluster has done, as it was when it was asked. What workers say of themselves is counted as they say it.
struct cluster_stats {
  // One of its workers.
  struct worker {
    pid_t pid = -1;              // as the host sees it
    bool serving = false;        // takes new connections
    std::size_t open = 0;        // connections
    std::size_t busy = 0;        // of them, with a request in progress
    std::uint64_t requests = 0;  // answered
  };
  std::vector<worker> workers;    // those that there are now
  std::size_t waiting = 0;        // accepted, and no worker is free yet
  std::uint64_t accepted = 0;     // connections
  std::uint64_t requests = 0;     // answered, as far as workers that have ended had said
  std::uint64_t handed_over = 0;  // connections that went on in another worker
  std::uint64_t lost = 0;         // connections on which a request was in progress when their worker died
  std::uint64_t lost_idle = 0;    // schedule::shared: the others that a dead worker had
};

// See the top of bulkhead/cluster.hpp. Any thread may use it.
class cluster {
 public:
  // Binds, loads the plugin, and waits until every worker serves. Throws std::system_error when it can't listen, call_error
  // as host::load() does, and when a worker can't serve (the plugin's own text says why). std::invalid_argument: options
  // that can't be.
  cluster(host& on, const std::filesystem::path& plugin, cluster_options options = {});
  // As stop().
  ~cluster();
  cluster(const cluster&) = delete;
  cluster& operator=(const cluster&) = delete;

  std::uint16_t port() const;  // 0: not a TCP socket
  // The plugin itself: its status and workers; recycle(), reload() and reset() it as any other, no connection is lost by
  // it. Calls to it wait behind the serving unless it is thread-safe.
  plugin loaded() const;
  // Costs microseconds per worker.
  cluster_stats stats() const;
  // Takes in what waits in the backlog, closes the socket, lets requests in progress finish for supervision.drain.calls, and
  // ends the workers. Blocks. Idempotent.
  void stop();

 private:
  std::mutex stopping_;
  std::uint16_t port_ = 0;
  std::shared_ptr<class distributor> distributor_;
  plugin plugin_;
};

}  // namespace bulkhead
