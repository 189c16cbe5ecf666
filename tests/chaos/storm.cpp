// See storm.hpp.
#include "storm.hpp"

#include <bulkhead/metrics.hpp>

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <thread>

#include <sys/syscall.h>
#include <unistd.h>

namespace chaos {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using bulkhead::outcome;
using bulkhead::phase;
using bulkhead::reply;

constexpr unsigned warm_up = 2;  // rounds after which nothing may grow
constexpr auto rest_limit = 60s;
constexpr auto stall_limit = 150s;  // no call, no end, no next stage: longer than all that can be waited for
constexpr bulkhead::restart_intensity any_number{1'000'000'000, 10s};
constexpr double slack = 0.05;  // of a round, that calls and ends may be apart

#ifdef BULKHEAD_SANITIZED
constexpr std::size_t worker_memory = 0;
#else
constexpr std::size_t worker_memory = std::size_t{256} << 20;
#endif

std::string guest(const char* kind) { return std::string(BULKHEAD_TEST_PLUGINS) + "/chaos_" + kind + ".so"; }

}  // namespace

storm::storm(storm_settings settings)
    : settings_(std::move(settings)),
      host_({.on_lifecycle = [this](const bulkhead::lifecycle_event& event) { on_lifecycle(event); },
             .spawns = {4, any_number}}) {
  using dispatch = enum bulkhead::dispatch::kind;
  add("serial, one worker", guest("serial"), {});
  bulkhead::load_options with_spare{.instances = 3};
  with_spare.supervision.spares = 1;
  add("serial, three and a spare", guest("serial"), with_spare);
  add("thread-safe, two, round robin", guest("parallel"),
      {.instances = 2, .dispatch = {.kind = dispatch::round_robin}, .concurrency = 4});
  add("serial, three, sticky", guest("serial"), {.instances = 3, .dispatch = {.kind = dispatch::sticky}});
  bulkhead::load_options hostile{.instances = 2};
  hostile.supervision.spares = 1;
  add("hostile, two and a spare", guest("parallel"), hostile, true);
  add("serial, keeps state", guest("serial"), {.state = {.keep = true, .every = 20ms}});
  for (const auto strategy : {bulkhead::restart_strategy::one_for_all, bulkhead::restart_strategy::rest_for_one}) {
    auto group = host_.group({strategy, any_number});
    const std::string name = strategy == bulkhead::restart_strategy::one_for_all ? "one for all" : "rest for one";
    add(name + ", serial", guest("serial"), {}, false, &group);
    add(name + ", thread-safe", guest("parallel"), {.concurrency = 4}, false, &group);
  }
}

storm::~storm() { host_.shutdown(); }  // what it still tells, it tells to members that go before it

void storm::add(std::string name, std::string file, bulkhead::load_options options, bool hostile,
                bulkhead::plugin_group* group) {
  auto& rules = options.supervision;
  rules.intensity = any_number;
  rules.backoff.first = 0s;
  rules.heartbeat = {.interval = 100ms, .silence = usual_deadline + 400ms};
  rules.restart = bulkhead::restart_kind::permanent;  // an exit(0) between calls has to be followed by another, too
  options.deadline = usual_deadline;
  options.memory_limit = worker_memory;
  options.environment = {"CHAOS_MARKS=" + settings_.marks_file};
  options.policy = bulkhead::policy{}.allow_write(settings_.marks_file);
  options.start_timeout = 5s;
  options.blobs = {.threshold = 16 << 10, .memory = 16 << 20, .idle = 50ms};  // none is left when all has come to rest
  const std::size_t instances = options.instances, workers = instances + rules.spares;
  auto made = group ? group->load(file, std::move(options)) : host_.load(file, std::move(options));
  made.on_event([this](const std::string&, const msgpack::object& value) {
    write({.call = value.as<std::uint64_t>(), .kind = entry::event});
  });
  pools_.push_back({std::move(name), file, std::move(made), instances, workers, hostile});
}

// Whether it is lost unless somebody brings it back; what stops with its group may come back with it.
bool storm::needs_reset(const bulkhead::plugin& which) {
  using state = enum bulkhead::plugin_status::state;
  const auto status = which.status();
  return status.state != state::running && (status.state != state::stopped || !status.reason.empty());
}

void storm::on_lifecycle(const bulkhead::lifecycle_event& event) {
  using kind = enum bulkhead::lifecycle_event::kind;
  const bool out_with_group = event.kind == kind::regrouped && !event.text.empty();
  if (event.kind == kind::quarantined || event.kind == kind::gave_up || out_with_group) needs_reset_ = true;
  if (event.kind != kind::exited) return;
  std::lock_guard held(mutex_);
  ++results_.exits[std::string(to_string(event.report->reason))];
  if (event.report->reason == bulkhead::exit_reason::shut_down) return;
  ++results_.phases[std::string(to_string(event.report->phase))];
  ++ends_;
}

storm_results storm::run() {
  std::jthread watching([this](const std::stop_token& stop) { watch(stop); });
  dice births(settings_.seed);
  for (birth_plan& each : settings_.shared->plan) each = draw_birth(births);
  for (unsigned number = 0; number < settings_.rounds; ++number) {
    const auto share = [&](std::uint64_t all) { return all * (number + 1) / settings_.rounds; };
    calls_before_ = next_call_;
    ends_before_ = ends_;
    calls_in_round_ = share(settings_.calls) - calls_before_;
    ends_in_round_ = std::max(share(settings_.kills), ends_before_ + 1) - ends_before_;
    stage_ = "calls";
    round(number);
    stage_ = "comes to rest";
    come_to_rest(number);
    if (!results_.failures.empty()) break;  // what is wrong once would be so in each round, for its whole limit
  }
  stage_ = "shuts down";
  host_.shutdown();  // and all is told
  std::lock_guard held(mutex_);
  results_.calls = next_call_;
  results_.ends = ends_;
  results_.late = late_;
  results_.very_late = very_late_;
  results_.latest_ms = static_cast<double>(latest_us_) / 1e3;
  results_.growth = trend::through(restarts_, resident_);
  results_.resident = resident_;
  return results_;
}

void storm::round(unsigned number) {
  settings_.shared->following = 1;
  const auto seed = [&](std::uint64_t part) { return settings_.seed * 1'000'003 + number * 1009 + part; };
  {
    std::jthread harm([&](const std::stop_token& stop) { harm_workers(dice(seed(1000)), stop); });
    std::vector<std::jthread> callers;
    for (unsigned i = 0; i < settings_.threads; ++i)
      callers.emplace_back([&, i] { call_on(dice(seed(i)), calls_before_ + calls_in_round_); });
    callers.clear();
    while (ends_ - ends_before_ < ends_in_round_) std::this_thread::sleep_for(1ms);
  }
  settings_.shared->following = 0;
}

// --- calls ----------------------------------------------------------------------------------------------------------

double storm::pace() const {
  return static_cast<double>(next_call_ - calls_before_) / static_cast<double>(calls_in_round_) -
         static_cast<double>(ends_ - ends_before_) / static_cast<double>(ends_in_round_);
}

void storm::call_on(dice random, std::uint64_t until) {
  // About half of the harm comes with calls.
  const std::size_t harm_one_in = std::max<std::uint64_t>(2, 2 * calls_in_round_ / ends_in_round_);
  for (;;) {
    while (pace() > slack) std::this_thread::sleep_for(200us);
    pool& to = pools_[one_of(random, pools_.size())];
    const call_plan plan = draw_call(random, harm_one_in, to.hostile);
    std::uint64_t id = next_call_;
    do {
      if (id >= until) return;
    } while (!next_call_.compare_exchange_weak(id, id + 1));
    make_call(id, to, plan);
    if (settings_.on_progress && id % 1024 == 0) settings_.on_progress(id, ends_);
  }
}

void storm::count(const std::string& harm) {
  std::lock_guard held(mutex_);
  ++results_.harm[harm];
}

// --- harm from outside ----------------------------------------------------------------------------------------------

void storm::harm_workers(dice random, const std::stop_token& stop) {
  for (std::uint64_t turn = 0; !stop.stop_requested(); ++turn) {
    if (needs_reset_.exchange(false))
      for (pool& each : pools_)
        if (needs_reset(each.plugin)) harm_stage_ = "resets", each.plugin.reset();
    harm_stage_ = "waits for its turn";
    const bool calls_are_made = next_call_ - calls_before_ >= calls_in_round_;
    if (pace() <= (calls_are_made ? 0 : -slack)) {
      std::this_thread::sleep_for(200us);
      continue;
    }
    harm_stage_ = "sends a signal";
    strike(random, draw_blow(random));
    harm_stage_ = "recycles";
    pool& one = pools_[one_of(random, pools_.size())];
    if (once_in(random, 64) && one.plugin.recycle()) count("recycled: all of a plugin");
    if (turn == 10) {
      harm_stage_ = "reloads";
      try {
        one.plugin.reload(one.file);
        count("reloaded");
      } catch (const bulkhead::call_error&) {
        count("reloaded, but a new worker died: the old ones go on");
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(one_of(random, 4000)));
  }
}

// Nothing but a worker is hit: a pid that is still in the list once there is a descriptor for it names that process.
void storm::strike(dice& random, blow what) {
  pool& target = pools_[one_of(random, pools_.size())];
  const auto wanted = static_cast<phase>(one_of(random, static_cast<std::size_t>(phase::ready)));
  const auto patience = clock::now() + 3ms;
  const std::size_t pick = random();
  do {
    std::vector<bulkhead::worker_info> workers = target.plugin.workers();
    if (what.at_birth)
      std::erase_if(workers, [&](const auto& each) { return each.phase < wanted || each.phase >= phase::ready; });
    if (workers.empty()) continue;
    const auto& victim = workers[pick % workers.size()];
    const bulkhead::unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, victim.pid, 0)));
    if (!pidfd) continue;
    const auto still = target.plugin.workers();
    if (std::none_of(still.begin(), still.end(), [&](const auto& each) { return each.pid == victim.pid; })) continue;
    if (::syscall(SYS_pidfd_send_signal, pidfd.get(), what.signal, nullptr, 0) == 0)
      count(fmt::format("{} from outside, in phase {}", bulkhead::signal_name(what.signal), to_string(victim.phase)));
    return;
  } while (clock::now() < patience);
}

