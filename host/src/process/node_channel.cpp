// See node_channel.hpp. Everything happens on a strand. What the peer sends is hostile: a line is bounded, its nesting too,
// and of descriptors one is kept until its NODE_HANDLE comes, whatever else is attached is closed.
#include "process/node_wire.hpp"
#include <bulkhead/ipc/attachment.hpp>
#include <bulkhead/node_channel.hpp>

#include <cstdlib>

#include <fcntl.h>
#include <sys/socket.h>

namespace bulkhead {
namespace {

constexpr std::size_t read_size = std::size_t{64} << 10;
constexpr unsigned retransmits_limit = 3;
constexpr int steps_of_a_turn = 64;  // messages delivered, or reads, before others on the thread have theirs
constexpr int turns_of_a_drain = 1024;
const nlohmann::json ack = {{"cmd", "NODE_HANDLE_ACK"}}, nack = {{"cmd", "NODE_HANDLE_NACK"}};

}  // namespace

node_channel::node_channel(const boost::asio::any_io_executor& executor, unique_fd socket, node_channel_options options)
    : executor_(executor), strand_(executor), options_(std::move(options)), socket_(strand_, socket.get()) {
  socket.release();
  ::fcntl(socket_.native_handle(), F_SETFD, FD_CLOEXEC);
  socket_.native_non_blocking(true);
  bytes_.resize(read_size);
}

std::shared_ptr<node_channel> node_channel::make(const boost::asio::any_io_executor& executor, unique_fd socket,
                                                 node_channel_options options) {
  auto made = prepare(executor, std::move(socket), std::move(options));
  made->open();
  return made;
}

std::shared_ptr<node_channel> node_channel::prepare(const boost::asio::any_io_executor& executor, unique_fd socket,
                                                    node_channel_options options) {
  return std::shared_ptr<node_channel>(new node_channel(executor, std::move(socket), std::move(options)));
}

void node_channel::open() {
  boost::asio::post(strand_, [self = shared_from_this()] { self->read(); });
}

std::shared_ptr<node_channel> node_channel::from_environment(const boost::asio::any_io_executor& executor,
                                                             node_channel_options options) {
  const char* number = std::getenv("NODE_CHANNEL_FD");
  if (!number) throw std::runtime_error("NODE_CHANNEL_FD is not set: this program has to be started by Node's fork()");
  const char* mode = std::getenv("NODE_CHANNEL_SERIALIZATION_MODE");
  if (mode && std::string_view(mode) != "json")
    throw std::runtime_error("the channel's serialization is '" + std::string(mode) +
                             "', only 'json' is supported: fork() with {serialization: 'json'}");
  char* end = nullptr;
  const long fd = std::strtol(number, &end, 10);
  int type = 0;
  socklen_t size = sizeof type;
  if (end == number || *end || fd < 0 || ::getsockopt(static_cast<int>(fd), SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      type != SOCK_STREAM)
    throw std::runtime_error("NODE_CHANNEL_FD is '" + std::string(number) + "', which is no channel");
  ::unsetenv("NODE_CHANNEL_FD");
  ::unsetenv("NODE_CHANNEL_SERIALIZATION_MODE");
  return make(executor, unique_fd(static_cast<int>(fd)), std::move(options));
}

// --- sending ------------------------------------------------------------------------------------------------------------

bool node_channel::send(const nlohmann::json& message, passed_handle handle) {
  return start_send(message, std::move(handle), false, nullptr);
}

void node_channel::send_internal(const nlohmann::json& message, passed_handle handle) {
  start_send(message, std::move(handle), true, nullptr);
}

void node_channel::send_internal(const nlohmann::json& message, passed_handle handle, done_handler done) {
  start_send(message, std::move(handle), true, std::move(done));
}

bool node_channel::start_send(const nlohmann::json& message, passed_handle handle, bool internal, done_handler done) {
  const auto refuse = [&](boost::system::error_code code, const char* why) {
    if (done) done->complete(code);
    else if (code == boost::asio::error::invalid_argument) throw std::invalid_argument(why);
    else throw boost::system::system_error(code, why);
    return false;
  };
  if (!internal && node::is_internal(message))
    return refuse(boost::asio::error::invalid_argument,
                  "a message whose 'cmd' begins with NODE_ is Node's own: name it otherwise");
  if (closed_) return refuse(boost::asio::error::not_connected, "the channel is closed");
  outgoing item{.line = {}, .handle = std::move(handle), .done = {}};
  try {
    if (!item.handle) {
      item.line = node::to_line(message);
    } else {
      nlohmann::json wrapped = node::envelope(message, item.handle, options_.any_handle);
      if (internal) wrapped["type"] = item.handle.kind() == handle_kind::udp_socket ? "dgram.Native" : "net.Native";
      item.retransmits = wrapped["type"] == "net.Socket";
      item.line = node::to_line(wrapped);
    }
  } catch (const std::invalid_argument& e) {
    return refuse(boost::asio::error::invalid_argument, e.what());
  }
  item.done = std::move(done);
  item.quiet = internal;
  const bool room = (unsent_ += item.line.size()) < high_water;
  boost::asio::post(strand_, [self = shared_from_this(), queued = std::make_shared<outgoing>(std::move(item))] {
    self->queue(std::move(*queued));
  });
  return room;
}

void node_channel::reply(const nlohmann::json& message) {
  outgoing item;
  item.line = node::to_line(message);
  item.ahead = item.quiet = true;
  unsent_ += item.line.size();
  queue(std::move(item));
}

void node_channel::queue(outgoing item) {
  if (closed_ || deaf_) return finish(item, boost::asio::error::not_connected);
  if (!item.ahead && (unacknowledged_ || !held_.empty())) return held_.push_back(std::move(item));
  ready_.push_back(std::move(item));
  write();
}

void node_channel::finish(outgoing& item, boost::system::error_code code) {
  unsent_ -= item.line.size();
  if (item.done) std::exchange(item.done, nullptr)->complete(code);
  else if (code && !item.quiet && options_.on_unsent) options_.on_unsent(code);
}

void node_channel::write() {
  if (writing_ || closed_) return;
  while (!ready_.empty())
    if (!write_some()) return;
  if (leaving_ && held_.empty() && !unacknowledged_) close("");
}

bool node_channel::write_some() {
  outgoing& next = ready_.front();
  iovec part{next.line.data() + written_, next.line.size() - written_};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  attachment<1> attached;
  if (next.handle && written_ == 0) {
    const int fd = next.handle.fd();
    attached.add_to(message, {&fd, 1});
  }
  const ssize_t n = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && (errno == EAGAIN || errno == ETOOMANYREFS)) {
    writing_ = true;
    socket_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                       [self = shared_from_this()](boost::system::error_code code) {
                         self->writing_ = false;
                         if (!code) self->write();
                       });
    return false;
  }
  if (n < 0) return fail_queued(), false;  // what the peer had sent before it went is still to be read
  written_ += static_cast<std::size_t>(n);
  if (written_ < next.line.size()) return true;
  written_ = 0;
  if (next.handle) {
    unacknowledged_ = std::move(next);
    ready_.pop_front();
    for (outgoing& each : std::exchange(ready_, {})) (each.ahead ? ready_ : held_).push_back(std::move(each));
    return true;
  }
  finish(next, {});
  ready_.pop_front();
  return true;
}

