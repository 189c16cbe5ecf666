// See in_process.hpp.
#include "in_process.hpp"

#include "call_stream.hpp"
#include "progress_reports.hpp"
#include <bulkhead/ipc/channel.hpp>

#include <condition_variable>

namespace bulkhead {

// The caller's side of a call: shared by the waiting thread and the plugin, which may answer later.
struct in_process_instance::pending {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  bool given_up = false;
  ipc::completion result;
  std::shared_ptr<progress_reports> progress;
  std::atomic<bool> cancelled{false};
  std::shared_ptr<ipc::stream> stream;  // the plugin's end

  void finish(ipc::completion&& completion) {
    std::lock_guard held(mutex);
    if (done) return;
    result = std::move(completion);
    done = true;
    changed.notify_all();
  }
};

namespace {

// Two ends of a stream in one process.
class direct_link final : public ipc::stream::link {
 public:
  explicit direct_link(std::weak_ptr<ipc::stream> to) : to_(std::move(to)) {}
  void item(ipc::byte_span value) override {
    if (const auto to = to_.lock()) to->on_item(value);
  }
  void more(std::size_t bytes) override {
    if (const auto to = to_.lock()) to->on_more(bytes);
  }
  void end() override {
    if (const auto to = to_.lock()) to->on_end();
  }

