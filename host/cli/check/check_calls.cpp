// What calls show: arguments of all kinds, leaks, deadlines, cancellation, several calls at once.
#include "check/stages.hpp"
#include "values/from_msgpack.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace bulkhead::cli::check {
namespace {

constexpr unsigned plain_cases = 4, samples_kept = 3, enough_failures = 3;
constexpr std::chrono::seconds grace_and_more{2};  // a worker that does not stop is killed after 1 s

std::string text_of(const made_arguments& made) {
  return ipc::sanitised(compact(from_msgpack(ipc::unpack(made.params).get(), bytes_as::summary)), 160);
}

// Seeds are such that a seed alone says which method and which case it is.
std::uint64_t seed_of(const exam& of, std::size_t method, std::uint64_t number) {
  return (of.with.seed * 1'000'003 + number) * of.methods.size() + method;
}

struct case_made {
  std::uint64_t seed;
  bool plain;
  made_arguments arguments;
};

case_made make_case(const exam& of, std::size_t method, std::uint64_t number) {
  const std::uint64_t seed = seed_of(of, method, number);
  const bool plain = number < plain_cases;
  return {seed, plain, make(of.methods[method].form, seed, plain)};
}

void keep_sample(method_under_check& method, const case_made& made, const reply& done) {
  if (!made.arguments.wrong.empty()) return;
  const bool fine = static_cast<bool>(done);
  if (!fine && done.outcome() != outcome::plugin_error) return;
  sample kept{made.arguments, done.outcome(),
              fine ? std::vector(done.raw().begin(), done.raw().end()) : std::vector<std::uint8_t>()};
  auto& all = method.samples;
  if (fine)
    all.insert(std::find_if(all.begin(), all.end(), [](const sample& s) { return s.how != outcome::ok; }), kept);
  else all.push_back(kept);
  if (all.size() > samples_kept) all.resize(samples_kept);
}

// One case, and what is wrong with what came of it; empty if nothing is.
std::string judge(method_under_check& method, const case_made& made, const reply& done) {
  const std::string with = text_of(made.arguments);
  switch (done.outcome()) {
    case outcome::ok: {
      if (!made.arguments.wrong.empty())
        return fmt::format("accepts arguments that its signature {} forbids ({}): {}", method.info.signature,
                           made.arguments.wrong, with);
      const msgpack::object_handle value = ipc::unpack(done.raw());
      if (!fits(method.form.result, value.get()))
        return fmt::format("answers {}, which is not {} as its signature says, to {}",
                           ipc::sanitised(compact(from_msgpack(value.get(), bytes_as::summary)), 80),
                           to_string(method.form.result), with);
      return "";
    }
    case outcome::plugin_error:
      if (done.message().find("an exception left the plugin") != std::string::npos)
        return "lets an exception out, which only C++ workers survive: " + done.message() + "; with " + with;
      if (done.message().find("not one MessagePack value") != std::string::npos)
        return "answers with bytes that are not one MessagePack value to " + with;
      return "";
    case outcome::timeout:
      if (made.arguments.wrong.empty() && !method.slow) method.slow = made.arguments;
      return "";
    default: return describe(done) + "; with " + with;
  }
}

}  // namespace

std::string describe(const reply& failed) {
  std::string text(to_string(failed.outcome()));
  text += ": " + (failed.report() ? "its worker " + failed.report()->summary() : failed.message());
  if (failed.report() && !failed.report()->message.empty()) text += " (" + failed.report()->message + ")";
  return text;
}

void check_arguments(exam& of, result& found) {
  subject under(of.with, of.rules, "report_every=0");
  unsigned made = 0;
  for (std::size_t m = 0; m < of.methods.size(); ++m) {
    method_under_check& method = of.methods[m];
    if (!method.typed) continue;
    unsigned failures = 0, slow = 0;
    for (std::uint64_t n = 0; n < of.with.cases && failures < enough_failures && slow < enough_failures; ++n) {
      const case_made next = make_case(of, m, n);
      const reply done = under.call(method.info, method.form, next.arguments, {});
      ++made;
      keep_sample(method, next, done);
      std::string wrong;
      const auto end = done.outcome() == outcome::timeout ? under.died() : nullptr;
      if (end) wrong = "worker_lost: its worker " + end->summary() + "; with " + text_of(next.arguments);
      else wrong = judge(method, next, done);
      slow += !end && done.outcome() == outcome::timeout;
      if (!wrong.empty()) {
        found.fail(
            fmt::format("'{}' {} (--reproduce {})", method.info.name, wrong, next.seed * 2 + (next.plain ? 1 : 0)));
        ++failures;
      }
    }
  }
  found.note = fmt::format("{} calls with made-up arguments", made);
  of.keep(under.finish());
}