void node_channel::acknowledged(bool taken) {
  if (!unacknowledged_) return;  // nobody asked
  outgoing item = std::move(*unacknowledged_);
  unacknowledged_.reset();
  if (!taken && item.retransmits && ++item.attempts <= retransmits_limit) {
    ready_.push_back(std::move(item));
  } else {
    if (options_.discard) options_.discard(node::descriptor_of(std::move(item.handle)));
    item.handle = {};
    finish(item, taken ? boost::system::error_code() : boost::asio::error::bad_descriptor);
    // Up to the next handle; the rest is held again when that has been written.
    while (!held_.empty()) {
      const bool last = static_cast<bool>(held_.front().handle);
      ready_.push_back(std::move(held_.front()));
      held_.pop_front();
      if (last) break;
    }
  }
  write();
}

// --- receiving ------------------------------------------------------------------------------------------------------------

// One turn. A message is delivered before more is read, so a peer that floods waits in its own write.
void node_channel::read() {
  try {
    for (int step = 0; step < steps_of_a_turn; ++step) {
      if (closed_) return;
      if (take_one() || read_some()) continue;
      if (closed_) return;
      if (draining_) return close("");
      return socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                                [self = shared_from_this()](boost::system::error_code code) {
                                  if (!code) self->read();
                                });
    }
  } catch (...) {  // a handler's: others may be told what comes next
    open();
    throw;
  }
  if (draining_ && --*draining_ <= 0) return close("");
  open();
}