// --- rest -----------------------------------------------------------------------------------------------------------

bool storm::at_rest() {
  if (open_ > 0) return false;
  for (pool& each : pools_) {
    if (needs_reset(each.plugin)) {
      each.plugin.reset();
      return false;
    }
    const auto status = each.plugin.status();
    if (status.state != bulkhead::plugin_status::state::running) return false;
    const auto workers = each.plugin.workers();
    if (status.serving != each.instances || status.waiting > 0 || workers.size() != each.workers) return false;
    // Heartbeats are outstanding, too, now with this worker and now with that: each has to be seen without once.
    for (const auto& worker : workers)
      if (worker.phase == phase::ready && worker.outstanding == 0) seen_idle_.insert(worker.pid);
      else if (worker.phase != phase::ready) seen_idle_.erase(worker.pid);
    for (const auto& worker : workers)
      if (!seen_idle_.contains(worker.pid)) return false;
  }
  return true;
}

void storm::come_to_rest(unsigned number) {
  seen_idle_.clear();
  const auto limit = clock::now() + rest_limit;
  while (!at_rest() && clock::now() < limit) std::this_thread::sleep_for(5ms);
  if (!at_rest())
    failed(fmt::format("round {}: no rest within 60 s: {} calls are open{}", number, open_.load(), state()));
  census now;
  const auto poll_until = clock::now() + 10s;
  do {
    ::malloc_trim(0);
    now = census::take(host_.fork_server_pid());
    if (!baseline_ || !now.exceeds(*baseline_)) break;
    std::this_thread::sleep_for(20ms);
  } while (clock::now() < poll_until);
  results_.after = now;
  if (number + 1 < warm_up) return;
  if (!baseline_) results_.before = *(baseline_ = now);
  restarts_.push_back(static_cast<double>(ends_) / 1000);
  resident_.push_back(now.resident_kib);
  results_.allocated.push_back(now.allocated_kib);
  if (now.exceeds(*baseline_))
    failed(
        fmt::format("round {}: the host holds {}; after the first rounds {}", number, now.text(), baseline_->text()));
}

