// See call_meter.hpp.
#include "call_meter.hpp"

#include <algorithm>
#include <numeric>

namespace bulkhead {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr std::string_view other = "other";

constexpr auto bounds_ns = [] {
  std::array<std::int64_t, latency_histogram::bounds.size()> out{};
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::int64_t>(latency_histogram::bounds[i] * 1e9 + 0.5);
  return out;
}();

std::size_t bucket_of(std::chrono::nanoseconds took) {
  return static_cast<std::size_t>(std::lower_bound(bounds_ns.begin(), bounds_ns.end(), took.count()) -
                                  bounds_ns.begin());
}

template <class Array>
std::uint64_t sum_of(const Array& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

template <class Array>
void add(Array& to, const Array& more) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += more[i];
}

}  // namespace

std::uint64_t latency_histogram::count() const { return sum_of(counts); }
std::uint64_t method_metrics::ended() const { return sum_of(calls); }

plugin_metrics& plugin_metrics::operator+=(const plugin_metrics& more) {
  for (const method_metrics& each : more.methods) {
    const auto same =
        std::find_if(methods.begin(), methods.end(), [&](const auto& m) { return m.method == each.method; });
    if (same == methods.end()) {
      methods.push_back(each);
      continue;
    }
    add(same->calls, each.calls);
    add(same->latency.counts, each.latency.counts);
    same->latency.sum += each.latency.sum;
    same->in_flight += each.in_flight;
    same->argument_bytes += each.argument_bytes;
    same->result_bytes += each.result_bytes;
  }
  status.serving += more.status.serving;
  status.instances += more.status.instances;
  status.waiting += more.status.waiting;
  starting += more.starting;
  idle += more.idle;
  busy += more.busy;
  draining += more.draining;
  resident_bytes += more.resident_bytes;
  started += more.started;
  restarts += more.restarts;
  probes += more.probes;
  add(exits, more.exits);
  return *this;
}

void call_meter::cell::begin(std::size_t argument_bytes) noexcept {
  begun_.fetch_add(1, relaxed);
  argument_bytes_.fetch_add(argument_bytes, relaxed);
}

void call_meter::cell::end(outcome how, std::chrono::nanoseconds took, std::size_t result_bytes) noexcept {
  buckets_[bucket_of(took)].fetch_add(1, relaxed);
  nanoseconds_.fetch_add(static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0)), relaxed);
  if (result_bytes > 0) result_bytes_.fetch_add(result_bytes, relaxed);
  calls_[static_cast<std::size_t>(how)].fetch_add(1, std::memory_order_release);
}

method_metrics call_meter::cell::read(std::string name) const {
  method_metrics out;
  out.method = std::move(name);
  // The ended ones first, and acquired: each of them has been seen to begin, so the difference is never negative.
  for (std::size_t i = 0; i < calls_.size(); ++i) out.calls[i] = calls_[i].load(std::memory_order_acquire);
  out.in_flight = begun_.load(relaxed) - out.ended();
  for (std::size_t i = 0; i < buckets_.size(); ++i) out.latency.counts[i] = buckets_[i].load(relaxed);
  out.latency.sum = static_cast<double>(nanoseconds_.load(relaxed)) / 1e9;
  out.argument_bytes = argument_bytes_.load(relaxed);
  out.result_bytes = result_bytes_.load(relaxed);
  return out;
}

call_meter::call_meter() : current_(nullptr) {
  names_.emplace_back(other);
  cells_.emplace_back();
  indexes_.push_back(std::make_unique<const index>(index{{names_.front(), &cells_.front()}}));
  current_ = indexes_.back().get();
}

void call_meter::describe(const std::vector<method_info>& methods) {
  std::lock_guard held(mutex_);
  index next = *indexes_.back();
  const std::size_t before = next.size();
  for (const method_info& method : methods) {
    if (names_.size() > most_methods) break;
    const auto at = std::lower_bound(next.begin(), next.end(), std::string_view(method.name),
                                     [](const entry& each, std::string_view name) { return each.name < name; });
    if (at != next.end() && at->name == method.name) continue;
    next.insert(at, entry{names_.emplace_back(method.name), &cells_.emplace_back()});
  }
  if (next.size() == before) return;
  indexes_.push_back(std::make_unique<const index>(std::move(next)));
  current_.store(indexes_.back().get(), std::memory_order_release);
}

call_meter::cell& call_meter::of(std::string_view method) const noexcept {
  const index& known = *current_.load(std::memory_order_acquire);
  const auto find = [&](std::string_view wanted) {
    return std::lower_bound(known.begin(), known.end(), wanted,
                            [](const entry& each, std::string_view name) { return each.name < name; });
  };
  const auto found = find(method);
  return found != known.end() && found->name == method ? *found->cell : *find(other)->cell;
}

std::vector<method_metrics> call_meter::read() const {
  std::lock_guard held(mutex_);
  std::vector<method_metrics> out;
  for (std::size_t i = 0; i < names_.size(); ++i) out.push_back(cells_[i].read(names_[i]));
  return out;
}

}  // namespace bulkhead
