// See instrument.hpp. Calls that have ended are kept for a while, as a debugging allocator keeps freed memory: what a
// plugin does with them then harms nobody, and can be told. `host_data` stays the worker's own, so that extensions which
// are not known here go on working.
#include "instrument.hpp"

#include "plugin_runtime.hpp"
#include <bulkhead/ipc/scanner.hpp>

#include <malloc.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>

#include <fcntl.h>

namespace bulkhead {
namespace {

constexpr std::size_t kept_calls = 32;
constexpr std::chrono::milliseconds after_destroy{50};
constexpr int descriptors_looked_at = 1024;

int open_descriptors() {
  int count = 0;
  for (int fd = 0; fd < descriptors_looked_at; ++fd) count += ::fcntl(fd, F_GETFD) >= 0;
  return count;
}

bool may_fail(std::string_view function) {
  return function == "create_blob" || function == "emit" || function == "call_host" || function == "take_handle";
}

std::invalid_argument unknown(std::string_view word) {
  return std::invalid_argument("BULKHEAD_INSTRUMENT: '" + std::string(word) + "' is not known");
}

}  // namespace

struct instrument::functions {
  static instrument& of(const bulkhead_host_t* host) { return *reinterpret_cast<const table_of*>(host)->owner; }
  static const bulkhead_host_t* real(const bulkhead_host_t* host) { return &of(host).real_; }

  static void reply(const bulkhead_host_t* host, bulkhead_call_t* call, const void* result, std::size_t size) {
    if (!of(host).uses(call, "reply()")) return;
    if (size == 0 || ipc::value_size({static_cast<const std::uint8_t*>(result), size}) != size)
      of(host).misuse("reply() got bytes that are not one MessagePack value");
    of(host).ends(call);
    real(host)->reply(real(host), call, result, size);
    call->handles.clear();  // as if it were gone
  }
  static void fail(const bulkhead_host_t* host, bulkhead_call_t* call, const char* message, std::size_t message_size,
                   const void* data, std::size_t data_size) {
    if (!of(host).uses(call, "fail()")) return;
    if (message_size == 0) of(host).misuse("fail() got no text: nobody learns what is wrong");
    of(host).ends(call);
    real(host)->fail(real(host), call, message, message_size, data, data_size);
    call->handles.clear();
  }
  static void progress(const bulkhead_host_t* host, bulkhead_call_t* call, const void* value, std::size_t size) {
    if (of(host).uses(call, "progress()")) real(host)->progress(real(host), call, value, size);
  }
  static bool cancelled(const bulkhead_host_t* host, bulkhead_call_t* call) {
    return !of(host).uses(call, "cancelled()") || real(host)->cancelled(real(host), call);
  }
  static std::int64_t remaining_ns(const bulkhead_host_t* host, bulkhead_call_t* call) {
    return of(host).uses(call, "remaining_ns()") ? real(host)->remaining_ns(real(host), call) : 0;
  }
  static void log(const bulkhead_host_t* host, bulkhead_log_level_t level, const char* text, std::size_t size) {
    if (of(host).uses_host("log()")) real(host)->log(real(host), level, text, size);
  }
  static bool emit(const bulkhead_host_t* host, const char* name, const void* value, std::size_t size) {
    if (!of(host).uses_host("emit()")) return false;
    if (size == 0 || ipc::value_size({static_cast<const std::uint8_t*>(value), size}) != size)
      of(host).misuse("emit() got bytes that are not one MessagePack value");
    return !of(host).fails("emit") && real(host)->emit(real(host), name, value, size);
  }
  // As a host answers that is busy; nothing is left to release.
  static bulkhead_status_t overloaded(const bulkhead_host_t* host, bulkhead_answer_t* answer) {
    static constexpr std::string_view text = "overloaded because the test wants it to be";
    *answer = {reinterpret_cast<const std::uint8_t*>(text.data()), text.size(), nullptr};
    std::lock_guard held(of(host).mutex_);
    --of(host).answers_;
    return BULKHEAD_OVERLOADED;
  }
  static bulkhead_status_t call_host(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of, const char* function,
                                     const void* arguments, std::size_t size, bulkhead_answer_t* answer) {
    bulkhead_call_t* const served = of(host).serves(on_behalf_of);
    if (of(host).fails("call_host")) return overloaded(host, answer);
    return real(host)->call_host(real(host), served, function, arguments, size, answer);
  }
  static void release_answer(const bulkhead_host_t* host, bulkhead_answer_t* answer) {
    instrument& me = of(host);
    if (answer->owner) {
      std::lock_guard held(me.mutex_);
      --me.answers_;
    }
    real(host)->release_answer(real(host), answer);
  }
  static int take_handle(const bulkhead_host_t* host, bulkhead_call_t* call, std::uint32_t index) {
    return of(host).uses(call, "take_handle()") && !of(host).fails("take_handle")
               ? real(host)->take_handle(real(host), call, index)
               : -1;
  }
  static bool create_blob(const bulkhead_host_t* host, std::size_t size, bulkhead_blob_t* blob) {
    if (!of(host).uses_host("create_blob()") || of(host).fails("create_blob") ||
        !real(host)->create_blob(real(host), size, blob))
      return false;
    std::lock_guard held(of(host).mutex_);
    ++of(host).blobs_;
    return true;
  }
  static bool open_blob(const bulkhead_host_t* host, bulkhead_call_t* call, const std::uint8_t* reference,
                        std::size_t size, bulkhead_blob_t* blob) {
    return of(host).uses(call, "open_blob()") && real(host)->open_blob(real(host), call, reference, size, blob);
  }
  static void release_blob(const bulkhead_host_t* host, bulkhead_blob_t* blob) {
    if (blob->owner || blob->reference_size > 0) {  // its own, be it in shared memory; not one that came
      std::lock_guard held(of(host).mutex_);
      --of(host).blobs_;
    }
    real(host)->release_blob(real(host), blob);
  }

