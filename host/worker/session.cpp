// See session.hpp. The thread that reads the channel (the dispatch thread when idle, a plugin's thread while it waits
// for the host) only sorts messages into the queue; only the dispatch thread takes them up.
#include "session.hpp"

#include "crash_handler.hpp"
#include <bulkhead/error.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace bulkhead {
namespace {

constexpr unsigned most_threads = 64;

}  // namespace

ipc::limits session::worker_limits() {
  ipc::limits limits;
  limits.frame = std::size_t{1} << 30;  // the host keeps its own limits; it is trusted
  limits.depth = ipc::scanner::max_depth;
  limits.queued_calls = 4096;
  return limits;
}

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

}  // namespace bulkhead
