// See session.hpp. The thread that reads the channel (the dispatch thread when idle, a plugin's thread while it waits
// for the host) only sorts messages into the queue; only the dispatch thread takes them up.
#include "session.hpp"

#include "crash_handler.hpp"
#include <bulkhead/error.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace bulkhead {
namespace {

ipc::limits worker_limits() {
  ipc::limits limits;
  limits.frame = std::size_t{1} << 30;  // the host keeps its own limits; it is trusted
  limits.depth = ipc::scanner::max_depth;
  limits.queued_calls = 4096;
  return limits;
}

// What comes before the result in a response; written by hand, for it is on the way of every call.
struct response_head {
  explicit response_head(std::uint32_t id) {
    bytes = {0x94, 0x01};
    const unsigned length = id < 0x80 ? 0 : id <= 0xff ? 1 : id <= 0xffff ? 2 : 4;
    if (length > 0) bytes[size++] = length == 1 ? 0xcc : length == 2 ? 0xcd : 0xce;
    for (unsigned shift = length > 0 ? 8 * length : 8; shift > 0; shift -= 8)
      bytes[size++] = static_cast<std::uint8_t>(id >> (shift - 8));
    bytes[size++] = 0xc0;
  }
  ipc::byte_span view() const { return {bytes.data(), size}; }

  std::array<std::uint8_t, 8> bytes{};
  std::size_t size = 2;
};

constexpr std::size_t log_line_limit = 4096;
constexpr unsigned most_threads = 64;
constexpr const char* cancelled_with_call = "the call it was made for was cancelled";
constexpr std::size_t message_overhead = 64;  // of a message around a value, at most

}  // namespace

session::session(unique_fd socket, black_box* box, bool may_send_handles, lane_descriptors lanes)
    : box_(box),
      may_send_handles_(may_send_handles),
      runtime_(*this),
      channel_(make_transport(std::move(socket), std::move(lanes)), worker_limits(), *this, nullptr),
      dispatch_thread_(std::this_thread::get_id()) {
  runtime_.on_method = [this](const char* method, std::uint64_t tag) {
    if (!box_) return;
    const auto call = static_cast<std::uint32_t>(tag);
    note_method(method, call);
    if (method) {
      std::strncpy(box_->method, method, sizeof box_->method - 1);
      box_->call.store(call, std::memory_order_relaxed);
    }
    box_->in_call.fetch_add(method ? 1u : ~0u, std::memory_order_relaxed);
  };
}

// Before anything of the plugin's is here: what is mapped for writing now can't be mapped so once more, by anybody.
std::unique_ptr<ipc::transport> session::make_transport(unique_fd socket, lane_descriptors lanes) {
  auto plain = std::make_unique<ipc::socket_transport>(std::move(socket), worker_limits().handles);
  if (!lanes.in || !lanes.out) return plain;
  ipc::lane_memory mine(lanes.out.get(), true), theirs(lanes.in.get(), false);
  ipc::lane_memory::seal(lanes.out.get());
  auto made = std::make_unique<ipc::lane_transport>(std::move(plain), std::move(mine), std::move(theirs), false);
  lanes_ = made.get();
  return made;
}

void session::enter(std::uint32_t phase) {
  if (box_) box_->phase.store(phase, std::memory_order_relaxed);
}