std::string storm::state() {
  std::string how;
  for (pool& each : pools_) {
    const auto status = each.plugin.status();
    const auto count = each.plugin.metrics();
    how += fmt::format(
        "; {}: {}, {} of {} serve, there are {} of {} workers ({} start, {} idle, {} busy, {} drain), {} calls wait {}",
        each.name, to_string(status.state), status.serving, each.instances, each.plugin.workers().size(), each.workers,
        count.starting, count.idle, count.busy, count.draining, status.waiting, status.reason);
    for (const auto& worker : each.plugin.workers())
      if (worker.phase != phase::ready || worker.outstanding > 0)
        how += fmt::format(", worker {} is in phase {} with {} calls", worker.pid, to_string(worker.phase),
                           worker.outstanding);
  }
  return how;
}

// At once, too: somebody may lose patience with the run.
void storm::failed(std::string how) {
  fmt::print(stderr, "FAILED: {}\n", how);
  results_.failures.push_back(std::move(how));
}

// A run that stands still can't be joined: it says what it is at, and ends.
void storm::watch(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  const auto progress = [this] { return std::tuple(next_call_.load(), ends_.load(), stage_.load()); };
  auto seen = progress();
  auto since = clock::now();
  for (std::unique_lock held(mutex); !stop.stop_requested();) {
    never.wait_for(held, stop, 1s, [] { return false; });
    if (const auto now = progress(); now != seen) seen = now, since = clock::now();
    if (clock::now() - since < stall_limit) continue;
    fmt::print(stderr, "FAILED: nothing has happened for {} s: the run {}, the harm {}, {} calls are open\n",
               stall_limit.count(), stage_.load(), harm_stage_.load(), open_.load());
    ::alarm(10);  // it may wait for what all wait for
    fmt::print(stderr, "{}\n", state());
    std::_Exit(1);
  }
}

}  // namespace chaos
