// The way of a call through its pool: to a worker, or into the queue; to another worker when it was not begun; out, once.
// See plugin_pool.hpp.
#include "call_stream.hpp"
#include "pool_queue.hpp"
#include "progress_reports.hpp"

#include <algorithm>
#include <exception>

namespace bulkhead {
namespace {

constexpr unsigned most_moves = 10;
constexpr std::size_t most_suspects = 256, most_given_up = 64;
constexpr std::size_t message_overhead = 64;  // of a message around an item, at most

// A call counts once, whatever comes of it.
void end_count(call_request& request, outcome how, std::size_t bytes) {
  if (auto* const counted = std::exchange(request.counted, nullptr))
    counted->end(how, ipc::clock::now() - request.begun, bytes);
}

// Counts a call that an exception ends on its way out: there was no memory for it.
class counted_anyway {
 public:
  explicit counted_anyway(const std::shared_ptr<call_request>& request) : request_(request) {}
  ~counted_anyway() {  // unless somebody else has it, who will
    if (std::uncaught_exceptions() > before_ && request_.use_count() == 1) end_count(*request_, outcome::overloaded, 0);
  }
  counted_anyway(const counted_anyway&) = delete;

 private:
  const std::shared_ptr<call_request>& request_;
  const int before_ = std::uncaught_exceptions();
};

}  // namespace

void plugin_pool::begin(call_request& request, std::string_view method, packed_arguments arguments,
                        const call_options& options) const {
  if (method.starts_with("$/")) throw std::invalid_argument("methods that begin with $/ are reserved");
  request.method = method;
  request.arguments = std::move(arguments);
  for (const auto& each : request.arguments.blobs)
    if (!arguments_->owns(*each)) {  // packed for another plugin
      request.arguments.params.bytes() = request.arguments.plain();
      request.arguments.blobs.clear();
      break;
    }
  const auto limit = options.deadline.value_or(options_.deadline);
  const auto now = ipc::clock::now();
  const auto own = limit >= ipc::never - now ? ipc::never : now + limit;
  request.deadline = std::min(own, current_deadline());
  request.default_deadline = limit == options_.deadline && request.deadline == own;
  request.stop = options.stop;
  request.key = options.key;
  if (options.on_progress) request.progress = std::make_shared<progress_reports>(options.on_progress, core_, name_);
  request.begun = now;
  request.counted = &meter_.of(method);
  request.counted->begin(request.arguments.size());
}

void plugin_pool::count_end(call_request& request, const reply& result) {
  if (request.progress) request.progress->close();
  end_count(request, request.stream ? request.stream->settle(result.outcome()) : result.outcome(), result.size());
}

// Of a call in this process.
class plugin_pool::counted_handler final : public reply_handler {
 public:
  counted_handler(std::shared_ptr<plugin_pool> pool, std::shared_ptr<call_request> request,
                  std::unique_ptr<reply_handler> handler)
      : pool_(std::move(pool)), request_(std::move(request)), handler_(std::move(handler)) {}
  void complete(reply&& result) override {
    count_end(*request_, result);
    handler_->complete(std::move(result));
  }