bool session::say_hello() {
  channel_.run([this] { return work_.load(); });
  std::unique_lock held(mutex_);
  if (queue_.empty() || queue_.front().method != "$/hello") return false;
  queued hello = queue_.pop();
  work_ = !queue_.empty();
  held.unlock();
  bool by_lane = false;
  unsigned published = 0;
  try {
    const msgpack::object_handle params = ipc::unpack(hello.params);
    const auto options = params.get().as<std::vector<std::map<std::string, msgpack::object>>>().at(0);
    if (options.at("protocol").as<int>() != ipc::protocol_version) {
      channel_.send(
          ipc::make_error_response(hello.id, {outcome::unavailable, "this worker speaks protocol version 1 only", {}})
              .take());
      return false;
    }
    if (const auto found = options.find("deadline_ms"); found != options.end())
      default_deadline_ = std::chrono::milliseconds(found->second.as<std::int64_t>());
    if (const auto found = options.find("concurrency"); found != options.end())
      concurrency_ = std::clamp(found->second.as<unsigned>(), 1u, most_threads);
    if (const auto found = options.find("event_credit"); found != options.end())
      first_credit_ = found->second.as<std::int64_t>();
    if (const auto found = options.find("frame_limit"); found != options.end())
      frame_limit_ = found->second.as<std::size_t>();
    if (const auto found = options.find("lanes"); found != options.end() && lanes_) {
      const auto lanes = found->second.as<std::map<std::string, double>>();
      lanes_->configure({.spin = std::chrono::nanoseconds(static_cast<std::int64_t>(lanes.at("spin_us") * 1000)),
                         .cpu_budget = lanes.at("cpu_budget")});
      by_lane = true;
    }
    if (const auto found = options.find("published"); found != options.end()) published = found->second.as<unsigned>();
    if (const auto found = options.find("blob_threshold"); found != options.end())
      blob_threshold_ = found->second.as<std::size_t>();
  } catch (const std::exception& e) {
    channel_.send(
        ipc::make_error_response(hello.id, {outcome::rejected, "$/hello: its parameter is not as expected", {}})
            .take());
    return false;
  }
  ipc::buffer result;
  ipc::packer(result).pack_map(4).pack("protocol").pack(ipc::protocol_version).pack("name").pack("bulkhead-worker");
  ipc::packer(result).pack("lanes").pack(by_lane).pack("blobs").pack(blob_threshold_ > 0);
  if (!channel_.send(ipc::make_response(hello.id, result.view()).take())) return false;
  if (by_lane) channel_.engage();                               // the host says nothing until it has this answer
  channel_.run([&] { return published_count_ >= published; });  // what the plugin may look for at once
  return true;
}

void session::start_plugin(int fd, const std::string& path, const std::function<void()>& seal) {
  auto step = [&](phase next, auto&& action) {
    enter(static_cast<std::uint32_t>(next));
    auto leave = [&](outcome code, const char* why) {
      if (box_) std::strncpy(box_->message, why, sizeof box_->message - 1);
      notify("$/leaving", [&](ipc::packer& packer) {
        packer.pack_array(1).pack_map(2).pack("code").pack(to_string(code)).pack("message").pack(why);
      });
      ::_exit(1);
    };
    try {
      action();
    } catch (const not_a_plugin& e) {
      leave(outcome::rejected, e.what());
    } catch (const std::exception& e) {
      leave(outcome::unavailable, e.what());
    }
  };
  const bool probe = std::getenv("BULKHEAD_PROBE") != nullptr;  // the host wants the manifest and nothing else
  step(phase::sandbox, seal);
  step(phase::load, [&] {
    if (fd < 0) throw std::runtime_error("no plugin was given");
    runtime_.check(fd);
    if (!runtime_.read().thread_safe) concurrency_ = 1;
    if (const char* instructions = std::getenv("BULKHEAD_INSTRUMENT")) runtime_.watch(instructions);
    if (!probe) runtime_.load(path);
  });
  if (!probe) step(phase::init, [&] { runtime_.init(); });
  enter(static_cast<std::uint32_t>(phase::ready));
  notify("$/ready", [&](ipc::packer& packer) {
    packer.pack_array(1);
    runtime_.pack_description(packer, concurrency_);
  });
}

bool session::serve() {
  std::vector<std::jthread> others;
  try {
    for (unsigned i = 1; i < concurrency_; ++i)
      others.emplace_back([this] {
        const crash_stack stack;
        dispatch();
      });
  } catch (const std::system_error& e) {
    log(BULKHEAD_LOG_WARNING, "only " + std::to_string(others.size() + 1) + " dispatch threads: " + e.what());
  }
  return dispatch();
}

bool session::dispatch() {
  for (;;) {
    std::unique_lock held(mutex_);
    if (!queue_.empty()) {
      take_up(held, queue_.pop());
      continue;
    }
    work_ = false;
    held.unlock();
    if (shutdown_) return true;
    if (channel_.closed()) return false;
    channel_.run([this] { return work_ || shutdown_; });
  }
}

// Gives the lock back. Until then the call is among those that are begun: a cancellation finds it here or in the queue.
void session::take_up(std::unique_lock<std::mutex>& held, queued request) {
  if (request.method.starts_with("$/")) {
    held.unlock();
    return take_up_reserved(request);
  }
  // In the order in which they were sent, whichever thread takes them.
  if (box_) box_->begun.fetch_add(1, std::memory_order_relaxed);
  if (request.cancelled) {
    held.unlock();
    forget_stream(request.id);
    channel_.send(ipc::make_error_response(request.id, {outcome::cancelled, "cancelled before it began", {}}).take());
    return;
  }
  auto call = std::make_unique<bulkhead_call>();
  call->tag = request.id;
  call->storage.bytes = std::move(request.bytes);
  call->arguments = request.params;
  call->handles = std::move(request.handles);
  call->deadline = request.deadline;
  call->stream = std::move(request.stream);
  call->blobs = request.blobs;
  calls_.push_back(call.get());
  held.unlock();
  runtime_.invoke(std::move(call), request.method);
}