void reproduce(exam& of, std::uint64_t seed, result& found) {
  const bool plain = seed % 2 == 1;
  const std::size_t m = static_cast<std::size_t>(seed / 2 % of.methods.size());
  method_under_check& method = of.methods[m];
  const case_made next{seed / 2, plain, make(method.form, seed / 2, plain)};
  subject under(of.with, of.rules, "report_every=0");
  const reply done = under.call(method.info, method.form, next.arguments, {});
  found.note = fmt::format("'{}' with {}: {}", method.info.name, text_of(next.arguments), to_string(done.outcome()));
  const auto end = done.outcome() == outcome::timeout ? under.died() : nullptr;
  const std::string wrong = end ? "worker_lost: its worker " + end->summary() : judge(method, next, done);
  if (!wrong.empty()) found.fail(fmt::format("'{}' {}", method.info.name, wrong));
  of.keep(under.finish());
  for (const std::string& each : of.misuses) found.fail(each);
}

// --- leaks -------------------------------------------------------------------------------------------------------------

namespace {

long threads_of(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("Threads:")) return std::atol(line.c_str() + 8);
  return 0;
}

struct usage {
  long heap = 0, descriptors = 0, blobs = 0, answers = 0, threads = 0, resident = 0;
};

// How much more there is at the end than in the middle: caches are full by then.
void judge_leaks(const method_under_check& method, const std::vector<measure>& measures, const usage& middle,
                 const usage& end, long calls, result& found) {
  const auto tell = [&](const char* what, long grown, const char* unit) {
    found.fail(fmt::format("'{}' leaks {}: {}{} more after {} calls", method.info.name, what, grown, unit, calls));
  };
  const std::size_t count = measures.size();
  // There are 256 at most, so they are used up soon.
  if (count >= 2)
    if (const long fds = measures.back().descriptors - measures.front().descriptors; fds >= 16)
      tell("descriptors", fds, "");
  if (count >= 8) {
    const auto least = [&](std::size_t from, std::size_t to, auto of) {
      return std::min_element(measures.begin() + from, measures.begin() + to,
                              [&](const measure& a, const measure& b) { return of(a) < of(b); });
    };
    // From the second quarter to the last. A leak goes on: a cache that grows in steps does not do so from each quarter to
    // the next.
    const auto growth = [&](auto of) {
      const long second = of(*least(count / 4, count / 2, of)), third = of(*least(count / 2, count * 3 / 4, of)),
                 last = of(*least(count * 3 / 4, count, of));
      return 2 * std::min(third - second, last - third);
    };
    const long between = measures[count - 1].calls - measures[count / 2].calls;
    const long heap = growth([](const measure& m) { return m.heap; });
    // The least that malloc() takes is 32 bytes: once in two calls. What it keeps of freed memory counts as used, and grows for
    // a while.
    if (heap >= 4096 && heap >= 16 * between)
      found.fail(
          fmt::format("'{}' leaks memory: {} bytes with each call", method.info.name, heap / std::max(1L, between)));
    if (const long blobs = growth([](const measure& m) { return m.blobs; }); blobs >= 4)
      tell("blobs (release_blob())", blobs, "");
    if (const long answers = growth([](const measure& m) { return m.answers; }); answers >= 4)
      tell("answers (release_answer())", answers, "");
  }
  if (end.threads - middle.threads >= 4) tell("threads", end.threads - middle.threads, "");
#ifndef BULKHEAD_SANITIZED  // a sanitizer keeps what was freed for a while
  const long pages = end.resident - middle.resident;
  if (found.failures.empty() && pages > (4L << 20) && pages > 64 * calls / 2)
    tell("memory", pages >> 10, " KiB resident");
#endif
}

}  // namespace

void check_leaks(exam& of, result& found) {
  unsigned usable = 0, made = 0;
  for (const auto& method : of.methods) usable += !method.samples.empty();
  if (usable == 0) {
    found.skipped = true;
    found.note = "no arguments were found with which a method does its work";
    return;
  }
  const unsigned each = std::max(of.with.calls / usable, 400u);
  const unsigned every = std::max(each / 40, 1u);
  for (const auto& method : of.methods) {
    if (method.samples.empty()) continue;
    subject under(of.with, of.rules, "report_every=" + std::to_string(every));
    usage middle, end;
    bool died = false;
    pid_t pid = -1;
    const auto look = [&](usage& at) {
      for (const worker_info& worker : under.target().workers()) {
        at.resident = static_cast<long>(worker.resident_bytes);
        at.threads = threads_of(worker.pid);
        if (pid > 0 && worker.pid != pid) died = true;
        pid = worker.pid;
      }
    };
    const auto begin = std::chrono::steady_clock::now();
    unsigned n = 0;
    for (; n < each && !died; ++n) {
      if (n == each / 2) look(middle);
      const sample& with = method.samples[n % method.samples.size()];
      const reply done = under.call(method.info, method.form, with.arguments, {});
      if (done.outcome() != with.how && done.outcome() != outcome::timeout) {
        found.fail(fmt::format("'{}' has ended with {} and does so no more after {} calls: {}", method.info.name,
                               to_string(with.how), n, describe(done)));
        died = true;
      }
      if (n == each / 2 + every && std::chrono::steady_clock::now() - begin > std::chrono::seconds(30)) break;
    }
    made += n;
    look(end);
    const observations& seen = under.finish();
    of.keep(seen);
    if (n >= every) judge_leaks(method, seen.measures, middle, end, each, found);
  }
  found.note = fmt::format("{} calls: memory, descriptors, threads, blobs, answers", made);
}

