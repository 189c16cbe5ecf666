// A worker's place in a cluster, as the host sees it: the socket to it, the memory in which it says what its connections
// are at, and which connection has which slot there. See bulkhead/serve.h.
//
// The memory is the worker's to write at any time: each word is read once, and a word that makes no sense is one of a
// connection in mid-request.
#pragma once

#include "worker_process.hpp"
#include <bulkhead/serve.h>

#include <functional>
#include <map>

namespace bulkhead {

struct seat {
  struct slot {
    std::uint64_t connection = 0;  // 0: none
    std::uint32_t generation = 0;
  };

  // Throws std::system_error.
  seat(std::uint64_t number, std::shared_ptr<worker_process> worker, std::uint32_t slots);
  ~seat();
  seat(const seat&) = delete;

  // Of the one call; afterwards the worker's ends are the worker's alone.
  packed_arguments serve_arguments(std::map<std::string, std::string> settings);
  // False when it is not taken at present.
  bool send(bulkhead_serve_message_t message, int descriptor = -1);
  // A slot for a connection that is about to be sent; none when all are taken.
  std::optional<std::uint32_t> take_slot(std::uint64_t connection);
  // Its connection is the worker's no more; `free` at once if the worker is done with it, else once it is.
  void release(std::uint32_t index, bool worker_is_done);
  void sweep();
  // BULKHEAD_SERVE_…; BUSY for what makes no sense.
  std::uint32_t state_of(std::uint32_t index) const;
  // Of a worker that accepts for itself.
  std::pair<std::size_t, std::size_t> own_connections() const;  // open, busy among them
  std::uint64_t requests() const { return load(table->requests); }
  std::uint64_t accepted() const { return load(table->accepted); }
  std::uint32_t pong() const { return load(table->pong); }
  bool says_serving() const { return load(table->serving) == 1; }

  bool has_room() const { return open + zombies_.size() < slots.size(); }

  const std::uint64_t id;
  const std::shared_ptr<worker_process> process;
  const pid_t pid;
  std::function<void()> done;  // gives the worker back to its pool, once
  const ipc::time_point since = ipc::clock::now();
  std::vector<slot> slots;
  std::size_t open = 0;  // slots with a connection
  bool serving = false;  // and not leaving
  bool leaving = false, told_to_leave = false;
  bool answered = false;  // the call
  std::string failure;    // why it does not serve
  bool full = false;      // its socket is, for now
  bool news = false;      // something was published that it has not been told of
  std::uint32_t ping = 0;
  bool ping_unsent = false;  // its socket was full
  ipc::time_point pinged{};  // when the ping was due
  unique_fd control, doorbell;

 private:
  template <class T>
  static T load(T& word) {
    return std::atomic_ref(word).load(std::memory_order_acquire);
  }
  std::uint64_t* words() const { return reinterpret_cast<std::uint64_t*>(table + 1); }

  unique_fd control_there_, memory_;
  std::size_t size_ = 0;
  bulkhead_serve_table_t* table = nullptr;
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> zombies_;  // without a connection here, and the worker has not said DONE yet
};

}  // namespace bulkhead