// False when there is nothing more to be read now.
bool node_channel::read_some() {
  attachment<1> attached;
  iovec part{bytes_.data(), bytes_.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (options_.receive_handles) attached.make_room(message);
  const ssize_t n = ::recvmsg(socket_.native_handle(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && errno == EAGAIN) return false;
  std::vector<unique_fd> unwanted;
  if (n >= 0)
    take_descriptors(message, [&](unique_fd fd) {
      if (!pending_) pending_ = std::move(fd);
      else unwanted.push_back(std::move(fd));
    });
  if (options_.discard && !unwanted.empty()) options_.discard(std::move(unwanted));
  if (n <= 0) return close(""), false;  // a trailing part of a message is dropped, as in Node
  partial_.erase(0, std::exchange(taken_, 0));
  partial_.append(bytes_.data(), static_cast<std::size_t>(n));
  return true;
}

// False when no whole line has come.
bool node_channel::take_one() {
  const std::size_t end = partial_.find('\n', taken_);
  if (end == std::string::npos) {
    if (partial_.size() - taken_ > options_.line_limit)
      close("a message longer than " + std::to_string(options_.line_limit));
    return false;
  }
  const auto line = std::string_view(partial_).substr(taken_, end - taken_);
  taken_ = end + 1;
  take_line(line);
  return true;
}

void node_channel::take_line(std::string_view line) {
  nlohmann::json message;
  try {
    if (line.size() > options_.line_limit) throw std::runtime_error("a message that is too long");
    message = node::parse_line(line);
  } catch (const std::exception& e) {
    return close(e.what());
  }
  if (node::is_internal(message)) take_internal(message);
  else if (options_.on_message) options_.on_message(message, {});
}

void node_channel::take_internal(nlohmann::json& message) {
  const auto key = [&] {
    return message.contains("key") && message["key"].is_string() ? message["key"].get<std::string>() : "";
  };
  if (node::is_command(message, "NODE_HANDLE")) return take_handle(message);
  if (node::is_command(message, "NODE_HANDLE_ACK")) return acknowledged(true);
  if (node::is_command(message, "NODE_HANDLE_NACK")) return acknowledged(false);
  if (node::is_command(message, "NODE_SOCKET_GET_COUNT")) {
    const auto found = leases_.find(key());
    return reply({{"cmd", "NODE_SOCKET_COUNT"}, {"key", key()}, {"count", found == leases_.end() ? 0 : found->second}});
  }
  if (node::is_command(message, "NODE_SOCKET_NOTIFY_CLOSE")) {
    if (closing_.size() < 1024) closing_.insert(key());
    return lease_ended("");
  }
  if (options_.on_internal) options_.on_internal(message, {});
}

void node_channel::take_handle(nlohmann::json& envelope) {
  if (!pending_) return reply(nack);
  passed_handle handle(std::move(pending_));
  reply(ack);
  // A retransmission is wrapped twice.
  nlohmann::json* outer = &envelope;
  while (outer->contains("msg") && node::is_command((*outer)["msg"], "NODE_HANDLE")) outer = &(*outer)["msg"];
  const nlohmann::json message = outer->contains("msg") ? (*outer)["msg"] : nlohmann::json();
  if (outer->contains("key") && (*outer)["key"].is_string()) lease(handle, (*outer)["key"].get<std::string>());
  if (!node::is_internal(message)) {
    if (options_.on_message) return options_.on_message(message, std::move(handle));
  } else if (options_.on_internal) {
    return options_.on_internal(message, std::move(handle));
  }
  if (options_.discard) options_.discard(node::descriptor_of(std::move(handle)));
}

// Node's server.close() waits until its sockets are closed, wherever they are.
void node_channel::lease(passed_handle& handle, const std::string& key) {
  if (leases_.size() >= 1024 && !leases_.contains(key)) return;
  ++leases_[key];
  handle.keep(std::shared_ptr<void>(nullptr, [weak = weak_from_this(), key](void*) {
    if (const auto self = weak.lock()) boost::asio::post(self->strand_, [self, key] { self->lease_ended(key); });
  }));
}

void node_channel::lease_ended(const std::string& key) {
  if (const auto found = leases_.find(key); found != leases_.end() && --found->second == 0) leases_.erase(found);
  if (closed_) return;
  std::erase_if(closing_, [this](const std::string& each) {
    if (leases_.contains(each)) return false;
    reply({{"cmd", "NODE_SOCKET_ALL_CLOSED"}, {"key", each}});
    return true;
  });
}

// --- the end --------------------------------------------------------------------------------------------------------------

void node_channel::disconnect() {
  boost::asio::post(strand_, [self = shared_from_this()] {
    self->leaving_ = true;
    self->write();
  });
}

void node_channel::drain() {
  boost::asio::post(strand_, [self = shared_from_this()] {
    // What it had written before it ended is there; what others that hold its end may add has a limit.
    self->draining_ = turns_of_a_drain;
    self->read();
  });
}

void node_channel::fail_queued() {
  deaf_ = true;
  if (unacknowledged_) finish(*unacknowledged_, boost::asio::error::not_connected);
  unacknowledged_.reset();
  for (auto* list : {&ready_, &held_})
    for (outgoing& each : std::exchange(*list, {})) finish(each, boost::asio::error::not_connected);
}

void node_channel::close(const std::string& violation) {
  if (closed_.exchange(true)) return;
  boost::system::error_code ignored;
  socket_.close(ignored);
  fail_queued();
  if (pending_ && options_.discard) {
    std::vector<unique_fd> unwanted;
    unwanted.push_back(std::move(pending_));
    options_.discard(std::move(unwanted));
  }
  pending_.reset();
  if (options_.on_disconnect) options_.on_disconnect(violation);
}

}  // namespace bulkhead