// What a call ended with; or how its worker died, if it was made again after that.
static std::string end_of(subject& under, const reply& done) {
  const auto end = done.outcome() == outcome::timeout ? under.died() : nullptr;
  return end ? "its worker " + end->summary() : describe(done);
}

// --- deadlines and cancellation ----------------------------------------------------------------------------------------

namespace {

// What comes of a call that goes on when it has to stop; the reply, and whether its worker had to be killed.
template <class Make>
bool was_killed(exam& of, const method_under_check& method, Make&& options) {
  subject under(of.with, of.rules);
  std::stop_source stop;
  call_options how;
  options(how, stop);
  std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop.request_stop();
  });
  under.call(method.info, method.form, *method.slow, how);
  // Whatever the worker is at, the next call waits for it, or for its successor.
  call_options patient;
  patient.deadline = of.with.deadline + grace_and_more;
  made_arguments wrong;
  wrong.params = {0x91, 0x93, 0xc0, 0xc0, 0xc0};
  under.target().call_packed(method.info.name, with_handles(wrong), patient);
  under.finish();
  return under.hung();
}

// On a busy machine a good one may be late once.
template <class Make>
bool had_to_be_killed(exam& of, const method_under_check& method, Make&& options) {
  return was_killed(of, method, options) && was_killed(of, method, options);
}

bool any_slow(const exam& of, result& found) {
  for (const auto& method : of.methods)
    if (method.slow) return true;
  found.note = fmt::format("no call took longer than {} ms",
                           std::chrono::duration_cast<std::chrono::milliseconds>(of.with.deadline).count());
  return false;
}

}  // namespace

void check_deadlines(exam& of, result& found) {
  if (!any_slow(of, found)) return;
  found.note = "calls that run into their deadline";
  for (const auto& method : of.methods)
    if (method.slow && had_to_be_killed(of, method, [](call_options& how, std::stop_source&) {
          how.deadline = std::chrono::milliseconds(50);
        }))
      found.fail(
          fmt::format("'{}' goes on for more than a second after its deadline, until it is killed; with {}. Ask "
                      "cancelled() in each loop that may run for long",
                      method.info.name, text_of(*method.slow)));
}

void check_cancellation(exam& of, result& found) {
  found.note = "found cancelled at its 1st, 2nd and 3rd look at the host";
  for (const unsigned step : {1u, 2u, 3u}) {
    subject under(of.with, of.rules, "cancel_at=" + std::to_string(step));
    for (const auto& method : of.methods) {
      if (method.samples.empty()) continue;
      call_options patient;
      patient.deadline = std::chrono::seconds(10);
      const reply done = under.call(method.info, method.form, method.samples.front().arguments, patient);
      if (done.outcome() != outcome::ok && done.outcome() != outcome::plugin_error)
        found.fail(fmt::format("'{}' that is cancelled at step {}: {}", method.info.name, step, end_of(under, done)));
    }
    of.keep(under.finish());
  }
  for (const auto& method : of.methods)
    if (method.slow && had_to_be_killed(of, method, [](call_options& how, std::stop_source& stop) {
          how.deadline = std::chrono::seconds(10);
          how.stop = stop.get_token();
        }))
      found.fail(fmt::format("'{}' goes on for more than a second after it was cancelled, until it is killed; with {}",
                             method.info.name, text_of(*method.slow)));
}

// --- several at once ---------------------------------------------------------------------------------------------------

void check_threads(exam& of, result& found) {
  constexpr unsigned threads = 4, rounds = 50;
  if (of.info.concurrency < 2) {
    found.skipped = true;
    found.note = "it gets one call at a time: its manifest does not say thread_safe=yes";
    return;
  }
  found.note = "4 threads at once, compared with one";
  subject under(of.with, of.rules);
  std::mutex mutex;
  for (const auto& method : of.methods) {
    if (method.samples.empty() || method.slow) continue;
    std::vector<std::jthread> callers;
    for (unsigned t = 0; t < threads; ++t)
      callers.emplace_back([&] {
        for (unsigned i = 0; i < rounds; ++i) {
          const sample& with = method.samples[i % method.samples.size()];
          const reply done = under.call(method.info, method.form, with.arguments, {});
          std::string wrong;
          if (done.outcome() == outcome::timeout) continue;  // a busy machine
          if (done.outcome() != with.how) wrong = "ends with " + describe(done);
          else if (done && method.info.idempotent &&
                   !std::equal(done.raw().begin(), done.raw().end(), with.result.begin(), with.result.end()))
            wrong = "gives another result";
          if (wrong.empty()) continue;
          std::lock_guard held(mutex);
          found.fail(fmt::format("'{}' called by several threads at once {}", method.info.name, wrong));
        }
      });
  }
  of.keep(under.finish());
}

void check_host_use(exam& of, result& found) {
  found.note = "answers, threads, what is used after its end";
  for (const std::string& each : of.misuses) found.fail(each);
}

}  // namespace bulkhead::cli::check
