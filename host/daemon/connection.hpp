// One client of the daemon: it speaks the host's side of docs/protocol.md, the daemon the worker's. All that comes from
// it is hostile input: the channel checks messages while they arrive, limits bound what it may have open, and a client
// that does not read loses its connection; nothing here ever waits for one.
#pragma once

#include "config/config.hpp"
#include "reactor.hpp"
#include <bulkhead/ipc/channel.hpp>

#include <functional>

namespace bulkhead::daemon {

struct peer {
  pid_t pid = -1;
  unsigned uid = ~0u;
  std::string text() const;  // "pid 4711 of user 1000"
};

class connection;

// What a connection needs of the daemon.
class service {
 public:
  virtual ~service() = default;
  // Begins a call; never blocks. `handler` is told the outcome once, on any thread. With `onward`, it may stream: what its
  // worker says is said there, and what the client says is for what this gives back (null: it does not stream).
  virtual std::shared_ptr<ipc::stream> call(const connection& from, std::string_view method, packed_arguments arguments,
                                            call_options options, std::unique_ptr<reply_handler> handler,
                                            std::shared_ptr<ipc::stream::link> onward) = 0;
  // Packs a description as in $/ready: the methods of all plugins.
  virtual void describe(ipc::packer& into) = 0;
  virtual void discard(std::vector<unique_fd> handles) = 0;
  // The connection is over; `violation` says what the client did wrong, if anything.
  virtual void gone(connection& which, const std::string& violation) = 0;
};

class connection final : public reactor::target,
                         ipc::channel::receiver,
                         ipc::channel::wakeups,
                         public std::enable_shared_from_this<connection> {
 public:
  // `trusted`: may pass descriptors, and control the daemon.
  connection(std::shared_ptr<reactor> loop, unique_fd socket, peer who, bool trusted, const client_limits& limits,
             service& to);
  ~connection() override;
  void open();
  // Any thread; on_closed follows on the reactor's.
  void close(const std::string& why);
  const peer& who() const { return who_; }
  bool trusted() const { return trusted_; }
  std::size_t unsent() { return channel_.unsent(); }

  // reactor::target
  void on_ready(int tag, std::uint32_t events) override;
  void on_timer() override;

 private:
  struct open_call {
    std::stop_source stop;
    std::size_t bytes = 0;  // of its arguments, and of the window of its results
    std::uint64_t number = 0;
    std::shared_ptr<ipc::stream> stream{};  // null: it does not stream
  };
  class answering;

  // ipc::channel::receiver
  void on_request(const ipc::message& request, std::vector<unique_fd> handles) override;
  void on_notification(const ipc::message& notification, std::vector<unique_fd> handles) override;
  void on_closed(const std::string& violation) override;
  void discard(std::vector<unique_fd> handles) override { service_.discard(std::move(handles)); }
  // ipc::channel::wakeups
  void arm(bool reading, bool writing) override;
  void schedule(ipc::time_point when) override { loop_->schedule(when, weak_from_this()); }

  void on_hello(const ipc::message& request);
  void on_reserved(const ipc::message& request);
  void on_call(const ipc::message& request, std::vector<unique_fd> handles);
  void on_stream(const ipc::message& notification);
  void say_of_stream(std::uint32_t id, std::uint64_t number, std::vector<std::uint8_t> frame);
  void answer(std::uint32_t id, const reply& result);
  void progress(std::uint32_t id, std::uint64_t number, const msgpack::object& value);
  void refuse(std::uint32_t id, outcome code, std::string why);
  void send(ipc::buffer frame, std::vector<unique_fd> handles = {});

  const std::shared_ptr<reactor> loop_;
  const int socket_;
  const peer who_;
  const bool trusted_;
  const client_limits limits_;
  service& service_;
  ipc::channel channel_;
  const std::uint64_t watch_;
  const ipc::time_point hello_due_;

  std::mutex mutex_;
  bool greeted_ = false;
  std::map<std::uint32_t, open_call> open_;
  std::size_t open_bytes_ = 0;
  std::pair<std::uint32_t, std::chrono::milliseconds> next_deadline_{};  // of the request that comes next; 0: none
  std::pair<std::uint32_t, call_key> next_key_{};                        // likewise
  std::pair<std::uint32_t, std::size_t> next_window_{};                  // likewise; 0: it does not stream
  std::uint64_t last_number_ = 0;                                        // of all calls; ids come again
  std::chrono::milliseconds default_deadline_{0};                        // 0: the plugin's
  std::vector<std::uint32_t> drains_;  // $/drain requests to answer when all calls are done
  std::int64_t credit_ = 0;            // of progress
  std::string closed_for_;
};

}  // namespace bulkhead::daemon