  static const bulkhead_streams_t& streams(const bulkhead_host_t* host) {
    return *static_cast<const bulkhead_streams_t*>(of(host).streams_);
  }
  static std::size_t item_limit(const bulkhead_host_t* host, bulkhead_call_t* call) {
    return of(host).uses(call, "item_limit()") ? streams(host).item_limit(real(host), call) : 0;
  }
  static bulkhead_status_t send(const bulkhead_host_t* host, bulkhead_call_t* call, const void* item,
                                std::size_t size) {
    return of(host).uses(call, "send()") ? streams(host).send(real(host), call, item, size) : BULKHEAD_REJECTED;
  }
  static bulkhead_status_t receive(const bulkhead_host_t* host, bulkhead_call_t* call, bulkhead_answer_t* item) {
    *item = {};
    if (!of(host).uses(call, "receive()")) return BULKHEAD_REJECTED;
    const bulkhead_status_t status = streams(host).receive(real(host), call, item);
    if (item->owner) {
      std::lock_guard held(of(host).mutex_);
      ++of(host).answers_;
    }
    return status;
  }
  static void end(const bulkhead_host_t* host, bulkhead_call_t* call) {
    if (of(host).uses(call, "end()")) streams(host).end(real(host), call);
  }
  static int attach(const bulkhead_host_t* host, bulkhead_call_t* call, int fd) {
    const auto* handles = static_cast<const bulkhead_send_handles_t*>(of(host).handles_);
    return of(host).uses(call, "attach()") ? handles->attach(real(host), call, fd) : -1;
  }

  static const bulkhead_handles_t& passing(const bulkhead_host_t* host) {
    return *static_cast<const bulkhead_handles_t*>(of(host).passing_);
  }
  static bool emit_handles(const bulkhead_host_t* host, const char* name, const void* value, std::size_t size,
                           const int* fds, std::size_t count) {
    return of(host).uses_host("emit()") && !of(host).fails("emit") &&
           passing(host).emit(real(host), name, value, size, fds, count);
  }
  static bulkhead_status_t call_with_handles(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of,
                                             const char* function, const void* arguments, std::size_t size,
                                             const int* fds, std::size_t count, bulkhead_answer_t* answer) {
    bulkhead_call_t* const served = of(host).serves(on_behalf_of);
    if (of(host).fails("call_host")) return overloaded(host, answer);
    return passing(host).call_host(real(host), served, function, arguments, size, fds, count, answer);
  }
  static int take(const bulkhead_host_t* host, bulkhead_answer_t* answer, std::uint32_t index) {
    return passing(host).take(real(host), answer, index);
  }

