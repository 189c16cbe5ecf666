// Calls to a worker: how they begin, and what is kept of them meanwhile. See worker_process.hpp.
#include "call_stream.hpp"
#include "progress_reports.hpp"
#include "worker_process.hpp"

namespace bulkhead {
namespace {

// That a call was not begun, or that a worker has gone, the host alone can say: a worker that answers has run the method.
void heed_answer(ipc::completion& result) {
  if (!result.answered) return;
  switch (result.code) {
    case outcome::not_sent:
    case outcome::worker_lost:
    case outcome::protocol:
    case outcome::overloaded:
    case outcome::unavailable: result.code = result.failure.code = outcome::plugin_error; break;
    default: break;
  }
}

}  // namespace

// An asynchronous call inside the channel: keeps the worker, and turns the completion into a reply.
class worker_process::carried_call final : public ipc::async_completion {
 public:
  carried_call(std::shared_ptr<worker_process> worker, std::shared_ptr<call_request> request,
               std::unique_ptr<reply_handler> handler)
      : worker_(std::move(worker)), request_(std::move(request)), handler_(std::move(handler)) {}

  void complete(ipc::completion&& result) override {
    stop_.reset();
    heed_answer(result);
    std::shared_ptr<const crash_report> report;
    if (result.code != outcome::ok) {
      std::lock_guard held(worker_->mutex_);
      report = worker_->report_;
    }
    if (id_) worker_->forget_call(*id_, result.code);
    if (id_ && !result.given_up) worker_->on_late_answer(*id_);
    request_->id = result.id;
    handler_->complete(reply(std::move(result), std::move(report)));
  }

  struct stopper {
    std::weak_ptr<worker_process> worker;
    std::shared_ptr<std::atomic<std::int64_t>> id;
    void operator()() const {
      if (const auto alive = worker.lock(); alive && *id >= 0)
        alive->channel_.abandon(static_cast<std::uint32_t>(id->load()), outcome::cancelled, "cancelled by the caller");
    }
  };

  std::unique_ptr<reply_handler> handler() { return std::move(handler_); }
  std::optional<std::uint32_t> id_;  // when something is kept for the call
  std::optional<std::stop_callback<stopper>> stop_;

