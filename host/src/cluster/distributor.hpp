// Gives connections to the workers of a cluster and takes them back from those that leave or die, on a thread of its own.
//
// A connection is at a worker (then the host holds a duplicate, and the worker's table says what it is at) or waits for
// one. The worker sends nothing when a connection ends: it shuts it down, and that is what the duplicate is watched for.
// So a connection costs the host its acceptance and its end, and a request costs it nothing.
//
// Locks: what a pool tells comes under the pool's lock and is put into a queue; what a pool is told, or what may lead
// there, is put off until the thread holds no lock of its own (`later_`).
#pragma once

#include "cluster/seat.hpp"
#include "worker_set.hpp"
#include <bulkhead/cluster.hpp>

#include <condition_variable>
#include <deque>
#include <thread>
#include <unordered_map>

namespace bulkhead {

class BULKHEAD_PRIVATE distributor final : public worker_watcher, public std::enable_shared_from_this<distributor> {
 public:
  distributor(std::shared_ptr<host_core> core, unique_fd listener, cluster_options options, std::string name);
  ~distributor() override;
  void start();
  // No new connections: what waits in the backlog is taken in, then the socket is closed. Waits for that.
  void close();
  // Ends the thread, and connections that found no worker.
  void join();
  cluster_stats stats() const;

  // worker_watcher
  void on_admitted(const std::shared_ptr<worker_process>& process, std::function<void()> done) override;
  void on_draining(const std::shared_ptr<worker_process>& process) override;
  void on_ended(const std::shared_ptr<worker_process>& process) override;
  void on_published() noexcept override;
  void await_serving(const std::vector<std::shared_ptr<worker_process>>& processes) override;

 private:
  struct connection {
    unique_fd fd;
    seat* at = nullptr;  // null: it waits
    std::uint32_t slot = 0;
  };
  class call_end;

  void post(std::function<void()> what);
  void run();
  void turn(std::uint64_t key);
  void tick();
  void soon();
  // Workers; in distributor.cpp.
  void admit(const std::shared_ptr<worker_process>& process, std::function<void()> done);
  void drain(seat& from);
  void tell_news(seat& to);
  void finished(std::uint64_t id, const reply& result);
  void remove(const std::shared_ptr<worker_process>& process);
  void on_doorbell(seat& at);
  void rearm_doorbells();
  void check_alive(seat& at, ipc::time_point now);
  void failed(const std::shared_ptr<worker_process>& process, std::string why);
  seat* find(const std::shared_ptr<worker_process>& process);
  // Connections; in connections.cpp.
  void accept();
  void watch_listener();
  seat* next_free(const seat* except);
  void pass(std::uint64_t id, connection& which, const seat* except = nullptr);
  bool give(seat& to, std::uint64_t id, connection& which);
  void pass_waiting();
  void take_back(seat& from);
  void abandon(seat& dead);
  void hung_up(std::uint64_t id);
  void drop(std::uint64_t id);

  const std::shared_ptr<host_core> core_;
  const cluster_options options_;
  const std::string name_;
  const unique_fd epoll_, wake_;
  std::thread thread_;

  std::mutex queue_mutex_;
  std::vector<std::function<void()>> queue_;
  std::atomic<bool> news_{false};  // workers are to be told that something was published

  mutable std::mutex mutex_;  // of all that follows
  std::condition_variable changed_;
  unique_fd listener_;
  std::map<std::uint64_t, std::unique_ptr<seat>> seats_;
  std::map<const worker_process*, std::string> failures_;  // why they do not serve, while somebody waits for them
  std::string last_failure_ = "a worker ended before it served";
  unsigned awaited_ = 0;
  std::unordered_map<std::uint64_t, connection> connections_;
  std::deque<std::uint64_t> waiting_;
  std::vector<std::uint64_t> resting_;  // seats whose doorbells are not watched for a moment
  std::vector<std::function<void()>> later_;
  std::uint64_t last_id_ = 0, last_given_ = 0;
  cluster_stats past_;  // of workers that have ended, and of the cluster as a whole
  ipc::time_point next_tick_{}, accept_again_{}, rested_at_{};
  bool listening_ = false, closing_ = false, joined_ = false;
};

}  // namespace bulkhead
