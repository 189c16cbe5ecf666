// What a worker sends of its own accord: host calls, events, reports of progress. See worker_process.hpp.
#include "call_stream.hpp"
#include "progress_reports.hpp"
#include "worker_process.hpp"

namespace bulkhead {
namespace {

constexpr unsigned host_calls_limit = 8;

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
    channel_.send(
        ipc::make_error_response(id, {outcome::overloaded, "at most 8 calls to the host at a time", {}}).take());
    return;
  }
  std::vector<std::uint8_t> params(request.params.begin(), request.params.end());
  boost::asio::post(core_->handlers(), [self = shared_from_this(), id, deadline, name = std::string(request.method),
                                        params = std::move(params), came = std::move(came)] {
    ipc::completion result = run_function(self->settings_->options.functions, name, params, came->handles, deadline);
    --self->host_calls_;
    self->channel_.send(result.code == outcome::ok ? ipc::make_response(id, result.result()).take()
                                                   : ipc::make_error_response(id, result.failure).take(),
                        std::move(result.handles));
  });
}

void worker_process::on_notification(const ipc::message& notification, std::vector<unique_fd> handles) {
  std::shared_ptr<untaken> came;
  if (!handles.empty()) came = std::make_shared<untaken>(shared_from_this(), std::move(handles));
  if (ipc::is_about_stream(notification.method)) {
    const char* wrong = tell_stream(notification);
    return wrong ? kill(exit_reason::protocol, std::string(notification.method) + ": " + wrong) : void();
  }
  if (worker_blobs::is_about_blobs(notification.method)) {
    const char* wrong = blobs_->on_notification(notification);
    return wrong ? kill(exit_reason::protocol, std::string(notification.method) + ": " + wrong) : void();
  }
  try {
    const msgpack::object_handle handle = ipc::unpack(notification.params);
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
    } else if (notification.method == "$/deadline") {
      const auto left = std::chrono::milliseconds(params.at(1).as<std::uint32_t>());
      next_deadline_ = {params.at(0).as<std::uint32_t>(), left.count() > 0 ? ipc::clock::now() + left : ipc::never};
    } else if (notification.method == "$/log") {
      const auto level = std::clamp(params.at(0).as<int>(), 0, 3);
      log_->record(static_cast<log_level>(level), params.at(1).as<std::string_view>(), ipc::clock::now());
    } else if (notification.method == "$/event" || notification.method == "$/progress") {
      if (!spend_event_credit()) throw std::runtime_error("more events than it had credit for");
      const bool event = notification.method == "$/event";
      const std::string name = event ? ipc::sanitised(params.at(0).as<std::string_view>(), 256) : "";
      const std::uint32_t id = event ? 0 : params.at(0).as<std::uint32_t>();
      const msgpack::object& value = params.at(1);
      const auto copy = event ? std::make_shared<msgpack::object_handle>(msgpack::clone(value)) : nullptr;
      std::shared_ptr<progress_reports> progress;
      {
        std::lock_guard held(mutex_);
        if (!strand_) strand_.emplace(boost::asio::make_strand(core_->handlers()));
        if (const auto found = progress_.find(id); !event && found != progress_.end()) progress = found->second;
      }
      if (progress) progress->add(value);
      boost::asio::post(*strand_, [self = shared_from_this(), event, name, copy, progress, came] {
        std::vector<unique_fd> none;
        try {
          if (progress) progress->deliver();
          else if (const auto owner = self->owner_.lock(); owner && event)
            owner->on_event(name, copy->get(), came ? came->handles : none);
        } catch (const std::exception& e) {
          self->log_->record(log_level::error, std::string("a handler in the application threw: ") + e.what(),
                             ipc::clock::now());
        }
        self->return_event_credit();
      });
    }
  } catch (const std::exception& e) {
    kill(exit_reason::protocol, "notification " + ipc::sanitised(notification.method, 64) + ": " + e.what());
  }
}

bool worker_process::spend_event_credit() { return events_.fetch_add(1) < event_credit; }

void worker_process::return_event_credit() {
  --events_;
  if (events_to_credit_.fetch_add(1) + 1 < credit_batch) return;
  events_to_credit_ -= credit_batch;
  ipc::buffer credit = ipc::begin_notification("$/credit");
  ipc::packer(credit).pack_array(1).pack(credit_batch);
  channel_.send(credit.take());
}

void worker_process::on_closed(const std::string& violation) {
  if (!violation.empty()) return kill(exit_reason::protocol, violation);
  // Most likely it is exiting: let it, so that its own status is what gets reported.
  kill_at_ = ipc::clock::now() + exit_after_close;
  // If its exit was noticed while another thread was still reading what it left behind, the account is still open.
  schedule(exited_ ? ipc::clock::now() : kill_at_.load());
}

}  // namespace bulkhead