 private:
  std::shared_ptr<worker_process> worker_;
  std::shared_ptr<call_request> request_;
  std::unique_ptr<reply_handler> handler_;
};

ipc::channel::started worker_process::begin(call_request& request, ipc::waiter* sync,
                                            std::unique_ptr<ipc::async_completion>* async,
                                            std::optional<std::uint32_t>* known_id) {
  ipc::buffer head = ipc::begin_request(request.method);
  ipc::held_blobs& blobs = request.arguments.blobs;
  if (!blobs.empty() && !blobs_->enabled()) {  // a worker that takes none gets their bytes
    request.arguments.params.bytes() = request.arguments.plain();
    blobs.clear();
  }
  if (!blobs_->prepare(blobs)) return {channel_.closed() ? outcome::not_sent : outcome::overloaded, 0};
  std::vector<unique_fd> handles;
  try {
    for (const unique_fd& handle : request.arguments.handles) handles.push_back(detail::duplicate(handle.get()));
  } catch (const std::system_error&) {
    return {outcome::overloaded, 0};
  }
  std::function<ipc::buffer(std::uint32_t)> before;
  std::optional<std::uint32_t> watched;
  const auto watch = [&](std::uint32_t id) {  // before the first report can come
    watched = id;
    watch_progress(id, request);
    if (!blobs.empty()) blobs_->hold(id, blobs);
    if (kept_.wanted()) keep_request(id, request);
    if (known_id) *known_id = id;
    return request.stream ? bind_stream(id, request.stream) : ipc::buffer();
  };
  if (request.default_deadline && (request.progress || kept_.wanted() || request.stream || !blobs.empty())) {
    before = std::ref(watch);
  } else if (!request.default_deadline) {
    const auto left =
        request.deadline == ipc::never
            ? std::chrono::milliseconds(0)
            : std::max(std::chrono::milliseconds(1),
                       std::chrono::ceil<std::chrono::milliseconds>(request.deadline - ipc::clock::now()));
    before = [&, left](std::uint32_t id) {
      ipc::buffer ahead = watch(id);
      ipc::buffer deadline = ipc::begin_notification("$/deadline");
      ipc::packer(deadline).pack_array(2).pack(id).pack(left.count());
      ahead.append(deadline.view());
      return ahead;
    };
  }
  try {
    return channel_.start(head.bytes(), request.arguments.params.view(), std::move(handles), request.deadline, sync,
                          async, before);
  } catch (const std::bad_alloc&) {  // nothing was sent
    if (watched) {
      forget_call(*watched, outcome::overloaded);
      on_late_answer(*watched);
    }
    throw;
  }
}

std::string worker_process::not_started(outcome code, const call_request& request, const ipc::limits& limits) {
  switch (code) {
    case outcome::rejected:
      return "the call of '" + std::string(request.method) + "' has " +
             std::to_string(request.arguments.params.view().size()) + " bytes of arguments and " +
             std::to_string(request.arguments.handles.size()) + " handles; the limits are " +
             std::to_string(limits.frame) + " bytes and " + std::to_string(limits.handles);
    case outcome::overloaded:
      return "too many calls or bytes wait for this worker, or no descriptor is free; try again later";
    default: return "the worker was gone before the call could be sent";
  }
}

reply worker_process::call(call_request& request) {
  ipc::waiter waiter;
  waiter.interruptible = request.stop.stop_possible();
  const auto started = begin(request, &waiter, nullptr, nullptr);
  if (started.code != outcome::ok)
    return reply(ipc::completion::failed(started.code, not_started(started.code, request, settings_->options.limits)));
  {
    std::stop_callback on_stop(request.stop,
                               [&] { channel_.abandon(started.id, outcome::cancelled, "cancelled by the caller"); });
    auto result = channel_.wait(waiter, request.deadline);
    if (result == ipc::channel::wait_result::closed) {
      await_exit(request.deadline);
      if (!channel_.wait_closed(waiter, request.deadline)) result = ipc::channel::wait_result::deadline;
    }
    if (result == ipc::channel::wait_result::deadline)
      channel_.abandon(started.id, outcome::timeout, "no answer before the deadline");
  }
  heed_answer(waiter.result);
  if (kept_.wanted() || request.progress) forget_call(started.id, waiter.result.code);
  if (!request.arguments.blobs.empty() && !waiter.result.given_up) blobs_->forget(started.id);
  request.id = started.id;
  std::shared_ptr<const crash_report> report;
  if (waiter.result.code != outcome::ok && dead_) {
    std::lock_guard held(mutex_);
    report = report_;
  }
  return reply(std::move(waiter.result), std::move(report));
}

outcome worker_process::async_call(std::shared_ptr<call_request> given, std::unique_ptr<reply_handler>& handler) {
  call_request& request = *given;
  const auto stream = request.stream;  // this and the token for when the call has ended, and the request with it
  const auto stop = request.stop;
  auto carried = std::make_unique<carried_call>(shared_from_this(), std::move(given), std::move(handler));
  carried_call* const raw = carried.get();
  // The id is known only after the call may have ended already; the stop callback looks it up when it runs.
  std::shared_ptr<std::atomic<std::int64_t>> id;
  if (stop.stop_possible()) {
    id = std::make_shared<std::atomic<std::int64_t>>(-1);
    raw->stop_.emplace(stop, carried_call::stopper{weak_from_this(), id});
  }
  std::unique_ptr<ipc::async_completion> async = std::move(carried);
  const auto started = begin(request, nullptr, &async, &raw->id_);
  if (started.code != outcome::ok) {
    handler = static_cast<carried_call&>(*async).handler();
    return started.code;
  }
  if (id) *id = started.id;
  if (stream) stream->catch_up();
  if (stop.stop_requested()) channel_.abandon(started.id, outcome::cancelled, "cancelled by the caller");
  return outcome::ok;
}

bool worker_process::ask(std::string_view request, std::function<void(ipc::completion&&)> answered,
                         ipc::time_point deadline, std::optional<ipc::byte_span> parameter) {
  struct asked final : ipc::async_completion {
    std::function<void(ipc::completion&&)> answered;
    void complete(ipc::completion&& result) override { answered(std::move(result)); }
  };
  auto handler = std::make_unique<asked>();
  handler->answered = std::move(answered);
  std::unique_ptr<ipc::async_completion> async = std::move(handler);
  ipc::buffer frame = ipc::begin_request(request);
  ipc::packer packer(frame);
  packer.pack_array(parameter ? 1 : 0);
  if (parameter)
    packer.pack_bin(static_cast<std::uint32_t>(parameter->size()))
        .pack_bin_body(reinterpret_cast<const char*>(parameter->data()), static_cast<std::uint32_t>(parameter->size()));
  return channel_.start(frame.take(), {}, deadline, nullptr, &async).code == outcome::ok;
}

void worker_process::watch_progress(std::uint32_t id, const call_request& request) {
  if (!request.progress) return;
  std::lock_guard held(mutex_);
  progress_[id] = request.progress;
}

void worker_process::keep_request(std::uint32_t id, const call_request& request) {
  if (request.arguments.blobs.empty()) return kept_.keep(id, request.method, request.arguments.params.view());
  if (request.arguments.size() <= settings_->options.keep_requests)
    kept_.keep(id, request.method, request.arguments.plain());
}

// One that was given up may still be what the worker hangs in.
void worker_process::forget_call(std::uint32_t id, outcome code) {
  if (kept_.wanted() && code != outcome::timeout && code != outcome::cancelled) kept_.forget(id);
  forget_progress(id);
}

void worker_process::forget_progress(std::uint32_t id) {
  std::map<std::uint32_t, std::shared_ptr<progress_reports>>::node_type last;  // the application's, so without the lock
  std::lock_guard held(mutex_);
  last = progress_.extract(id);
}

}  // namespace bulkhead
