// See connection.hpp.
#include "connection.hpp"

#include <fmt/format.h>

#include <algorithm>

#include <fcntl.h>
#include <sys/epoll.h>

namespace bulkhead::daemon {
namespace {

constexpr std::chrono::seconds hello_limit{5};
constexpr std::int64_t most_drains = 16, most_credit = 1'000'000;
constexpr std::int64_t longest_deadline_ms = 31'622'400'000;  // a year

ipc::limits channel_limits(const client_limits& from) {
  ipc::limits out;
  out.frame = from.frame;
  out.queued_bytes = from.queued_bytes;
  return out;
}

// The elements of a message's params; fewer than `least` is a mistake of the client's.
std::span<const msgpack::object> elements(const msgpack::object& params, std::size_t least) {
  if (params.type != msgpack::type::ARRAY || params.via.array.size < least)
    throw std::invalid_argument("not enough parameters");
  return {params.via.array.ptr, params.via.array.size};
}

std::int64_t number(const msgpack::object& value, std::int64_t most) {
  if (value.type != msgpack::type::POSITIVE_INTEGER) throw std::invalid_argument("a parameter is no number");
  return static_cast<std::int64_t>(std::min<std::uint64_t>(value.via.u64, static_cast<std::uint64_t>(most)));
}

call_key key_of(const msgpack::object& value) {
  if (value.type == msgpack::type::STR) return std::string_view(value.via.str.ptr, value.via.str.size);
  if (value.type != msgpack::type::POSITIVE_INTEGER) throw std::invalid_argument("a key is neither text nor number");
  return value.via.u64;
}

}  // namespace

std::string peer::text() const { return fmt::format("pid {} of user {}", pid, uid); }

// Carries the outcome of a call back, wherever it comes about. Until then the connection is there, and counts.
class connection::answering final : public reply_handler {
 public:
  answering(std::shared_ptr<connection> to, std::uint32_t id) : to_(std::move(to)), id_(id) {}
  void complete(reply&& result) override { to_->answer(id_, result); }