 private:
  const std::weak_ptr<ipc::stream> to_;
};

// The plugin's call carries a share of the pending call in its tag.
template <class T>
std::shared_ptr<T>& share_of(bulkhead_call& call) {
  return *reinterpret_cast<std::shared_ptr<T>*>(call.tag);
}

}  // namespace

in_process_instance::in_process_instance(std::shared_ptr<host_core> core, std::string name, const std::string& path,
                                         unique_fd file, load_options options, std::weak_ptr<instance_owner> owner)
    : core_(std::move(core)),
      name_(std::move(name)),
      options_(std::move(options)),
      owner_(std::move(owner)),
      runtime_(*this) {
  try {
    runtime_.check(file.get());
    for (const std::string& each : options_.environment)
      if (each.starts_with("BULKHEAD_INSTRUMENT=")) runtime_.watch(each.substr(each.find('=') + 1));
    // Pinned to its contents, it is loaded from the copy that was hashed. The loader knows what it has loaded by name and
    // never lets go of it, so the descriptor stays open: another plugin must not be given this one's name.
    runtime_.load(options_.sha256.empty()
                      ? path
                      : "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(file.release()));
    runtime_.init();
  } catch (const std::exception& e) {
    throw call_error(outcome::unavailable, "plugin " + name_ + " could not start in-process: " + e.what());
  }
  ipc::buffer packed;
  ipc::packer packer(packed);
  runtime_.pack_description(packer);
  const msgpack::object_handle handle = ipc::unpack(packed.view());
  description_ = read_description(handle.get());
}

bool in_process_instance::admit() {
  std::lock_guard held(idle_mutex_);
  if (!closing_) ++outstanding_;
  return !closing_;
}

std::string in_process_instance::reentered() const {
  return "plugin " + name_ +
         " runs in this process, one call at a time: a function lent to it can't use it while it waits";
}

void in_process_instance::refuse_reentry() const {
  if (on_dispatch_thread()) throw call_error(outcome::rejected, reentered());
}

reply in_process_instance::call(call_request& request) {
  if (on_dispatch_thread()) return reply(ipc::completion::failed(outcome::rejected, reentered()));
  if (!admit()) return reply(ipc::completion::failed(outcome::unavailable, unloaded()));
  auto waiting = std::make_shared<pending>();
  waiting->progress = request.progress;
  if (request.stream) {
    waiting->stream =
        std::make_shared<ipc::stream>(ipc::default_stream_window, false, request.stream->window(), request.deadline);
    waiting->stream->attach(std::make_shared<direct_link>(request.stream));
    request.stream->attach(std::make_shared<direct_link>(waiting->stream));
    request.stream->catch_up();
  }
  std::stop_callback on_stop(request.stop, [waiting] {
    waiting->cancelled = true;
    waiting->finish(ipc::completion::failed(outcome::cancelled, "cancelled by the caller"));
    if (waiting->stream) waiting->stream->stop(true);
  });
  {
    const std::lock_guard dispatch(dispatch_);
    if (ended_) {  // while this waited for its turn
      ended_one();
      return reply(ipc::completion::failed(outcome::unavailable, unloaded()));
    }
    if (const std::lock_guard held(waiting->mutex); waiting->done) {  // the same: it has been cancelled
      ended_one();
      return reply(std::move(waiting->result));
    }
    auto call = std::make_unique<bulkhead_call>();
    call->tag = reinterpret_cast<std::uint64_t>(new std::shared_ptr<pending>(waiting));
    call->blobs = static_cast<unsigned>(request.arguments.blobs.size());
    call->held = std::move(request.arguments.blobs);
    call->storage.bytes = request.arguments.params.take();
    call->arguments = call->storage.bytes;
    call->handles = std::move(request.arguments.handles);
    call->deadline = request.deadline;
    call->stream = waiting->stream;
    runtime_.invoke(std::move(call), request.method);
  }
  std::unique_lock held(waiting->mutex);
  const auto done = [&] { return waiting->done; };
  if (request.deadline == ipc::never) waiting->changed.wait(held, done);
  else if (!waiting->changed.wait_until(held, request.deadline, done)) {
    waiting->done = true;
    waiting->cancelled = true;
    waiting->result = ipc::completion::failed(outcome::timeout, "no answer before the deadline");
  }
  return reply(std::move(waiting->result));
}

void in_process_instance::async_call(const std::shared_ptr<call_request>& request,
                                     std::unique_ptr<reply_handler> handler) {
  if (ended_) return handler->complete(reply(ipc::completion::failed(outcome::unavailable, unloaded())));
  auto carried = std::make_shared<std::unique_ptr<reply_handler>>(std::move(handler));
  boost::asio::post(core_->handlers(),
                    [self = shared_from_this(), request, carried] { (*carried)->complete(self->call(*request)); });
}

void in_process_instance::open(const std::shared_ptr<call_request>& request, std::unique_ptr<reply_handler> handler) {
  std::list<streaming> done;  // joined below
  std::lock_guard held(streaming_mutex_);
  for (auto each = streaming_.begin(); each != streaming_.end();)
    if (const auto next = std::next(each); each->done) done.splice(done.end(), streaming_, std::exchange(each, next));
    else each = next;
  if (ended_) return handler->complete(reply(ipc::completion::failed(outcome::unavailable, unloaded())));
  streaming& added = streaming_.emplace_back();
  added.stream = request->stream;
  added.thread = std::jthread([this, &added, request, handler = std::move(handler)]() mutable {
    handler->complete(call(*request));
    handler.reset();
    added.done = true;
  });
}

void in_process_instance::ended_one() {
  std::lock_guard held(idle_mutex_);
  if (--outstanding_ == 0) idle_.notify_all();
}

void in_process_instance::answer(bulkhead_call& call, ipc::byte_span result) {
  if (call.stream) call.stream->stop_saying();
  std::unique_ptr<std::shared_ptr<pending>> share(&share_of<pending>(call));
  ipc::completion completion;
  completion.frame.assign(result.begin(), result.end());
  completion.result_size = result.size();
  {
    std::lock_guard held(call.attaching);
    completion.handles.swap(call.attached);
  }
  ended_one();
  (*share)->finish(std::move(completion));
}

void in_process_instance::fail(bulkhead_call& call, ipc::call_failure failure) {
  if (call.stream) call.stream->stop_saying();
  std::unique_ptr<std::shared_ptr<pending>> share(&share_of<pending>(call));
  ipc::completion completion;
  completion.code = failure.code;
  completion.failure = std::move(failure);
  ended_one();
  (*share)->finish(std::move(completion));
}

void in_process_instance::progress(bulkhead_call& call, ipc::byte_span value) {
  if (call.answered) return;
  const std::shared_ptr<pending> waiting = share_of<pending>(call);
  call.cancelled = call.cancelled || waiting->cancelled;
  if (!waiting->progress) return;
  waiting->progress->add(value);
  callbacks_.post([progress = waiting->progress] { progress->deliver(); });
}

void in_process_instance::poll(bulkhead_call& call) {
  if (share_of<pending>(call)->cancelled) call.cancelled = true;
}

void in_process_instance::log(int level, std::string_view text) {
  if (const auto owner = owner_.lock())
    owner->on_log(static_cast<log_level>(std::clamp(level, 0, 3)), ::getpid(), ipc::sanitised(text), 0);
}

bool in_process_instance::emit(std::string_view name, ipc::byte_span value, std::vector<unique_fd> handles) {
  const auto owner = owner_.lock();
  if (!owner) return false;
  auto copy = std::make_shared<std::vector<std::uint8_t>>(value.begin(), value.end());
  auto passed = std::make_shared<std::vector<unique_fd>>(std::move(handles));
  return callbacks_.post([core = core_, plugin = name_, owner, name = std::string(name), copy, passed] {
    core->run(plugin, [&] {
      const msgpack::object_handle handle = ipc::unpack(*copy);
      owner->on_event(name, handle.get(), *passed);
    });
  });
}

ipc::completion in_process_instance::call_host(bulkhead_call* on_behalf_of, std::string_view function,
                                               ipc::byte_span arguments, std::vector<unique_fd> handles) {
  return run_function(options_.functions, std::string(function), arguments, handles,
                      on_behalf_of ? on_behalf_of->deadline : ipc::never);
}

std::optional<ipc::byte_span> in_process_instance::open_blob(bulkhead_call& call,
                                                             const ipc::blob_reference& reference) {
  for (const auto& each : call.held)
    if (const auto& it = each->reference(); it.arena == reference.arena && it.offset == reference.offset)
      return each->bytes();
  return std::nullopt;
}

std::optional<ipc::snapshot> in_process_instance::published(const std::string& name) {
  return may_read(options_.published, name) ? core_->published.find(name) : std::nullopt;
}

std::vector<std::uint8_t> in_process_instance::save_state() {
  refuse_reentry();
  const std::lock_guard dispatch(dispatch_);
  if (ended_) throw call_error(outcome::unavailable, unloaded());
  try {
    return runtime_.save_state();
  } catch (const std::exception& e) {
    throw call_error(outcome::plugin_error, "plugin " + name_ + ": its state was not saved: " + e.what());
  }
}

void in_process_instance::restore_state(ipc::byte_span state) {
  const std::lock_guard dispatch(dispatch_);
  if (ended_) throw call_error(outcome::unavailable, unloaded());
  try {
    runtime_.restore_state(state);
  } catch (const std::exception& e) {
    throw call_error(outcome::unavailable,
                     "plugin " + name_ + " could not start in-process: could not restore its state: " + e.what());
  }
}

void in_process_instance::end(ipc::time_point deadline) {
  {
    std::unique_lock held(idle_mutex_);
    closing_ = true;
    idle_.wait_until(held, deadline, [this] { return outstanding_ == 0; });
  }
  std::list<streaming> streams;
  {
    std::lock_guard held(streaming_mutex_);
    if (ended_.exchange(true)) return;
    streams.swap(streaming_);
  }
  for (const streaming& each : streams)
    if (const auto open = each.stream.lock()) open->cancel();
  streams.clear();  // waits for their threads
  const std::lock_guard dispatch(dispatch_);
  try {
    runtime_.destroy();
  } catch (const std::exception& e) {
    log(BULKHEAD_LOG_ERROR, std::string("its destroy() threw: ") + e.what());
  } catch (...) {
    log(BULKHEAD_LOG_ERROR, "its destroy() threw");
  }
  callbacks_.close();
}

}  // namespace bulkhead
