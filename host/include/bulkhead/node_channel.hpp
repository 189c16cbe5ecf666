// Node's message channel between a parent and a child process, json serialization, from either end: what
// child_process.fork() and process.send() speak. A launcher makes one for a child (process_options::channel); a program
// that Node has forked takes its own from the environment:
//
//   auto channel = bulkhead::node_channel::from_environment(io.get_executor(), {.on_message = …});
//   channel->send({{"hello", "parent"}});
//
// Messages and handles keep their order: what is sent after a handle waits until the peer has acknowledged that.
#pragma once

#include <bulkhead/child_stream.hpp>
#include <bulkhead/export.hpp>
#include <bulkhead/passed_handle.hpp>

#include <boost/asio/strand.hpp>
#include <nlohmann/json.hpp>

#include <deque>
#include <map>
#include <optional>
#include <set>

namespace BULKHEAD_PUBLIC bulkhead {

// Who is told what a node_channel receives. Handlers run on its executor, one at a time, and must not block it: nothing
// more is read meanwhile. What they throw comes out of the executor's run(), and the channel goes on.
struct node_channel_options {
  // Called one at a time.
  std::function<void(const nlohmann::json& message, passed_handle handle)> on_message{};
  // Messages of Node's own kind ("cmd" begins with NODE_) that are none of the channel's, such as those of its cluster.
  std::function<void(const nlohmann::json& message, passed_handle handle)> on_internal{};
  // Once: the peer has closed; or it broke the protocol, as `violation` says.
  std::function<void(const std::string& violation)> on_disconnect{};
  // A message of send() was not written, or its handle not taken.
  std::function<void(boost::system::error_code)> on_unsent{};
  bool receive_handles = true;  // if not, the kernel drops what the peer attaches, and it is told so
  bool any_handle = false;      // files and memfds may be sent: the peer is not Node, which would abort
  std::size_t line_limit = std::size_t{16} << 20;  // bytes of a message from the peer
  // Takes descriptors that came and that nobody wants: their last close may block. Unset: they are closed.
  std::function<void(std::vector<unique_fd>)> discard{};
};

// Any thread may call. It lives, and keeps its executor busy, until disconnect() or until the peer closes it.
class node_channel : public std::enable_shared_from_this<node_channel> {
 public:
  // Bytes queued from which on send() says that it is too much; as in Node, which says so of a second message behind a
  // handle that is not acknowledged, too: here it counts by its bytes alone.
  static constexpr std::size_t high_water = std::size_t{128} << 10;

  // Over the end of a socket pair whose other end is the peer's. Reads from now on. Never blocks.
  static std::shared_ptr<node_channel> make(const boost::asio::any_io_executor& executor, unique_fd socket,
                                            node_channel_options options);
  // The same, but nothing is read before open(), once.
  static std::shared_ptr<node_channel> prepare(const boost::asio::any_io_executor& executor, unique_fd socket,
                                               node_channel_options options);
  // Begins to read what prepare() has left unread.
  void open();
  // For a child: reads NODE_CHANNEL_FD and NODE_CHANNEL_SERIALIZATION_MODE, and unsets both. Throws std::runtime_error
  // when there is none, or when its mode is not json.
  static std::shared_ptr<node_channel> from_environment(const boost::asio::any_io_executor& executor,
                                                        node_channel_options options);

  // Queues a message. False when so much is queued that the sender had better wait; it is sent all the same. Throws
  // std::invalid_argument for an object that Node would take for one of its own, for a discarded value, which is no JSON, and
  // for a handle that it can't take; boost::system::system_error (not_connected) after the end.
  bool send(const nlohmann::json& message, passed_handle handle = {});
  // As send(); void(boost::system::error_code) when it is written, and a handle acknowledged. Errors go to the token.
  template <class Token>
  auto async_send(const nlohmann::json& message, passed_handle handle, Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code)>(
        [this](auto handler, const nlohmann::json& what, passed_handle&& with) {
          start_send(what, std::move(with), false,
                     detail::erase<boost::system::error_code>(std::move(handler), executor_));
        },
        token, message, std::move(handle));
  }
  // Without the check for Node's own messages; for those who speak its cluster's.
  void send_internal(const nlohmann::json& message, passed_handle handle = {});
  // The same; `done` as async_send()'s token.
  void send_internal(const nlohmann::json& message, passed_handle handle,
                     detail::completion<boost::system::error_code> done);

  // Bytes queued.
  std::size_t unsent() const { return unsent_; }
  // Whether it is open still: neither side has closed it.
  bool connected() const { return !closed_; }
  // Closes it once what is queued is written.
  void disconnect();
  // Reads what is there, as a parent does for a child that has ended, then closes.
  void drain();

 private:
  using done_handler = detail::completion<boost::system::error_code>;
  struct outgoing {
    std::string line;
    passed_handle handle;
    done_handler done;
    unsigned attempts = 0;
    bool retransmits = false;
    bool ahead = false;  // not held by a handle that is not acknowledged, or two peers might wait for each other
    bool quiet = false;  // the channel's, or its user's of Node's own kind: nobody else is told what becomes of it
  };
  node_channel(const boost::asio::any_io_executor& executor, unique_fd socket, node_channel_options options);
  bool start_send(const nlohmann::json& message, passed_handle handle, bool internal, done_handler done);
  void read();
  bool read_some();
  bool take_one();
  void take_line(std::string_view line);
  void take_internal(nlohmann::json& message);
  void take_handle(nlohmann::json& envelope);
  void queue(outgoing item);
  void reply(const nlohmann::json& message);
  void write();
  bool write_some();
  void finish(outgoing& item, boost::system::error_code code);
  void acknowledged(bool taken);
  void lease(passed_handle& handle, const std::string& key);
  void lease_ended(const std::string& key);
  void fail_queued();
  void close(const std::string& violation);

  const boost::asio::any_io_executor executor_;
  const boost::asio::strand<boost::asio::any_io_executor> strand_;
  const node_channel_options options_;
  // All of the strand:
  boost::asio::posix::stream_descriptor socket_;
  std::string partial_;
  std::size_t taken_ = 0;        // bytes of that, which have been delivered
  std::optional<int> draining_;  // turns of reading that are left
  std::vector<char> bytes_;
  unique_fd pending_;                  // came, and its NODE_HANDLE is yet to come
  std::deque<outgoing> ready_, held_;  // held: behind a handle that waits for its acknowledgement
  std::size_t written_ = 0;            // bytes of the first in ready_
  std::optional<outgoing> unacknowledged_;
  std::map<std::string, unsigned> leases_;  // sockets of the peer's servers that are still in use here, by key
  std::set<std::string> closing_;           // of those, which the peer wants to know about
  bool writing_ = false, leaving_ = false, deaf_ = false;  // deaf: the peer takes no more

  std::atomic<std::size_t> unsent_{0};
  std::atomic<bool> closed_{false};
};

}  // namespace bulkhead