  static const void* get_extension(const bulkhead_host_t* host, const char* id) {
    static constexpr bulkhead_handles_t own_passing{emit_handles, call_with_handles, take};
    static constexpr bulkhead_streams_t own_streams{item_limit, send, receive, end};
    static constexpr bulkhead_send_handles_t own_handles{attach};
    instrument& me = of(host);
    me.say(BULKHEAD_LOG_DEBUG, std::string("instrument: asked for ") + id);
    const void* const found = real(host)->get_extension(real(host), id);
    if (found && std::strcmp(id, BULKHEAD_STREAMS) == 0) {
      me.streams_ = found;
      return &own_streams;
    }
    if (found && std::strcmp(id, BULKHEAD_HANDLES) == 0) {
      me.passing_ = found;
      return &own_passing;
    }
    if (found && std::strcmp(id, BULKHEAD_SEND_HANDLES) == 0) {
      me.handles_ = found;
      return &own_handles;
    }
    return found;
  }
};

instrument::settings instrument::read(std::string_view text) {
  settings made;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    const std::size_t equals = word.find('=');
    unsigned value = 0;
    const std::string_view key = word.substr(0, equals), rest = equals < word.size() ? word.substr(equals + 1) : "";
    const std::size_t at = rest.find('@');  // of fail=FUNCTION@N
    const std::string_view function = at < rest.size() ? rest.substr(0, at) : "";
    const std::string_view digits = function.empty() ? rest : rest.substr(at + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool number = error == std::errc() && end == digits.data() + digits.size();
    if (number && key == "fail" && may_fail(function)) made.fail[std::string(function)] = value;
    else if (!number || !function.empty()) throw unknown(word);
    else if (key == "cancel_at") made.cancel_at = value;
    else if (key == "slow_us") made.slow = std::chrono::microseconds(value);
    else if (key == "report_every") made.report_every = value;
    else throw unknown(word);
  }
  return made;
}

instrument::instrument(const bulkhead_host_t& real, const settings& with, void (*release)(bulkhead_call_t*))
    : host_{{real.abi_version, real.host_data, functions::reply, functions::fail, functions::progress,
             functions::cancelled, functions::remaining_ns, functions::log, functions::emit, functions::call_host,
             functions::release_answer, functions::take_handle, functions::create_blob, functions::open_blob,
             functions::release_blob, functions::get_extension},
            this},
      real_(real),
      settings_(with),
      release_(release) {}

instrument::~instrument() {
  for (bulkhead_call_t* each : ended_order_) release_(each);
}

void instrument::begins(bulkhead_call_t* call, const char* method) {
  std::lock_guard held(mutex_);
  open_[call] = {method, 0};
}

bool instrument::uses_host(const char* what) {
  if (settings_.slow.count() > 0) std::this_thread::sleep_for(settings_.slow);
  bool late = false;
  {
    std::lock_guard held(mutex_);
    late = destroyed_;
  }
  if (late) misuse(std::string(what) + " was called after destroy(): a thread of the plugin's goes on");
  return !late;
}

bool instrument::uses(bulkhead_call_t* call, const char* what) {
  if (!uses_host(what)) return false;
  std::unique_lock held(mutex_);
  if (const auto found = open_.find(call); found != open_.end()) {
    if (settings_.cancel_at > 0 && ++found->second.steps >= settings_.cancel_at) call->cancelled = true;
    return true;
  }
  const auto ended = ended_.find(call);
  const std::string method = ended == ended_.end() ? "" : ended->second;
  held.unlock();
  if (method.empty()) misuse(std::string(what) + " was given a call that there is none of, or that ended long ago");
  else misuse(std::string(what) + " was called for a call of '" + method + "' that had been answered already");
  return false;
}

bulkhead_call_t* instrument::serves(bulkhead_call_t* on_behalf_of) {
  const bool may = on_behalf_of ? uses(on_behalf_of, "call_host()") : uses_host("call_host()");
  std::lock_guard held(mutex_);
  ++answers_;
  return may ? on_behalf_of : nullptr;
}

void instrument::ends(bulkhead_call_t* call) {
  bulkhead_call_t* oldest = nullptr;
  unsigned answered = 0;
  {
    std::lock_guard held(mutex_);
    const auto found = open_.find(call);
    if (found == open_.end()) return;
    ended_[call] = std::move(found->second.method);
    open_.erase(found);
    ended_order_.push_back(call);
    if (ended_order_.size() > kept_calls) {
      oldest = ended_order_.front();
      ended_order_.pop_front();
      ended_.erase(oldest);
    }
    answered = ++answered_;
  }
  if (oldest) release_(oldest);
  if (settings_.report_every > 0 && answered % settings_.report_every == 0) report(answered);
}

bool instrument::fails(const char* function) {
  const auto found = settings_.fail.find(function);
  if (found == settings_.fail.end()) return false;
  std::lock_guard held(mutex_);
  return ++used_[function] >= found->second;
}

void instrument::destroyed() {
  {
    std::lock_guard held(mutex_);
    destroyed_ = true;
  }
  std::this_thread::sleep_for(after_destroy);
}

void instrument::misuse(const std::string& text) { say(BULKHEAD_LOG_ERROR, "misuse: " + text); }

void instrument::say(bulkhead_log_level_t level, const std::string& text) {
  {
    std::lock_guard held(mutex_);
    if (!said_.insert(text).second) return;
  }
  real_.log(&real_, level, text.data(), text.size());
}

void instrument::report(unsigned calls) {
  const struct mallinfo2 heap = ::mallinfo2();
  long blobs = 0, answers = 0;
  {
    std::lock_guard held(mutex_);
    blobs = blobs_;
    answers = answers_;
  }
  char text[160];
  const int size =
      std::snprintf(text, sizeof text, "instrument: calls=%u heap=%zu descriptors=%d blobs=%ld answers=%ld", calls,
                    heap.uordblks + heap.hblkhd, open_descriptors(), blobs, answers);
  real_.log(&real_, BULKHEAD_LOG_DEBUG, text, static_cast<std::size_t>(size));
}

}  // namespace bulkhead
