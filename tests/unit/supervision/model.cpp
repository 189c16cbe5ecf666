// Thousands of random plays: a driver that behaves as supervisor.hpp asks, workers that do whatever they like. After
// each event the promises are checked. A failure names its seed.
#include "stage.hpp"

#include <catch2/catch.hpp>

#include <deque>
#include <random>
#include <set>

using namespace bulkhead;
using namespace bulkhead::supervision;
using state = supervisor_state;
using worker_state = supervisor::worker_state;

namespace {

// Millions of checks: Catch hears only of those that fail.
void must(bool holds, const char* promise) {
  if (!holds) FAIL(promise);
}

// A play that never gets anywhere proves nothing.
struct reached {
  std::set<std::size_t> actions;
  std::set<supervisor_state> states;
} seen;

class world {
 public:
  explicit world(unsigned seed)
      : random_(seed), settings_(choose()), subject_(settings_, [this] { return jitter(); }) {}

  void play(int events) {
    give(events::start{});
    for (int i = 0; i < events; ++i) step();
    give(events::stop{.reason = "unloaded"});
    // Whatever state it is in, and though no worker does as it is told: it ends, in a bounded time and number of steps.
    const auto limit =
        now_ + settings_.rules.drain.calls + settings_.rules.drain.shutdown + settings_.rules.drain.undead_after;
    for (int i = 0; subject_.state() == state::stopping; ++i) {
      must(i < 1000, "i < 1000");
      must(subject_.wake_at() <= limit, "subject_.wake_at() <= limit");
      now_ = std::max(now_, subject_.wake_at());
      give(events::tick{});
    }
    for (const worker_id id : alive_)
      must(ended_.contains(id), "ended_.contains(id)");  // each was told to end, in the end with SIGKILL
    while (!alive_.empty()) exit(*alive_.begin(), exit_class::normal);
    must(subject_.workers().empty(), "subject_.workers().empty()");
    must(subject_.wake_at() == never, "subject_.wake_at() == never");
  }

 private:
  supervisor_settings choose() {
    auto made = settings(1 + pick(4), pick(3));
    auto& rules = made.rules;
    rules.restart = static_cast<restart_kind>(pick(3));
    rules.intensity = {pick(7), (1 + pick(60)) * 1s};
    if (pick(2)) rules.probe_after = 5min;
    if (pick(2)) rules.heartbeat.interval = 1s;
    if (pick(2)) rules.recycle = {.calls = 1000, .age = 5min};
    made.memory_limit = 1000;
    return made;
  }
  unsigned pick(unsigned below) { return std::uniform_int_distribution<unsigned>(0, below - 1)(random_); }
  double jitter() { return std::uniform_real_distribution<double>(-1, 1)(random_); }
  worker_id any() {
    if (alive_.empty() || pick(20) == 0) return pick(1000);  // nobody
    return *std::next(alive_.begin(), pick(static_cast<unsigned>(alive_.size())));
  }

  void step() {
    switch (pick(24)) {
      case 0: return pick(10) ? pass(1ms * pick(1000)) : give(events::reset{});
      case 1: return pick(20) ? pass(1ms * pick(1000)) : give(events::stop{.calls_wait = pick(2) == 0});
      case 2: return give(events::start{});
      case 3: return exit(any(), exit_class::normal);
      case 4: return exit(any(), exit_class::abnormal);
      case 5:
        return pick(10) ? give(events::tick{}) : exit(any(), pick(2) ? exit_class::violation : exit_class::rejected);
      case 6: return leaves_ ? give(events::leaving{any()}) : wake();
      case 7: return give(events::recycle{any()});
      case 8: return give(events::usage{any(), pick(2000), pick(1500)});
      case 9: return pass(10s);
      case 10: return pass(1min);
      case 11: return give(events::drained{any()});
      case 12: return give(events::answered{any()});
      case 13:
      case 14: return pass(1ms * pick(1000));
      case 15:
      case 16:
      case 17: return wake();
      case 18:
      case 19: return give(events::started{any(), static_cast<phase>(pick(6))});
      default: return give(events::ready{any()});
    }
  }
  void exit(worker_id id, exit_class how) {
    alive_.erase(id);
    serving_.erase(id);
    give(stage::exit(id, how, pick(2) == 0));
  }
  void pass(std::chrono::nanoseconds time) {
    now_ += time;
    give(events::tick{});
  }
  void wake() {
    if (subject_.wake_at() == never) return;
    now_ = std::max(now_, subject_.wake_at());
    give(events::tick{});
  }

  void give(const event& what) {
    const state before = subject_.state();
    const bool forgiving = std::holds_alternative<events::reset>(what) || std::holds_alternative<events::start>(what);
    if (std::holds_alternative<events::reset>(what) || (before == state::half_open)) restarts_.clear();
    const auto probe_due = probe_due_;
    for (const action& each : subject_.handle(what, now_)) {
      seen.actions.insert(each.index());
      std::visit([this](const auto& a) { take(a); }, each);
    }
    seen.states.insert(subject_.state());
    check_state(before, forgiving, probe_due);
    check_workers();
    // Everything that was due has been dealt with: a driver never spins.
    must(subject_.wake_at() > now_, "subject_.wake_at() > now_");
    must(subject_.failing_calls() == failing_, "subject_.failing_calls() == failing_");
    must(subject_.serving() == serving_.size(), "subject_.serving() == serving_.size()");
  }