void session::take_up_reserved(const queued& request) {
  ipc::buffer result;
  ipc::packer packer(result);
  if (request.method == "$/ping") {
    packer.pack_nil();
  } else if (request.method == "$/describe") {
    runtime_.pack_description(packer, concurrency_);
  } else if (request.method == "$/drain") {
    std::lock_guard held(mutex_);
    if (!calls_.empty()) return drains_.push_back(request.id);
    packer.pack_nil();
  } else if (request.method == "$/save_state") {
    return save_state(request.id);
  } else if (request.method == "$/restore_state") {
    restore_state(request.params);
    packer.pack_nil();
  } else {
    channel_.send(
        ipc::make_error_response(request.id, {outcome::rejected, "no such request: " + std::string(request.method), {}})
            .take());
    return;
  }
  channel_.send(ipc::make_response(request.id, result.view()).take());
}

void session::save_state(std::uint32_t id) {
  const auto refuse = [&](outcome code, const std::string& why) {
    channel_.send(ipc::make_error_response(id, {code, why, {}}).take());
  };
  try {
    const std::vector<std::uint8_t> state = runtime_.save_state();
    if (state.size() + message_overhead > frame_limit_)
      return refuse(outcome::plugin_error, too_large("the state", state.size()));
    ipc::buffer result;
    ipc::packer(result)
        .pack_bin(static_cast<std::uint32_t>(state.size()))
        .pack_bin_body(reinterpret_cast<const char*>(state.data()), static_cast<std::uint32_t>(state.size()));
    channel_.send(ipc::make_response(id, result.view()).take());
  } catch (const std::exception& e) {
    refuse(outcome::plugin_error, e.what());
  }
}

// A worker without the state that it should have is of no use: it ends, and its report says why.
void session::restore_state(ipc::byte_span params) {
  try {
    const msgpack::object_handle handle = ipc::unpack(params);
    const auto state = handle.get().as<std::vector<msgpack::object>>().at(0).via.bin;
    runtime_.restore_state({reinterpret_cast<const std::uint8_t*>(state.ptr), state.size});
  } catch (const std::exception& e) {
    const std::string why = std::string("could not restore its state: ") + e.what();
    if (box_) std::strncpy(box_->message, why.c_str(), sizeof box_->message - 1);
    ::_exit(1);
  }
}

// --- messages from the host, on the reading thread ------------------------------------------------------------------

void session::on_request(const ipc::message& request, std::vector<unique_fd> handles) {
  queued added;
  added.id = request.id;
  added.bytes = ipc::take_spare_bytes();
  added.bytes.reserve(request.method.size() + request.params.size());
  added.bytes.assign(request.method.begin(), request.method.end());
  added.bytes.insert(added.bytes.end(), request.params.begin(), request.params.end());
  added.method = {reinterpret_cast<const char*>(added.bytes.data()), request.method.size()};
  added.params = ipc::byte_span(added.bytes).subspan(request.method.size());
  added.handles = std::move(handles);
  added.blobs = request.blobs;
  {
    std::lock_guard held(mutex_);
    const auto given = std::find_if(next_deadlines_.begin(), next_deadlines_.end(),
                                    [&](const auto& each) { return each.first == request.id; });
    if (given != next_deadlines_.end()) {
      added.deadline = given->second;
      next_deadlines_.erase(given);
    } else if (default_deadline_.count() > 0) {
      added.deadline = ipc::clock::now() + default_deadline_;
    }
    added.stream = open_stream(request.id, added.deadline);
    queue_.push(std::move(added));
    work_ = true;
  }
  if (concurrency_ > 1 || std::this_thread::get_id() != dispatch_thread_) channel_.wake();
}

void session::expect_deadline(std::uint32_t id, std::chrono::milliseconds limit) {
  std::lock_guard held(mutex_);
  next_deadlines_.emplace_back(id, limit.count() > 0 ? ipc::clock::now() + limit : ipc::never);
}

