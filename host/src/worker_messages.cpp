// What a worker sends of its own accord: host calls, events, reports of progress. See worker_process.hpp.
#include "call_stream.hpp"
#include "progress_reports.hpp"
#include "worker_process.hpp"

namespace bulkhead {
namespace {

constexpr unsigned host_calls_limit = 8;
constexpr std::size_t elements_limit = std::size_t{1} << 17;  // of what a worker says of itself: 3 MiB as objects

}  // namespace

void worker_process::discard(std::vector<unique_fd> handles) { core_->closer.take(std::move(handles)); }

// Descriptors from a worker, until somebody takes them: the last close of what is left may block.
struct worker_process::untaken {
  untaken(std::shared_ptr<worker_process> worker, std::vector<unique_fd>&& came)
      : from(std::move(worker)), handles(std::move(came)) {}
  untaken(const untaken&) = delete;
  ~untaken() { from->discard(std::move(handles)); }

  const std::shared_ptr<worker_process> from;
  std::vector<unique_fd> handles;
};

void worker_process::on_request(const ipc::message& request, std::vector<unique_fd> handles) {
  auto came = std::make_shared<untaken>(shared_from_this(), std::move(handles));
  const std::uint32_t id = request.id;
  if (request.method == "$/arena") {
    const char* wrong = blobs_->on_request(request);
    return wrong ? kill(exit_reason::protocol, std::string("$/arena: ") + wrong) : void();
  }
  const ipc::time_point deadline = next_deadline_.first == id ? next_deadline_.second : ipc::never;
  next_deadline_ = {};
  if (host_calls_.fetch_add(1) >= host_calls_limit) {
    --host_calls_;
    tell(ipc::make_error_response(id, {outcome::overloaded, "at most 8 calls to the host at a time", {}}).view());
    return;
  }
  std::vector<std::uint8_t> params(request.params.begin(), request.params.end());
  boost::asio::post(core_->handlers(), [self = shared_from_this(), id, deadline, name = std::string(request.method),
                                        params = std::move(params), came = std::move(came)] {
    ipc::completion result = run_function(self->settings_->options.functions, name, params, came->handles, deadline);
    --self->host_calls_;
    if (!self->channel_.send(result.code == outcome::ok ? ipc::make_response(id, result.result()).take()
                                                        : ipc::make_error_response(id, result.failure).take(),
                             std::move(result.handles)))
      self->tell(ipc::make_error_response(id, {outcome::overloaded, "too many bytes wait to be read here", {}}).view());
  });
}

void worker_process::on_notification(const ipc::message& notification, std::vector<unique_fd> handles) {
  std::shared_ptr<untaken> came;
  if (!handles.empty()) came = std::make_shared<untaken>(shared_from_this(), std::move(handles));
  if (ipc::is_about_stream(notification.method)) {
    const char* wrong = came ? "with descriptors" : tell_stream(notification);
    return wrong ? kill(exit_reason::protocol, std::string(notification.method) + ": " + wrong) : void();
  }
  if (worker_blobs::is_about_blobs(notification.method)) {
    const char* wrong = blobs_->on_notification(notification);
    return wrong ? kill(exit_reason::protocol, std::string(notification.method) + ": " + wrong) : void();
  }
  try {
    if (notification.method == "$/event" || notification.method == "$/progress") return take_event(notification, came);
    const msgpack::object_handle handle = ipc::unpack(notification.params, elements_limit);
    const auto params = handle.get().as<std::vector<msgpack::object>>();
    if (notification.method == "$/ready") {
      if (ready_) throw std::runtime_error("$/ready came twice");
      auto description = read_description(params.at(0));
      {
        std::lock_guard held(mutex_);
        description_ = std::move(description);
      }
      ready_ = true;
      channel_.wake();  // wait_ready() may be following another reader
      if (const auto owner = owner_.lock()) owner->on_ready(id_);
    } else if (notification.method == "$/leaving") {
      ipc::buffer error;
      ipc::packer(error).pack(params.at(0));
      const ipc::call_failure why = ipc::parse_failure(error.view());
      {
        std::lock_guard held(mutex_);
        why_ = why.message;
        no_plugin_ = why.code == outcome::rejected && !ready_;
      }
      if (const auto owner = owner_.lock(); owner && ready_) owner->on_leaving(id_);
    } else if (notification.method == "$/took") {
      took_published(params.at(0).as<std::string>(), params.at(1).as<std::uint64_t>());
    } else if (notification.method == "$/deadline") {
      const auto left = std::chrono::milliseconds(params.at(1).as<std::uint32_t>());
      next_deadline_ = {params.at(0).as<std::uint32_t>(), left.count() > 0 ? ipc::clock::now() + left : ipc::never};
    } else if (notification.method == "$/log") {
      const auto level = std::clamp(params.at(0).as<int>(), 0, 3);
      log_->record(static_cast<log_level>(level), params.at(1).as<std::string_view>(), ipc::clock::now());
    }
  } catch (const std::exception& e) {
    kill(exit_reason::protocol, "notification " + ipc::sanitised(notification.method, 64) + ": " + e.what());
  }
}

// An event, or a report of progress. Its value waits as it came: as objects it may take 24 times as much.
void worker_process::take_event(const ipc::message& notification, const std::shared_ptr<untaken>& came) {
  const bool event = notification.method == "$/event";
  ipc::byte_span rest = notification.params;
  if (ipc::take_array(rest).value_or(0) < 2) throw std::runtime_error("fewer than two parameters");
  const ipc::byte_span about = rest.first(ipc::value_size(rest));
  rest = rest.subspan(about.size());
  const ipc::byte_span value = rest.first(ipc::value_size(rest));
  const msgpack::object_handle key = ipc::unpack(about, 1);
  const std::string name = event ? ipc::sanitised(key.get().as<std::string_view>(), 256) : "";
  const std::uint32_t id = event ? 0 : key.get().as<std::uint32_t>();
  if (!spend_event_credit(value.size())) throw std::runtime_error("more events than it had credit for");
  std::shared_ptr<progress_reports> progress;
  if (!event) {
    std::lock_guard held(mutex_);
    if (const auto found = progress_.find(id); found != progress_.end()) progress = found->second;
  }
  if (progress) progress->add(value);
  // While the event waits, its version of the plugin may be replaced and end: the event still comes.
  auto owner = event ? owner_.lock() : nullptr;
  callbacks_.post(
      [self = shared_from_this(), owner = std::move(owner), name, progress, came, size = value.size(),
       packed = progress ? std::vector<std::uint8_t>() : std::vector<std::uint8_t>(value.begin(), value.end())] {
        std::vector<unique_fd> none;
        self->core_->run(self->settings_->name, [&] {
          if (progress) progress->deliver();
          else if (owner) owner->on_event(name, ipc::unpack(packed).get(), came ? came->handles : none);
        });
        self->return_event_credit(size);
      });
}

// A worker stops when what it has sent and knows nothing of has as many bytes as one message may have.
bool worker_process::spend_event_credit(std::size_t bytes) {
  if (events_ >= event_credit || event_bytes_ >= limits().frame) return false;
  ++events_;
  event_bytes_ += bytes;
  return true;
}

void worker_process::return_event_credit(std::size_t bytes) {
  --events_;
  event_bytes_ -= bytes;
  ++events_to_credit_;
  bytes_to_credit_ += bytes;
  if (events_to_credit_ < credit_batch && bytes_to_credit_ < limits().frame / 4) return;
  ipc::buffer credit = ipc::begin_notification("$/credit");
  ipc::packer(credit).pack_array(1).pack(std::exchange(events_to_credit_, 0));
  bytes_to_credit_ = 0;
  tell(credit.view());
}

bool worker_process::tell(ipc::byte_span frame, std::vector<unique_fd> handles) {
  if (channel_.send_vital(frame, std::move(handles))) return true;
  if (!channel_.closed()) kill(exit_reason::protocol, "it sends requests and does not read what comes back");
  return false;
}

void worker_process::on_closed(const std::string& violation) {
  if (!violation.empty()) {
    kill(exit_reason::protocol, violation);
  } else {  // Most likely it is exiting: let it, so that its own status is what gets reported.
    kill_at_ = ipc::clock::now() + exit_after_close;
    schedule(kill_at_);
  }
  // If its exit was noticed while another thread was still reading what it left behind, the account is still open.
  if (exited_) schedule(ipc::clock::now());
}

}  // namespace bulkhead
