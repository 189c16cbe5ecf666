// What becomes of a plugin that is stopped, killed, reloaded; and what it needs of the machine beside what it asks for.
#include "check/stages.hpp"
#include <bulkhead/plugin.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <thread>

namespace bulkhead::cli::check {
namespace {

constexpr std::chrono::milliseconds shutdown_limit{900};  // it is killed after 1 s

const method_under_check* with_sample(const exam& of) {
  const method_under_check* any = nullptr;
  for (const auto& each : of.methods) {
    if (each.samples.empty()) continue;
    if (each.samples.front().how == outcome::ok) return &each;
    if (!any) any = &each;
  }
  return any;
}

// Calls with a sample; says what is other than it was.
std::string again(const subject& under, const method_under_check& method) {
  const sample& with = method.samples.front();
  call_options how;
  how.deadline = std::chrono::seconds(5);  // the machine may be busy
  const reply done = under.call(method.info, method.form, with.arguments, how);
  return done.outcome() == with.how ? "" : fmt::format("'{}' ends with {}", method.info.name, describe(done));
}

// Kills the worker while a call is in progress, which the worker's instrument makes long enough to be hit; says what comes
// of the call that follows it. Whether what the killed one left behind is in the way of others, those will tell.
std::string kill_in_call(exam& of, const method_under_check& method, const load_options& changed) {
  constexpr unsigned attempts = 20;
  constexpr std::chrono::milliseconds well_into_it{20};
  subject under(of.with, of.rules, "slow_us=50000", changed);
  bool killed = false;
  for (unsigned n = 0; n < attempts && !killed; ++n) {
    std::atomic<bool> over{false};
    std::jthread caller([&] {
      again(under, method);
      over = true;
    });
    const auto running = [&] {
      for (const worker_info& worker : under.target().workers())
        if (worker.phase == phase::call) return worker.pid;
      return pid_t{-1};
    };
    pid_t pid = -1;
    while (!over && (pid = running()) < 0) std::this_thread::yield();
    std::this_thread::sleep_for(well_into_it);
    if (pid > 0 && running() == pid) killed = ::kill(pid, SIGKILL) == 0;
  }
  if (!killed) return "";  // it is too short to be hit
  call_options how;
  how.deadline = std::chrono::seconds(30);
  const sample& with = method.samples.front();
  const reply next = under.call(method.info, method.form, with.arguments, how);
  if (next.outcome() == with.how || next.outcome() == outcome::timeout) return "";  // a timeout: it is slow, on purpose
  return fmt::format("'{}' ends with {}", method.info.name, describe(next));
}

bool covers(const std::string& request, const std::string& grant) {
  try {
    return policy{}.add(request).refused({grant}).empty();
  } catch (const std::invalid_argument&) {
    return false;
  }
}

// Of all ends of workers: those that were none in good order.
void judge_ends(const observations& seen, const char* when, result& found) {
  for (const auto& each : seen.exits)
    if (each->reason != exit_reason::shut_down && each->signal != SIGKILL)
      found.fail(fmt::format("{}: its worker {}", when, each->summary()));
}

}  // namespace

void check_life(exam& of, result& found) {
  const method_under_check* method = with_sample(of);
  found.note = "stopped, killed, reloaded";
  {
    subject under(of.with, of.rules, "report_every=0");
    if (method)
      if (const auto wrong = again(under, *method); !wrong.empty()) found.fail("called for the first time: " + wrong);
    std::chrono::nanoseconds took{};
    const observations& seen = under.finish(&took);
    judge_ends(seen, "when it is stopped", found);
    if (took > shutdown_limit)
      found.fail(fmt::format("destroy() takes {} ms: a worker is killed 1 s after it was told to stop",
                             std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
    of.keep(seen);
  }
  if (!method) return;
  {
    load_options changed;
    changed.state.keep = of.info.keeps_state;
    std::string wrong = kill_in_call(of, *method, changed);
    subject under(of.with, of.rules, "", changed);
    const std::string fresh = again(under, *method);
    if (wrong.empty()) wrong = fresh;
    if (!wrong.empty()) found.fail("after its worker was killed in a call: " + wrong);
    for (const worker_info& worker : under.target().workers()) ::kill(worker.pid, SIGKILL);
    // The call may have been given to the worker that is about to be found dead.
    wrong = again(under, *method);
    if (!wrong.empty()) wrong = again(under, *method);
    if (!wrong.empty()) found.fail("after its worker was killed: " + wrong);
    try {
      under.target().reload(of.with.file);
      if (wrong = again(under, *method); !wrong.empty()) found.fail("after a reload: " + wrong);
    } catch (const call_error& e) {
      found.fail("it can't be reloaded: " + e.message());
    }
    judge_ends(under.finish(), "when it is killed and reloaded", found);
  }
  if (of.info.keeps_state) found.note += ", with its state";
}

void check_permissions(exam& of, result& found) {
  constexpr unsigned rounds = 12, calls = 12;
  // What it is denied, it needs. It gets what it asks for a piece at a time, as it turns out to be needed, until nothing
  // is denied that it asks for.
  const std::vector<std::string>& requests = of.info.requests;
  std::set<std::string> used, needed;
  if (of.info.requests.empty()) used.insert("");  // gets what the command line grants: nothing is cut off
  for (unsigned round = 0; round < rounds; ++round) {
    policy rules = policy{}.explain().at_least(of.with.most.granted().required);
    for (const std::string& each : requests)
      if (used.contains(each) || each.starts_with("memory") || each.starts_with("threads")) rules.add(each);
    observations seen;
    settings with = of.with;
    if (requests.empty()) rules = policy(of.with.most).explain();
    try {
      subject under(with, rules, "report_every=0");
      for (const auto& method : of.methods) {
        unsigned n = 0;
        for (const sample& each : method.samples)
          if (n++ < calls) under.call(method.info, method.form, each.arguments, {});
      }
      seen = under.finish();
    } catch (const call_error& e) {
      if (e.outcome() != outcome::unavailable) throw;
      // It does not start without: what it was denied tells why.
      settings patient = with;
      std::mutex mutex;
      patient.for_host.on_violation = [&](const violation& what) {
        std::lock_guard held(mutex);
        seen.denials.push_back(what);
      };
      host other(patient.for_host);
      load_options options = patient.for_load;
      options.policy = rules;
      try {
        other.load(patient.file, options);
      } catch (const call_error&) {  // as before
      }
      other.shutdown();
    }
    const std::size_t before = used.size();
    for (const violation& each : seen.denials) {
      if (each.grant.empty()) {
        needed.insert(fmt::format("it calls {}({}), which no grant allows", each.system_call, each.arguments));
        continue;
      }
      bool asked = false;
      const bool any_port = each.grant.ends_with(":PORT");  // the call that would name it comes later
      for (const std::string& request : requests) {
        if (!(any_port ? request.starts_with(each.grant.substr(0, each.grant.find(':') + 1))
                       : covers(request, each.grant)))
          continue;
        used.insert(request);
        asked = true;
      }
      if (!asked)
        needed.insert(fmt::format("it needs {}, and does not ask for it ({}{})", each.grant, each.system_call,
                                  each.method.empty() ? "" : " in '" + each.method + "'"));
    }
    if (of.extensions.contains(BULKHEAD_SEND_HANDLES) || seen.extensions.contains(BULKHEAD_SEND_HANDLES)) {
      if (std::find(requests.begin(), requests.end(), "handles") != requests.end()) used.insert("handles");
      else needed.insert("it sends descriptors, and does not ask for handles");
    }
    if (used.size() == before) break;
  }
  for (const std::string& each : needed) found.fail(each);
  unsigned limits = 0;
  for (const std::string& each : requests) {
    if (each.starts_with("memory") || each.starts_with("threads")) ++limits;
    else if (!used.contains(each))
      found.warn("it asks for " + each +
                 ", which none of the calls made here needed; don't ask for what it can do without");
  }
  found.note = requests.empty() ? "it asks for nothing" : fmt::format("{} requests", requests.size());
}

}  // namespace bulkhead::cli::check