void session::on_notification(const ipc::message& notification, std::vector<unique_fd> handles) {
  if (ipc::is_about_stream(notification.method)) return tell_stream(notification);
  if (notification.method == "$/deadline") {  // it may come with every call: no objects are made for it if possible
    ipc::byte_span rest = notification.params;
    ipc::take_array(rest);
    const auto id = ipc::take_unsigned(rest), limit = ipc::take_unsigned(rest);
    if (id && limit) return expect_deadline(*id, std::chrono::milliseconds(*limit));
  }
  try {
    const msgpack::object_handle handle = ipc::unpack(notification.params);
    if (tell_arenas(notification.method, handle.get(), handles)) return;
    const auto params = handle.get().as<std::vector<msgpack::object>>();
    if (notification.method == "$/cancel") {
      cancel(params.at(0).as<std::uint32_t>());
    } else if (notification.method == "$/deadline") {
      expect_deadline(params.at(0).as<std::uint32_t>(), std::chrono::milliseconds(params.at(1).as<std::int64_t>()));
    } else if (notification.method == "$/open") {
      // An item goes in a message of its own, whatever the host would keep.
      const std::size_t window = std::min(params.at(1).as<std::size_t>(), frame_limit_ - message_overhead);
      std::lock_guard held(mutex_);
      next_windows_[params.at(0).as<std::uint32_t>()] = window;
    } else if (notification.method == "$/credit") {
      more_credit_ += params.at(0).as<std::int64_t>();
      channel_.wake();
    } else if (notification.method == "$/shutdown") {
      shutdown_ = true;
      channel_.wake();
    }
  } catch (const std::exception&) {
    // A notification that this version can't read is not for it.
  }
}

void session::on_closed(const std::string&) {
  // The host is gone. If the plugin is busy there is nobody to answer: do not wait for it.
  ::_exit(0);
}

void session::cancel(std::uint32_t id) {
  std::lock_guard held(mutex_);
  for (queued& waiting : queue_)
    if (waiting.id == id) waiting.cancelled = true;
  for (bulkhead_call* call : calls_) {
    if (call->tag != id) continue;
    call->cancelled = true;
    if (call->stream) call->stream->stop(true);
    for (const std::uint32_t inner : call->host_calls) channel_.abandon(inner, outcome::cancelled, cancelled_with_call);
  }
}

// --- what the plugin sends, from any of its threads -----------------------------------------------------------------

void session::end(bulkhead_call& call) {
  const auto id = static_cast<std::uint32_t>(call.tag);
  if (call.stream) call.stream->stop_saying();
  std::vector<std::uint32_t> drained;
  {
    std::lock_guard held(mutex_);
    streams_.erase(id);
    std::erase_if(calls_, [&call](const bulkhead_call* each) { return each == &call; });
    if (calls_.empty() && queue_.empty()) drained.swap(drains_);
  }
  const std::uint8_t nil = 0xc0;
  for (const std::uint32_t drain : drained) channel_.send(response_head(drain).view(), {&nil, 1}, {});
}

void session::answer(bulkhead_call& call, ipc::byte_span result) {
  const auto id = static_cast<std::uint32_t>(call.tag);
  std::vector<std::uint8_t> placed;
  if (!place_blobs(result, placed))
    return fail(call, {outcome::plugin_error, "the result refers to a blob that does not exist or was released", {}});
  if (!placed.empty()) result = placed;
  if (result.size() + message_overhead > frame_limit_) {
    fail(call, {outcome::plugin_error, too_large("the result", result.size()), {}});  // its method has run
    return;
  }
  std::vector<unique_fd> handles;
  {
    std::lock_guard held(call.attaching);
    handles.swap(call.attached);
  }
  if (!handles.empty() || may_send_handles_) {
    ipc::scanner counting(worker_limits());
    std::size_t used = 0;
    counting.feed(result, used);
    if (counting.handles() != handles.size()) {
      fail(call, {outcome::plugin_error, "the result does not refer to each of its descriptors once", {}});
      return;
    }
  }
  end(call);
  channel_.send(response_head(id).view(), result, std::move(handles));
}

// For people: why the host would take it for a violation.
std::string session::too_large(std::string_view what, std::size_t bytes) const {
  return std::string(what) + " has " + std::to_string(bytes) + " bytes, more than the limit of " +
         std::to_string(frame_limit_) + " for one message";
}

void session::fail(bulkhead_call& call, ipc::call_failure failure) {
  const auto id = static_cast<std::uint32_t>(call.tag);
  end(call);
  ipc::buffer out = ipc::make_error_response(id, failure);
  if (out.view().size() > frame_limit_) {
    failure.data.clear();
    out = ipc::make_error_response(id, failure);
  }
  channel_.send(out.take());
}

