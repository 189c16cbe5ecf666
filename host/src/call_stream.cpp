// See call_stream.hpp.
#include "call_stream.hpp"

#include "plugin_pool.hpp"
#include "relayed_call.hpp"
#include <bulkhead/stream.hpp>

#include <thread>

namespace bulkhead {
namespace {

// How long a thread that helps the reactor may miss what another one has brought.
constexpr std::chrono::milliseconds help_turn{5};

}  // namespace

call_stream::call_stream(std::shared_ptr<host_core> core, bool help, std::size_t window, ipc::time_point deadline)
    : stream(window, true, 0, deadline), core_(std::move(core)), help_(help) {}

void call_stream::heed(std::stop_token stop) {
  if (stop.stop_possible()) on_stop_.emplace(std::move(stop), canceller{weak_from_this()});
}

outcome call_stream::settle(outcome how) {
  std::lock_guard held(mutex_);
  settled_ = true;
  return reply_ ? reply_->outcome() : how;
}

void call_stream::finish(reply&& result) {
  {
    std::lock_guard held(mutex_);
    if (!reply_) reply_ = std::move(result);
  }
  stop(false);
}

// Before the call has. False: that is settled.
bool call_stream::end_early(outcome how, std::string why) {
  {
    std::lock_guard held(mutex_);
    if (reply_ || settled_) return false;
    reply_ = reply(ipc::completion::failed(how, std::move(why)));
  }
  stop(false);
  return true;
}

void call_stream::cancel() {
  // First: once it is told to stop, the plugin has an answer of its own. What came of a call that has ended is not dropped.
  if (!end_early(outcome::cancelled, "cancelled by the caller")) return;
  stop_.request_stop();
  stop(true);
}

reply call_stream::wait_finished() {
  finishing_ = true;
  close();
  std::vector<std::uint8_t> dropped;
  while (receive(dropped) == result::ok) continue;
  lock held(mutex_);
  while (!over()) {
    if (!is_late()) {
      wait_turn(held);
    } else {
      held.unlock();
      expire();
      held.lock();
    }
  }
  held.unlock();
  return final_reply();
}

reply call_stream::final_reply() {
  std::lock_guard held(mutex_);
  return reply_.value();
}

// It is seen here, too: a plugin in this process that does not heed its deadline holds up nobody who waits. And an answer that
// comes after somebody was told that the call is over can't turn it into one that is `ok`, short of what was not sent.
void call_stream::expire() {
  // One that is settled has its end from another thread in a moment, and who waits comes back here until then.
  if (!end_early(outcome::timeout, "no answer before the deadline")) std::this_thread::yield();
  stop_.request_stop();
}

void call_stream::wait(lock& held, std::uint64_t seen) {
  if (!help_) return stream::wait(held, seen);
  held.unlock();
  core_->reactor->help(std::min(deadline_, ipc::clock::now() + help_turn));
  held.lock();
}

std::shared_ptr<ipc::stream> relay_call(const plugin& target, std::string_view method, packed_arguments arguments,
                                        const call_options& options, std::shared_ptr<ipc::stream::link> onward,
                                        std::unique_ptr<reply_handler> handler) {
  return plugin_pool::of(target).relay(method, std::move(arguments), options, std::move(onward), std::move(handler));
}

// --- what the application holds -------------------------------------------------------------------------------------

streaming_call& streaming_call::operator=(streaming_call&& other) noexcept {
  if (stream_) stream_->cancel();
  stream_ = std::move(other.stream_);
  plugin_ = std::move(other.plugin_);
  return *this;
}

streaming_call::~streaming_call() {
  if (stream_) stream_->cancel();
}

call_stream& streaming_call::stream() const {
  if (!stream_) throw std::logic_error("bulkhead::streaming_call: it is empty; it takes one from plugin::open()");
  return *stream_;
}

bool streaming_call::send_packed(ipc::byte_span value) {
  switch (stream().send(value)) {
    case ipc::stream::result::ok: return true;
    case ipc::stream::result::over: return false;
    case ipc::stream::result::end:
      if (stream().finishing()) return false;
      throw std::logic_error("bulkhead::streaming_call: send() after close()");
    case ipc::stream::result::too_large: break;
  }
  throw call_error(outcome::rejected, "an item of " + std::to_string(value.size()) +
                                          " bytes is larger than the plugin's window of " +
                                          std::to_string(stream().peer_window()));
}

void streaming_call::close() { stream().close(); }

std::optional<std::vector<std::uint8_t>> streaming_call::next_packed() {
  std::vector<std::uint8_t> item;
  switch (stream().receive(item)) {
    case ipc::stream::result::ok: return item;
    case ipc::stream::result::over: stream().final_reply().throw_if_failed(); break;
    default: break;
  }
  return std::nullopt;
}

reply streaming_call::finish() { return stream().wait_finished(); }
void streaming_call::cancel() { stream().cancel(); }
std::uint64_t streaming_call::taken() const { return stream().received(); }

}  // namespace bulkhead
