// The calls of a storm, of each kind of traffic, and what the ledger is told of them. See storm.hpp.
#include "storm.hpp"

#include <thread>

#include <unistd.h>

namespace chaos {
namespace {

using clock = std::chrono::steady_clock;
using bulkhead::reply;

constexpr std::uint64_t most_in_flight = 200;
constexpr std::size_t narrow_window = 64;  // bytes of streamed results: both sides have to wait for each other

// Whether the result, if there is one, is what `wanted` says; one of another type is not.
template <class R, class F>
std::uint8_t is_right(const reply& result, F wanted) {
  try {
    return result && wanted(result.as<R>());
  } catch (const std::exception&) {
    return 0;
  }
}

std::uint8_t answers(std::uint64_t id, const reply& result) {
  return is_right<std::uint64_t>(result, [id](std::uint64_t value) { return value == answer_to(id); });
}

bool is_lent(std::uint64_t id, bulkhead::bytes_view bytes, std::size_t size, std::uint8_t mask) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != (byte_of(id, i) ^ mask)) return false;
  return bytes.size() == size;
}

}  // namespace

struct storm::flight {
  storm* self;
  std::uint64_t id;
  time_point due;
  void operator()(boost::system::error_code, const reply& result) const {
    self->ended({.call = id, .right = answers(id, result)}, result, due);
    std::lock_guard held(self->flights_mutex_);
    --self->open_;
    self->landed_.notify_one();
  }
};

void storm::make_call(std::uint64_t id, pool& to, const call_plan& plan) {
  if (!plan.harm.empty()) count(plan.harm + " in a call: " + plan.step);
  bulkhead::call_options options;
  options.key = id % 64;
  if (plan.deadline.count() > 0) options.deadline = plan.deadline;
  if (plan.size % 2) options.stream_window = narrow_window;
  std::stop_source stop;
  if (plan.cancelled) options.stop = stop.get_token();
  const bool emits = plan.what == traffic::event;
  const bulkhead::shared_blob in =
      plan.what == traffic::bytes ? to.plugin.make_blob(plan.size) : bulkhead::shared_blob();
  std::jthread other;
  write({.call = id, .kind = entry::issued, .idempotent = plan.idempotent, .what = plan.what});
  const bool at_once = plan.what == traffic::bytes || plan.what == traffic::stream || !plan.async;
  if (!at_once) {  // first: the deadline does not run while this waits
    std::unique_lock held(flights_mutex_);
    landed_.wait(held, [this] { return open_ < most_in_flight; });
    ++open_;
  }
  const auto due = clock::now() + options.deadline.value_or(usual_deadline);
  if (plan.cancelled && at_once) other = std::jthread([&stop] { stop.request_stop(); });
  const auto target = to.plugin.with(options);
  const std::string method = plan.idempotent ? "work_again" : "work";
  if (plan.what == traffic::bytes) return lend_bytes(id, target, plan, in, due);
  if (plan.what == traffic::stream) return stream(id, target, plan, due);
  if (at_once) {
    const reply result = target.try_call(method, id, plan.microseconds, emits, plan.harm, plan.step);
    return ended({.call = id, .right = answers(id, result)}, result, due);
  }
  to.plugin.async_call<reply>(method, std::tuple(id, plan.microseconds, emits, plan.harm, plan.step),
                              flight{this, id, due}, options);
  if (plan.cancelled) stop.request_stop();
}

void storm::lend_bytes(std::uint64_t id, const bulkhead::plugin::bound& to, const call_plan& plan,
                       const bulkhead::shared_blob& in, time_point due) {
  const auto bytes = in.writable();
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_of(id, i);
  const reply result = to.try_call(plan.idempotent ? "invert_again" : "invert", id, in, plan.harm, plan.step);
  record out{.call = id, .wrong = !is_lent(id, in, plan.size, 0)};
  out.right = is_right<bulkhead::shared_blob>(
      result, [&](const bulkhead::shared_blob& made) { return is_lent(id, made, plan.size, 0xff); });
  ended(out, result, due);
}

void storm::stream(std::uint64_t id, const bulkhead::plugin::bound& to, const call_plan& plan, time_point due) {
  auto call = to.open(plan.idempotent ? "flow_again" : "flow", id, plan.harm, plan.step);
  record out{.call = id};
  const auto take = [&] {
    const auto item = call.next<std::uint64_t>();
    if (item && *item != ~item_of(id, out.items++)) out.wrong = 1;
    return item.has_value();
  };
  std::uint64_t sum = answer_to(id);
  try {
    for (unsigned i = 0; i < plan.size && call.send(item_of(id, i)); ++i) {
      sum = with_item(sum, item_of(id, i));
      if (plan.in_turns && !take()) break;
      if (plan.cancelled && i == 1) call.cancel();
    }
    call.close();
    while (take()) continue;
  } catch (const bulkhead::call_error&) {  // finish() says what it was
  }
  const reply result = call.finish();
  out.right = out.items == plan.size && is_right<std::uint64_t>(result, [&](std::uint64_t all) { return all == sum; });
  ended(out, result, due);
  if (const reply again = call.finish(); again.outcome() != result.outcome()) ended(out, again, due);
}

void storm::ended(record what, const reply& result, time_point due) {
  const auto late = std::chrono::duration_cast<std::chrono::microseconds>(clock::now() - due).count();
  what.kind = entry::ended;
  what.outcome = static_cast<std::uint8_t>(result.outcome());
  write(what);
  if (late <= 50'000) return;
  ++late_;
  if (late > 1'000'000) ++very_late_;
  for (std::uint64_t most = latest_us_; most < static_cast<std::uint64_t>(late);)
    if (latest_us_.compare_exchange_weak(most, static_cast<std::uint64_t>(late))) break;
}

void storm::write(const record& what) const {
  if (::write(settings_.ledger, &what, sizeof what) != sizeof what)
    throw std::system_error(errno, std::generic_category(), "the ledger");
}

}  // namespace chaos