 private:
  const std::shared_ptr<plugin_pool> pool_;  // has the counters
  const std::shared_ptr<call_request> request_;
  const std::unique_ptr<reply_handler> handler_;
};

// Whether a call that came back goes to another worker: it was provably not begun, or its method may be repeated.
bool plugin_pool::goes_on(const call_request& request, const reply& result, worker_set::member& worker,
                          attempts& so_far) {
  if (result.outcome() == outcome::timeout || result.outcome() == outcome::cancelled) {
    if (!may_be_noted(request)) return false;
    const std::size_t mark = fingerprint(request);
    std::lock_guard held(*mutex_);
    worker.given_up.push_back({request.id, mark, std::string(request.method)});
    if (worker.given_up.size() > most_given_up) worker.given_up.pop_front();
    return false;
  }
  const bool not_begun = result.outcome() == outcome::not_sent;
  if (!not_begun && result.outcome() != outcome::worker_lost) return false;
  const bool movable = !request.stream || request.stream->restart();
  if (not_begun) return movable && ++so_far.moved <= most_moves;
  ++so_far.lost;
  std::lock_guard held(*mutex_);
  // Only the one that it died in: others that were begun are most likely innocent.
  if (may_be_noted(request) && worker.process->fatal_call() == request.id)
    note_killer(fingerprint(request), request.method);
  const unsigned most = options_.poison_limit > 0 ? options_.poison_limit : load_options().poison_limit;
  // By the word of the version that had it: another may have taken its place.
  return movable && so_far.lost < most && worker.process->idempotent(request.method);
}

std::size_t plugin_pool::fingerprint(const call_request& request) {
  const auto plain = request.arguments.blobs.empty() ? std::vector<std::uint8_t>() : request.arguments.plain();
  const auto params = plain.empty() ? request.arguments.params.view() : ipc::byte_span(plain);
  const std::hash<std::string_view> hash;
  return hash(request.method) * 31 + hash({reinterpret_cast<const char*>(params.data()), params.size()});
}

// Its outcome has been told long ago.
void plugin_pool::on_hung(const worker_set::member& worker) {
  const auto call = worker.process ? worker.process->fatal_call() : std::nullopt;
  std::lock_guard held(*mutex_);
  for (const auto& each : worker.given_up)
    if (call == each.id) return note_killer(each.fingerprint, each.method);
}

bool plugin_pool::may_be_noted(const call_request& request) const {
  return options_.poison_limit > 0 && request.arguments.handles.empty();
}

void plugin_pool::note_killer(std::size_t fingerprint, std::string_view method) {
  const auto now = ipc::clock::now();
  std::erase_if(suspects_, [&](const auto& each) { return now - each.second.since > poison_memory; });
  if (suspects_.size() >= most_suspects)
    suspects_.erase(std::min_element(suspects_.begin(), suspects_.end(),
                                     [](const auto& a, const auto& b) { return a.second.since < b.second.since; }));
  suspect& found = suspects_[fingerprint];
  found.since = now;
  if (++found.killed != options_.poison_limit) return;
  core_->lifecycle({.kind = lifecycle_event::kind::poisoned, .plugin = name_, .text = std::string(method)});
}

reply plugin_pool::call(std::string_view method, packed_arguments arguments, const call_options& options) {
  call_request request;
  begin(request, method, std::move(arguments), options);
  struct scope {  // whatever comes of it
    call_request& request;
    ~scope() {
      if (request.progress) request.progress->end();
      end_count(request, outcome::overloaded, 0);  // of an exception: there was no memory
    }
  } const ended{request};
  reply result = local_ ? local_->call(request) : call_worker(request);
  count_end(request, result);
  return result;
}

reply plugin_pool::call_worker(call_request& request) {
  attempts so_far;
  for (bool again = false;; again = true) {
    ipc::completion failure;
    const lease worker = acquire(request, again, failure);
    if (!worker) return reply(std::move(failure));
    std::optional<reply> result;
    bool goes = false;
    try {
      result = worker->process->call(request);
      goes = result->outcome() != outcome::ok && goes_on(request, *result, *worker, so_far);
    } catch (...) {
      release(worker);
      throw;
    }
    release(worker);  // after what it has done is noted: the next in the queue may be its like
    if (!goes) return std::move(*result);
  }
}

std::shared_ptr<call_request> plugin_pool::begin(std::string_view method, packed_arguments arguments,
                                                 const call_options& options) const {
  auto request = std::allocate_shared<call_request>(ipc::recycling_allocator<call_request>());
  request->name = method;
  begin(*request, request->name, std::move(arguments), options);
  return request;
}

void plugin_pool::async_call(std::string_view method, packed_arguments arguments, const call_options& options,
                             std::unique_ptr<reply_handler> handler) {
  const auto request = begin(method, std::move(arguments), options);
  const counted_anyway guard(request);
  if (local_) {
    return local_->async_call(request,
                              std::make_unique<counted_handler>(shared_from_this(), request, std::move(handler)));
  }
  submit(std::make_unique<pooled_call>(shared_from_this(), request, std::move(handler)), false);
}

std::size_t plugin_pool::most_window() const {
  return std::min(ipc::most_stream_window, options_.limits.frame - std::min(options_.limits.frame, message_overhead));
}

std::shared_ptr<call_stream> plugin_pool::open(std::string_view method, packed_arguments arguments,
                                               const call_options& options) {
  if (options.stream_window == 0 || options.stream_window > most_window())
    throw std::invalid_argument("call_options::stream_window must be from 1 to " + std::to_string(most_window()));
  const auto request = begin(method, std::move(arguments), options);
  const counted_anyway guard(request);
  request->stream =
      std::make_shared<call_stream>(core_, core_->needs_help() && !local_, options.stream_window, request->deadline);
  request->stop = request->stream->token();
  request->stream->heed(options.stop);
  start_stream(request, std::make_unique<call_stream::handler>(request->stream));
  return request->stream;
}

std::shared_ptr<call_stream> plugin_pool::relay(std::string_view method, packed_arguments arguments,
                                                const call_options& options, std::shared_ptr<ipc::stream::link> onward,
                                                std::unique_ptr<reply_handler> handler) {
  const auto request = begin(method, std::move(arguments), options);
  const counted_anyway guard(request);
  request->stream =
      std::make_shared<call_stream>(core_, false, std::min(options.stream_window, most_window()), request->deadline);
  request->stream->relay(std::move(onward));
  start_stream(request, std::move(handler));
  return request->stream;
}

void plugin_pool::start_stream(const std::shared_ptr<call_request>& request, std::unique_ptr<reply_handler> handler) {
  if (local_) local_->open(request, std::make_unique<counted_handler>(shared_from_this(), request, std::move(handler)));
  else submit(std::make_unique<pooled_call>(shared_from_this(), request, std::move(handler)), false);
}

void plugin_pool::submit(std::unique_ptr<pooled_call> call, bool again) {
  std::optional<ipc::completion> refused;
  lease chosen;
  std::uint64_t ticket = 0;
  {
    std::lock_guard held(*mutex_);
    const call_request& request = *call->request();
    refused = refusal(request);
    if (!refused && (queue_.empty() || again)) chosen = choose(request);
    if (chosen) ++chosen->in_progress;
    else if (!refused && !again) refused = overload(request);
    ticket = ++last_ticket_;
  }
  if (refused) return call->finish(reply(std::move(*refused)));
  if (chosen) return launch(chosen, std::move(call));
  const auto request = call->request();  // it may end as soon as it is in the queue
  // A stop that comes before the call is in the queue finds nothing there; so it is looked for once more afterwards.
  std::unique_ptr<std::stop_callback<waiting::stopper>> stop;
  if (request->stop.stop_possible())
    stop = std::make_unique<std::stop_callback<waiting::stopper>>(request->stop,
                                                                  waiting::stopper{weak_from_this(), ticket});
  {
    std::lock_guard held(*mutex_);
    queue_.insert(again ? queue_.begin() : queue_.end(),
                  {request.get(), ticket, nullptr, std::move(call), std::move(stop), {queued_bytes_, *request}});
    wake_by(request->deadline);
  }
  if (request->stop.stop_requested()) abandon_waiting(ticket);
  on_change();
}

void plugin_pool::launch(const lease& worker, std::unique_ptr<pooled_call> call) {
  call->worker = worker;
  auto request = call->request();
  std::unique_ptr<reply_handler> handler = std::move(call);
  const outcome code = worker->process->async_call(std::move(request), handler);
  if (code == outcome::ok) return;
  const call_request& failed = *static_cast<pooled_call&>(*handler).request();
  handler->complete(
      reply(ipc::completion::failed(code, worker_process::not_started(code, failed, worker->process->limits()))));
}

void plugin_pool::abandon_waiting(std::uint64_t ticket) {
  std::optional<waiting> found;
  {
    std::lock_guard held(*mutex_);
    const auto mine =
        std::find_if(queue_.begin(), queue_.end(), [&](const waiting& each) { return each.ticket == ticket; });
    if (mine == queue_.end()) return;
    found.emplace(std::move(*mine));
    queue_.erase(mine);
  }
  found->async->finish(reply(ipc::completion::failed(outcome::cancelled, "cancelled by the caller")));
}

// One timer, however many calls come and go.
void plugin_pool::wake_by(ipc::time_point deadline) {
  if (deadline >= next_timer_) return;
  next_timer_ = deadline;
  core_->reactor->schedule(deadline, weak_from_this());
}

// Asynchronous calls whose deadline passed while they waited.
void plugin_pool::on_timer() {
  std::vector<waiting> late;
  {
    std::lock_guard held(*mutex_);
    const auto now = ipc::clock::now();
    if (now < next_timer_) return;  // one that an earlier one has made needless
    ipc::time_point next = ipc::never;
    for (auto each = queue_.begin(); each != queue_.end();) {
      const bool due = each->async && each->request->deadline <= now;
      if (due) late.push_back(std::move(*each));
      else if (each->async) next = std::min(next, each->request->deadline);
      each = due ? queue_.erase(each) : std::next(each);
    }
    next_timer_ = ipc::never;
    wake_by(next);
  }
  for (waiting& each : late)
    each.async->finish(reply(ipc::completion::failed(outcome::timeout, "no worker was free before the deadline")));
}

}  // namespace bulkhead
