// See subject.hpp.
#include "check/subject.hpp"

#include <cstdio>

namespace bulkhead::cli::check {
namespace {

constexpr unsigned many = 1'000'000;
constexpr unsigned items_taken = 1000;

}  // namespace

subject::subject(const settings& with, const policy& rules, const std::string& instrument, load_options changed) {
  host_options for_host = with.for_host;
  for_host.on_log = [this](const log_record& line) { log(line); };
  for_host.on_lifecycle = [this](const lifecycle_event& event) {
    if (!event.report) return;
    std::lock_guard held(mutex_);
    if (event.kind == lifecycle_event::kind::exited) seen_.exits.push_back(event.report);
  };
  for_host.on_violation = [this](const violation& what) {
    std::lock_guard held(mutex_);
    if (seen_.denials.size() < 10000) seen_.denials.push_back(what);
  };
  for_host.spawns = {4, {many, std::chrono::seconds(10)}};
  host_.emplace(for_host);

  load_options options = with.for_load;
  options.instances = 1;
  options.state = changed.state;
  options.policy = rules;
  options.deadline = with.deadline;
  options.keep_requests = 0;
  options.poison_limit = 0;
  options.sent_ahead = 0;
  options.supervision.intensity.restarts = many;
  options.supervision.backoff.first = std::chrono::milliseconds(5);
  options.supervision.backoff.longest = std::chrono::milliseconds(100);
  options.supervision.recycle = {0, std::chrono::nanoseconds(0), 0, 0.1};
  if (!instrument.empty()) options.environment.push_back("BULKHEAD_INSTRUMENT=" + instrument);
  target_ = host_->load(with.file, options);
}

subject::~subject() { finish(); }

void subject::log(const log_record& line) {
  std::lock_guard held(mutex_);
  measure found;
  if (line.text.starts_with("misuse: ")) seen_.misuses.insert(line.text.substr(8));
  else if (line.text.starts_with("instrument: asked for ")) seen_.extensions.insert(line.text.substr(22));
  else if (std::sscanf(line.text.c_str(), "instrument: calls=%ld heap=%ld descriptors=%ld blobs=%ld answers=%ld",
                       &found.calls, &found.heap, &found.descriptors, &found.blobs, &found.answers) == 5)
    seen_.measures.push_back(found);
}

reply subject::call(const method_info& method, const signature& form, const made_arguments& made,
                    const call_options& how) const {
  if (!form.streamed_arguments && !form.streamed_results)
    return target_.call_packed(method.name, with_handles(made), how);
  streaming_call call = target_.open_packed(method.name, with_handles(made), how);
  try {
    for (const auto& item : made.items)
      if (!call.send_packed(item)) break;
    call.close();
    for (unsigned i = 0; i < items_taken; ++i)
      if (!call.next_packed()) break;
  } catch (const call_error&) {  // finish() says the same
  }
  return call.finish();
}

bool subject::hung() {
  std::lock_guard held(mutex_);
  std::size_t hangs = 0;
  for (const auto& each : seen_.exits) hangs += each->reason == exit_reason::hung;
  return std::exchange(hangs_seen_, hangs) != hangs;
}

std::shared_ptr<const crash_report> subject::died() {
  std::lock_guard held(mutex_);
  std::shared_ptr<const crash_report> found;
  for (; ends_seen_ < seen_.exits.size(); ++ends_seen_) {
    const auto& each = seen_.exits[ends_seen_];
    if (!found && each->reason != exit_reason::shut_down && each->reason != exit_reason::hung) found = each;
  }
  return found;
}

const observations& subject::finish(std::chrono::nanoseconds* in) {
  if (host_) {
    const auto begin = std::chrono::steady_clock::now();
    target_.unload();
    if (in) *in = std::chrono::steady_clock::now() - begin;
    target_ = {};
    host_.reset();
  }
  return seen_;
}

observations subject::so_far() {
  std::lock_guard held(mutex_);
  return seen_;
}

}  // namespace bulkhead::cli::check