  void check_state(state before, bool forgiving, time_point probe_due) {
    const state now = subject_.state();
    const bool gone = before == state::gave_up || before == state::quarantined || before == state::ended;
    if (gone && (now == state::running || now == state::half_open) && !forgiving) {
      must(before == state::gave_up, "before == state::gave_up");
      must(now == state::half_open, "now == state::half_open");
      must(probe_due <= now_, "probe_due <= now_");
    }
    if (gone && now == before) must(spawned_ == 0, "spawned_ == 0");
    if (before != state::gave_up && now == state::gave_up)
      probe_due_ = settings_.rules.probe_after > 0ns ? now_ + settings_.rules.probe_after : never;
    if (gone && now == before) must(failing_, "failing_");
    spawned_ = 0;
  }

  // As many as wanted, and those that are on their way out: and at most one successor a place while the old one leaves,
  // or one of the pool's is recycled.
  void check_workers() {
    std::map<std::size_t, unsigned> in_place;
    std::set<worker_id> known;
    unsigned doubled = 0;
    for (const auto& each : subject_.workers()) {
      known.insert(each.id);
      if (each.place) doubled += ++in_place[*each.place] == 2;
      else must(each.state >= worker_state::draining, "each.state >= worker_state::draining");
    }
    must(known == alive_, "known == alive_");
    must(in_place.size() <= settings_.instances + settings_.rules.spares,
         "in_place.size() <= settings_.instances + settings_.rules.spares");
    for (const auto& [place, count] : in_place) must(count <= 2, "count <= 2");
    if (!leaves_) must(doubled <= 1, "doubled <= 1");
    if (subject_.state() != state::running && subject_.state() != state::half_open)
      must(in_place.empty(), "in_place.empty()");
    if (subject_.state() == state::half_open) must(in_place.size() <= 1, "in_place.size() <= 1");
  }

  void take(const actions::spawn& a) {
    must(alive_.insert(a.worker).second, "alive_.insert(a.worker).second");
    must(spawned_before_.insert(a.worker).second, "spawned_before_.insert(a.worker).second");
    ++spawned_;
  }
  void take(const actions::serve& a) {
    serving_.insert(a.worker);
    must(alive_.contains(a.worker), "alive_.contains(a.worker)");
    must(a.place < settings_.instances, "a.place < settings_.instances");
    must(!(failing_), "!(failing_)");
  }
  void take(const actions::ping& a) { must(alive_.contains(a.worker), "alive_.contains(a.worker)"); }
  void take(const actions::drain& a) { end(a.worker, 1); }
  void take(const actions::shutdown& a) { end(a.worker, 2); }
  void take(const actions::kill& a) { end(a.worker, 3); }
  void end(worker_id id, int step) {  // drain, shutdown, kill: never backwards, never twice
    must(alive_.contains(id), "alive_.contains(id)");
    must(ended_[id] < step, "ended_[id] < step");
    ended_[id] = step;
    serving_.erase(id);
  }
  void take(const actions::fail_calls&) { failing_ = true; }
  void take(const actions::admit_calls&) {
    must(failing_, "failing_");
    failing_ = false;
  }
  void take(const actions::stopped&) {}
  void take(const actions::ended&) {}
  void take(const actions::restart_group&) { FAIL(); }
  void take(const actions::reset_group&) { FAIL(); }
  void take(const actions::restarting& a) {
    const auto& rules = settings_.rules;
    must(a.delay >= 0ns, "a.delay >= 0ns");
    must(a.delay <= scaled(rules.backoff.longest, 1 + rules.backoff.jitter),
         "a.delay <= scaled(rules.backoff.longest, 1 + rules.backoff.jitter)");
    if (a.delay > 0ns)
      must(a.delay >= scaled(rules.backoff.first, 1 - rules.backoff.jitter),
           "a.delay >= scaled(rules.backoff.first, 1 - rules.backoff.jitter)");
    restarts_.push_back(now_);
    while (now_ - restarts_.front() >= rules.intensity.period) restarts_.pop_front();
    must(restarts_.size() <= rules.intensity.restarts, "restarts_.size() <= rules.intensity.restarts");
  }
  void take(const actions::degraded& a) { must(a.serving < a.instances, "a.serving < a.instances"); }
  void take(const actions::recovered&) {
    must(subject_.serving() == settings_.instances, "subject_.serving() == settings_.instances");
  }
  void take(const actions::gave_up& a) {
    must(failing_, "failing_");
    must(a.last_exits.size() <= 5, "a.last_exits.size() <= 5");
  }
  void take(const actions::quarantined&) { must(failing_, "failing_"); }
  void take(const actions::soon_heavy&) {}
  void take(const actions::undead& a) { must(ended_[a.worker] == 3, "ended_[a.worker] == 3"); }

  std::mt19937 random_;
  const supervisor_settings settings_;
  supervisor subject_;
  time_point now_{1000s};
  std::set<worker_id> alive_, spawned_before_, serving_;
  std::map<worker_id, int> ended_;
  std::deque<time_point> restarts_;
  bool failing_ = false;
  unsigned spawned_ = 0;
  const bool leaves_ = pick(2) == 0;
  time_point probe_due_ = never;
};

}  // namespace

TEST_CASE("whatever happens in whatever order, the promises hold") {
  for (unsigned seed = 1; seed <= 3000; ++seed) {
    INFO("seed " << seed);
    world(seed).play(500);
  }
  CHECK(seen.states.size() == 7);
  CHECK(seen.actions.size() == std::variant_size_v<action> - 2);  // all but the group's
}
