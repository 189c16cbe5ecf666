// See daemon_client.hpp.
#include "daemon_client.hpp"

#include "config/config.hpp"
#include "instance.hpp"

#include <fmt/format.h>

#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>

namespace bulkhead::cli {
namespace {

constexpr unsigned credit = 1024;

ipc::limits client_limits() {
  ipc::limits limits;
  limits.frame = std::size_t{1} << 30;  // the daemon is trusted, and keeps its own limits
  return limits;
}

unique_fd connect_to(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path) throw std::runtime_error("--socket: the path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  unique_fd socket(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return socket;
  if (errno == ENOENT || errno == ECONNREFUSED)
    throw std::runtime_error("no daemon serves " + path.string() +
                             ": start one with 'bulkhead run CONFIG.toml', or name its socket with --socket");
  if (errno == EACCES)
    throw std::runtime_error(fmt::format("user {} may not use the daemon at {}: it is another user's (see allow_users)",
                                         ::geteuid(), path.string()));
  throw_errno("can't connect to " + path.string());
}

ipc::completion closed(outcome code) { return ipc::completion::failed(code, "the daemon has closed the connection"); }

// What comes just before the request `id`.
ipc::buffer said_ahead(std::uint32_t id, const call_options& options) {
  ipc::buffer out;
  const auto say = [&](std::string_view method, auto value) {
    ipc::buffer note = ipc::begin_notification(method);
    ipc::packer(note).pack_array(2).pack(id).pack(value);
    out.append(note.view());
  };
  if (options.deadline) say("$/deadline", std::chrono::ceil<std::chrono::milliseconds>(*options.deadline).count());
  if (const std::uint64_t key = options.key.value()) say("$/key", key);
  return out;
}

}  // namespace

void add_socket_option(CLI::App& app, std::filesystem::path& out) {
  const char* given = std::getenv("BULKHEAD_SOCKET");
  out = given && *given ? std::filesystem::path(given) : daemon::default_socket();
  app.add_option("--socket", out, "the daemon's socket (default: $BULKHEAD_SOCKET, else " + out.string() + ")")
      ->type_name("PATH");
}

daemon_client::daemon_client(const std::filesystem::path& socket)
    : channel_(std::make_unique<ipc::socket_transport>(connect_to(socket), ipc::socket_transport::most_handles),
               client_limits(), *this, nullptr) {
  greet();
}

void daemon_client::greet() {
  ipc::buffer hello = ipc::begin_request("$/hello");
  ipc::packer(hello).pack_array(1).pack_map(2).pack("protocol").pack(1).pack("event_credit").pack(credit);
  ipc::waiter answer;
  const auto started = channel_.start(hello.take(), {}, ipc::never, &answer, nullptr);
  if (started.code != outcome::ok || channel_.wait(answer, ipc::never) != ipc::channel::wait_result::done ||
      answer.result.code != outcome::ok)
    throw std::runtime_error(!refusal_.empty()                      ? refusal_
                             : answer.result.failure.message.size() ? answer.result.failure.message
                                                                    : "the daemon has closed the connection");
  channel_.run([this] { return ready_; });
  if (!ready_) throw std::runtime_error("the daemon has closed the connection");
}

reply daemon_client::call(const std::string& method, packed_arguments arguments, const call_options& options) {
  ipc::buffer frame = ipc::begin_request(method);
  frame.append(arguments.params.view());
  on_progress_ = options.on_progress;
  ipc::waiter answer;
  answer.interruptible = options.stop.stop_possible();
  const auto started = channel_.start(frame.take(), std::move(arguments.handles), ipc::never, &answer, nullptr,
                                      [&](std::uint32_t id) { return said_ahead(id, options); });
  if (started.code != outcome::ok) return reply(closed(outcome::not_sent));
  std::stop_callback on_stop(
      options.stop, [this, id = started.id] { channel_.abandon(id, outcome::cancelled, "cancelled by the caller"); });
  if (channel_.wait(answer, ipc::never) == ipc::channel::wait_result::closed)
    channel_.fail_all([](const ipc::channel::open_call&) { return closed(outcome::worker_lost); });
  return reply(std::move(answer.result));
}

std::shared_ptr<daemon_stream> daemon_client::open(const std::string& method, packed_arguments arguments,
                                                   const call_options& options) {
  struct ending final : ipc::async_completion {
    explicit ending(std::shared_ptr<daemon_stream> which) : which(std::move(which)) {}
    void complete(ipc::completion&& result) override { which->end(reply(std::move(result))); }
    const std::shared_ptr<daemon_stream> which;
  };
  ipc::buffer frame = ipc::begin_request(method);
  frame.append(arguments.params.view());
  on_progress_ = options.on_progress;
  stream_ = std::make_shared<daemon_stream>(channel_, options.stream_window);
  std::unique_ptr<ipc::async_completion> async = std::make_unique<ending>(stream_);
  const auto started =
      channel_.start(frame.take(), std::move(arguments.handles), ipc::never, nullptr, &async, [&](std::uint32_t id) {
        stream_->begin(id);
        ipc::buffer ahead = ipc::make_open(id, stream_->window());
        ahead.append(said_ahead(id, options).view());
        return ahead;
      });
  if (started.code != outcome::ok) stream_->end(reply(closed(outcome::not_sent)));
  stream_->heed(options.stop);
  return stream_;
}

void daemon_client::on_closed(const std::string&) {
  if (stream_) stream_->end(reply(closed(outcome::worker_lost)));
}

void daemon_client::wait_closed() {
  channel_.run([] { return false; });
}

void daemon_client::on_request(const ipc::message& request, std::vector<unique_fd>) {
  channel_.send(ipc::make_error_response(request.id, {outcome::rejected, "there is nothing to call here", {}}).take());
}

void daemon_client::on_notification(const ipc::message& notification, std::vector<unique_fd>) {
  if (ipc::is_about_stream(notification.method)) {
    const auto said = ipc::read_about_stream(notification);
    if (said && stream_ && stream_->id() == said->id) ipc::tell(*stream_, notification.method, said->value);
    return;
  }
  const msgpack::object_handle params = ipc::unpack(notification.params);
  if (params->type != msgpack::type::ARRAY || params->via.array.size == 0) return;
  const std::span given(params->via.array.ptr, params->via.array.size);
  if (notification.method == "$/ready") {
    description_ = read_description(given[0]);
    ready_ = true;
  } else if (notification.method == "$/leaving") {
    refusal_ = "the daemon refuses: " + ipc::parse_failure(notification.params.subspan(1)).message;
  } else if (notification.method == "$/progress" && given.size() > 1) {
    if (on_progress_) on_progress_(given[1]);
    if (++taken_ < credit / 2) return;
    ipc::buffer more = ipc::begin_notification("$/credit");
    ipc::packer(more).pack_array(1).pack(std::exchange(taken_, 0u));
    channel_.send(more.take());
  }
}

}  // namespace bulkhead::cli