 private:
  const std::shared_ptr<connection> to_;
  const std::uint32_t id_;
};

connection::connection(std::shared_ptr<reactor> loop, unique_fd socket, peer who, bool trusted,
                       const client_limits& limits, service& to)
    : loop_(std::move(loop)),
      socket_(socket.get()),
      who_(who),
      trusted_(trusted),
      limits_(limits),
      service_(to),
      // From anybody: descriptors that the kernel is left to drop, it drops at our expense.
      channel_(std::make_unique<ipc::socket_transport>(std::move(socket), ipc::socket_transport::most_handles),
               channel_limits(limits), *this, this),
      watch_(loop_->new_watch()),
      hello_due_(ipc::clock::now() + hello_limit) {}

connection::~connection() {
  loop_->remove(socket_, watch_);
  std::vector<unique_fd> rest = channel_.take_leftover_handles();
  // The socket may hold some that were never read: its last close is not to happen here either.
  if (unique_fd socket(::fcntl(socket_, F_DUPFD_CLOEXEC, 3)); socket) rest.push_back(std::move(socket));
  service_.discard(std::move(rest));
}

void connection::open() {
  loop_->add(watch_, socket_, weak_from_this(), 0, 0);
  channel_.open();
  schedule(hello_due_);
}

void connection::close(const std::string& why) {
  {
    std::lock_guard held(mutex_);
    if (closed_for_.empty()) closed_for_ = why;
  }
  channel_.shutdown();
}

// --- the reactor ----------------------------------------------------------------------------------------------------

void connection::arm(bool reading, bool writing) {
  loop_->arm(socket_, watch_, (reading ? EPOLLIN | EPOLLRDHUP : 0u) | (writing ? EPOLLOUT : 0u));
}

void connection::on_ready(int, std::uint32_t events) {
  channel_.on_event(events & ~static_cast<std::uint32_t>(EPOLLOUT), events & EPOLLOUT);
}

void connection::on_timer() {
  const auto now = ipc::clock::now();
  bool silent = false;
  {
    std::lock_guard held(mutex_);
    silent = !greeted_ && now >= hello_due_;
  }
  if (silent) close("it said no $/hello");
  if (const auto next = channel_.tick(now, hello_limit).next; next != ipc::never) schedule(next);
}

// --- from the client ------------------------------------------------------------------------------------------------

void connection::on_request(const ipc::message& request, std::vector<unique_fd> handles) {
  if (!handles.empty() && !trusted_) {
    service_.discard(std::move(handles));
    return close("it passed descriptors, which only the daemon's own user and root may");
  }
  bool greeted = false;
  {
    std::lock_guard held(mutex_);
    if (!closed_for_.empty()) return;
    greeted = greeted_;
  }
  try {
    if (!greeted) on_hello(request);
    else if (request.method.starts_with("$/")) on_reserved(request);
    else on_call(request, std::move(handles));
  } catch (const std::exception& e) {
    close(e.what());
  }
}

void connection::on_hello(const ipc::message& request) {
  if (request.method != "$/hello") throw std::invalid_argument("its first message is not $/hello");
  const msgpack::object_handle params = ipc::unpack(request.params);
  std::int64_t version = 0, credit = 0, deadline = 0;
  const msgpack::object& options = elements(params.get(), 1)[0];
  if (options.type != msgpack::type::MAP) throw std::invalid_argument("$/hello without options");
  for (const auto& [key, value] : std::span(options.via.map.ptr, options.via.map.size)) {
    if (key.type != msgpack::type::STR) continue;
    const std::string_view name(key.via.str.ptr, key.via.str.size);
    if (name == "protocol") version = number(value, 1000);
    else if (name == "event_credit") credit = number(value, most_credit);
    else if (name == "deadline_ms") deadline = number(value, longest_deadline_ms);
  }
  if (version != ipc::protocol_version) {
    refuse(request.id, outcome::unavailable, "this daemon speaks protocol version 1 only");
    throw std::invalid_argument("it speaks another version of the protocol");
  }
  {
    std::lock_guard held(mutex_);
    greeted_ = true;
    credit_ = credit;
    default_deadline_ = std::chrono::milliseconds(deadline);
  }
  ipc::buffer result;
  ipc::packer(result).pack_map(2).pack("protocol").pack(ipc::protocol_version).pack("name").pack("bulkhead");
  send(ipc::make_response(request.id, result.view()));
  ipc::buffer ready = ipc::begin_notification("$/ready");
  ipc::packer packer(ready);
  packer.pack_array(1);
  service_.describe(packer);
  send(std::move(ready));
}

void connection::on_reserved(const ipc::message& request) {
  ipc::buffer result;
  ipc::packer packer(result);
  if (request.method == "$/ping") {
    packer.pack_nil();
  } else if (request.method == "$/describe") {
    service_.describe(packer);
  } else if (request.method == "$/drain") {
    std::lock_guard held(mutex_);
    if (!open_.empty()) {
      if (std::ssize(drains_) >= most_drains) throw std::invalid_argument("too many $/drain requests");
      return drains_.push_back(request.id);
    }
    packer.pack_nil();
  } else {
    return refuse(request.id, outcome::rejected, "no such request: " + ipc::sanitised(request.method, 128));
  }
  send(ipc::make_response(request.id, result.view()));
}

void connection::on_call(const ipc::message& request, std::vector<unique_fd> handles) {
  call_options options;
  std::size_t bytes = request.params.size();
  std::uint64_t number = 0;
  bool full = false, streams = false;
  {
    std::lock_guard held(mutex_);
    const auto [id, ms] = std::exchange(next_deadline_, {});
    if (ms.count() > 0 && id == request.id) options.deadline = ms;
    else if (default_deadline_.count() > 0) options.deadline = default_deadline_;
    if (const auto [of, key] = std::exchange(next_key_, {}); of == request.id) options.key = key;
    if (const auto [of, window] = std::exchange(next_window_, {}); window > 0 && of == request.id) {
      streams = true;
      options.stream_window = std::min(window, limits_.frame);
      bytes += options.stream_window;
    }
    if (open_.contains(request.id)) throw std::invalid_argument("it used the id of a call that is open");
    full = open_.size() >= limits_.calls || open_bytes_ + bytes > limits_.call_bytes;
    if (!full) {
      open_call& added = open_[request.id];
      added.bytes = bytes;
      added.number = number = ++last_number_;
      open_bytes_ += bytes;
      options.stop = added.stop.get_token();
    }
  }
  if (full) {
    service_.discard(std::move(handles));
    return refuse(request.id, outcome::overloaded,
                  fmt::format("this client has {} calls open, with as many bytes as it may", limits_.calls));
  }
  options.on_progress = [to = weak_from_this(), id = request.id, number](const msgpack::object& value) {
    if (const auto client = to.lock()) client->progress(id, number, value);
  };
  packed_arguments arguments;
  arguments.params.append(request.params);
  arguments.handles = std::move(handles);
  std::shared_ptr<ipc::stream::link> onward;
  if (streams)
    onward = std::make_shared<ipc::framed_link>(
        request.id, [to = weak_from_this(), id = request.id, number](std::vector<std::uint8_t> frame) {
          if (const auto client = to.lock()) client->say_of_stream(id, number, std::move(frame));
        });
  auto stream = service_.call(*this, request.method, std::move(arguments), std::move(options),
                              std::make_unique<answering>(shared_from_this(), request.id), std::move(onward));
  std::lock_guard held(mutex_);
  if (const auto found = open_.find(request.id); found != open_.end()) found->second.stream = std::move(stream);
}

void connection::on_stream(const ipc::message& notification) {
  const auto said = ipc::read_about_stream(notification);
  if (!said) throw std::invalid_argument("parameters that are not as they should be");
  std::shared_ptr<ipc::stream> stream;
  {
    std::lock_guard held(mutex_);
    if (const auto found = open_.find(said->id); found != open_.end()) stream = found->second.stream;
  }
  if (!stream) return;  // it may have been answered while this was on its way
  if (const char* wrong = ipc::pass(*stream, notification.method, said->value)) throw std::invalid_argument(wrong);
}

void connection::on_notification(const ipc::message& notification, std::vector<unique_fd> handles) {
  const bool with_handles = !handles.empty();
  if (with_handles) service_.discard(std::move(handles));
  std::stop_source stop(std::nostopstate);
  try {
    const std::string_view method = notification.method;
    if (method == "$/shutdown") return close("");
    if (ipc::is_about_stream(method)) {
      if (with_handles) throw std::invalid_argument("descriptors go with the arguments of a call, not with items");
      return on_stream(notification);
    }
    const bool of_next = method == "$/deadline" || method == "$/key" || method == "$/open";
    if (!of_next && method != "$/cancel" && method != "$/credit") return;  // of a later version
    const msgpack::object_handle params = ipc::unpack(notification.params);
    const auto given = elements(params.get(), of_next ? 2 : 1);
    const std::int64_t first = number(given[0], std::numeric_limits<std::uint32_t>::max());
    std::lock_guard held(mutex_);
    if (method == "$/credit") {
      credit_ = std::min(credit_ + first, most_credit);
    } else if (method == "$/deadline") {
      const auto ms = std::max<std::int64_t>(1, number(given[1], longest_deadline_ms));
      next_deadline_ = {static_cast<std::uint32_t>(first), std::chrono::milliseconds(ms)};
    } else if (method == "$/key") {
      next_key_ = {static_cast<std::uint32_t>(first), key_of(given[1])};
    } else if (method == "$/open") {
      const auto window = static_cast<std::size_t>(number(given[1], ipc::most_stream_window + 1));
      if (window == 0 || window > ipc::most_stream_window) throw std::invalid_argument("a window out of range");
      next_window_ = {static_cast<std::uint32_t>(first), window};
    } else if (const auto found = open_.find(static_cast<std::uint32_t>(first)); found != open_.end()) {
      stop = found->second.stop;
    }
  } catch (const std::exception& e) {
    return close(e.what());
  }
  if (stop.stop_possible()) stop.request_stop();  // the answer may come of it, here and now
}

void connection::on_closed(const std::string& violation) {
  std::map<std::uint32_t, open_call> left;
  std::string why = violation;
  {
    std::lock_guard held(mutex_);
    left = open_;  // they stay in the books until they have ended
    if (why.empty()) why = closed_for_;
    if (closed_for_.empty()) closed_for_ = "it is gone";
  }
  for (auto& [id, call] : left) call.stop.request_stop();
  service_.gone(*this, why);
}

// --- to the client --------------------------------------------------------------------------------------------------

void connection::answer(std::uint32_t id, const reply& result) {
  std::vector<std::uint32_t> drained;
  {
    std::lock_guard held(mutex_);
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    open_bytes_ -= found->second.bytes;
    open_.erase(found);
    if (open_.empty()) drained.swap(drains_);
  }
  if (result && result.size() > limits_.frame) {  // it came by shared memory, which clients have none of
    send(ipc::make_error_response(id, {outcome::rejected,
                                       fmt::format("the result has {} bytes, more than the limit of {} for one message",
                                                   result.size(), limits_.frame),
                                       {}}));
  } else if (result) {
    std::vector<unique_fd> handles;
    for (std::size_t i = 0; i < result.handle_count(); ++i) handles.push_back(result.handle(i));
    send(ipc::make_response(id, result.raw()), std::move(handles));
  } else {
    send(ipc::make_error_response(id, {result.outcome(), result.message(), result.data()}));
  }
  ipc::buffer nil;
  ipc::packer(nil).pack_nil();
  for (const std::uint32_t each : drained) send(ipc::make_response(each, nil.view()));
}

// Of the call that had the number, which may have been answered: its client may use the id for another one by now.
void connection::progress(std::uint32_t id, std::uint64_t number, const msgpack::object& value) {
  {
    std::lock_guard held(mutex_);
    const auto found = open_.find(id);
    if (credit_ <= 0 || found == open_.end() || found->second.number != number) return;
    --credit_;
  }
  ipc::buffer note = ipc::begin_notification("$/progress");
  ipc::packer packer(note);
  packer.pack_array(2).pack(id).pack(value);
  send(std::move(note));
}

// Nothing about a call's stream comes after its answer: it is out of the books before that is sent.
void connection::say_of_stream(std::uint32_t id, std::uint64_t number, std::vector<std::uint8_t> frame) {
  {
    std::lock_guard held(mutex_);
    const auto found = open_.find(id);
    if (found == open_.end() || found->second.number != number) return;
    if (channel_.send(std::move(frame)) || channel_.closed()) return;
  }
  close("it does not read what streams to it");
}

void connection::refuse(std::uint32_t id, outcome code, std::string why) {
  send(ipc::make_error_response(id, {code, std::move(why), {}}));
}

void connection::send(ipc::buffer frame, std::vector<unique_fd> handles) {
  if (!channel_.send(frame.take(), std::move(handles)) && !channel_.closed()) close("it does not read its answers");
}

}  // namespace bulkhead::daemon