void session::notify(std::string_view method, const std::function<void(ipc::packer&)>& params) {
  ipc::buffer out = ipc::begin_notification(method);
  ipc::packer packer(out);
  params(packer);
  channel_.send(out.take());
}

void session::progress(bulkhead_call& call, ipc::byte_span value) {
  if (call.answered) return;
  ipc::buffer out = ipc::begin_notification("$/progress");
  ipc::packer(out).pack_array(2).pack(call.tag);
  out.append(value);
  if (out.view().size() > frame_limit_)
    return log(BULKHEAD_LOG_WARNING, "dropped: " + too_large("a report of progress", value.size()));
  send_event(out, value.size(), {});
}

void session::log(int level, std::string_view text) {
  notify("$/log",
         [&](ipc::packer& packer) { packer.pack_array(2).pack(level).pack(ipc::sanitised(text, log_line_limit)); });
}

bool session::emit(std::string_view name, ipc::byte_span value, std::vector<unique_fd> handles) {
  ipc::buffer out = ipc::begin_notification("$/event");
  ipc::packer(out).pack_array(2).pack(name);
  out.append(value);
  return send_event(out, value.size(), std::move(handles));
}

// An event, or a report of progress. Waits for the host while it has no credit for one more, or has as many bytes to
// handle as one message may have. False when the host is gone, or would not take it for its size.
bool session::send_event(ipc::buffer& message, std::size_t value_bytes, std::vector<unique_fd> handles) {
  if (message.view().size() > frame_limit_) return false;
  std::unique_lock held(emitting_);
  for (;;) {
    const std::int64_t more = more_credit_;
    for (; events_acknowledged_ < more && !unacknowledged_.empty(); ++events_acknowledged_)
      unacknowledged_bytes_ -= unacknowledged_.pop();
    if (events_sent_ < first_credit_ + more && unacknowledged_bytes_ < frame_limit_) break;
    held.unlock();
    channel_.run([&] { return more_credit_ != more; });
    if (channel_.closed()) return false;
    held.lock();
  }
  ++events_sent_;
  unacknowledged_bytes_ += value_bytes;
  unacknowledged_.push(std::move(value_bytes));
  return channel_.send(message.take(), std::move(handles));
}

void session::poll(bulkhead_call&) { channel_.poll(); }

void session::leave(std::string_view why) {
  if (left_.exchange(true)) return;
  notify("$/leaving", [&](ipc::packer& packer) {
    packer.pack_array(1).pack_map(2).pack("code").pack(to_string(outcome::unavailable)).pack("message").pack(why);
  });
}

ipc::completion session::call_host(bulkhead_call* on_behalf_of, std::string_view function, ipc::byte_span arguments,
                                   std::vector<unique_fd> handles) {
  if (on_behalf_of && on_behalf_of->cancelled)
    return ipc::completion::failed(outcome::cancelled, "the call was cancelled");
  ipc::buffer frame = ipc::begin_request(function);
  frame.append(arguments);
  if (frame.view().size() > frame_limit_)
    return ipc::completion::failed(outcome::rejected,
                                   too_large("the call of '" + ipc::sanitised(function, 128) + "'", arguments.size()));
  ipc::waiter waiter;
  const ipc::time_point deadline = on_behalf_of ? on_behalf_of->deadline : ipc::never;
  const auto before = [&](std::uint32_t id) {
    ipc::buffer said = ipc::begin_notification("$/deadline");
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - ipc::clock::now()).count();
    ipc::packer(said).pack_array(2).pack(id).pack(std::clamp<std::int64_t>(left, 1, UINT32_MAX));
    return said;
  };
  const auto started = channel_.start(frame.take(), std::move(handles), deadline, &waiter, nullptr,
                                      deadline == ipc::never ? std::function<ipc::buffer(std::uint32_t)>() : before);
  if (started.code != outcome::ok)
    return ipc::completion::failed(started.code, "the call to the host could not be sent");
  if (on_behalf_of) {
    std::lock_guard held(mutex_);
    on_behalf_of->host_calls.push_back(started.id);
    // A cancellation that came just before has not found it.
    if (on_behalf_of->cancelled) channel_.abandon(started.id, outcome::cancelled, cancelled_with_call);
  }
  if (channel_.wait(waiter, deadline) != ipc::channel::wait_result::done)
    channel_.abandon(started.id, outcome::timeout, "the deadline of the call passed while it waited for the host");
  if (on_behalf_of) {
    std::lock_guard held(mutex_);
    std::erase(on_behalf_of->host_calls, started.id);
  }
  return std::move(waiter.result);
}

}  // namespace bulkhead
