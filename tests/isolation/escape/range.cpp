// See range.hpp.
#include "range.hpp"

#include "passed.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <sstream>

#include <unistd.h>

namespace bulkhead::testing {
namespace {

// An attempt that is made many times returns two errors in one number when it met with two.
constexpr long two_errors = 4096;

std::string error_name(long error) {
  const char* name = ::strerrorname_np(static_cast<int>(error));
  return name ? name : std::to_string(error);
}

std::vector<stop> read_stops(const std::string& text) {
  std::vector<stop> list;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    stop made;
    const std::size_t colon = word.find(':');
    made.layer = word.substr(0, colon);
    if (colon != std::string::npos) {
      std::istringstream errors(word.substr(colon + 1));
      for (std::string error; std::getline(errors, error, '|');) made.errors.push_back(error);
    }
    list.push_back(std::move(made));
  }
  return list;
}

// An attempt may have killed the last one: a call waits for the next. Whether it succeeds does not matter.
auto worker_of(plugin& of) {
  for (auto list = of.workers();; list = of.workers()) {
    if (!list.empty()) return list.front();
    of.try_call("nothing by this name");
  }
}

}  // namespace

firing_range::firing_range(policy rules, std::string setting)
    : setting_(std::move(setting)), host_(std::make_unique<host>()) {
  if (setting_ == "grants")
    rules.allow_create(outside_.directory() + "/granted")
        .allow_write(outside_.directory() + "/writable")
        .allow_read(outside_.directory() + "/readable")
        .file_size_limit(1 << 20);
  if (setting_.ends_with("returned")) rules.allow_handles().allow_syscalls("memory-files");
  sibling_ = host_->load(BULKHEAD_TEST_PLUGINS "/echo.so");
  attacker_ = host_->load(BULKHEAD_TEST_PLUGINS "/escape.so", {.policy = std::move(rules)});
  tell_facts();
  const auto all = attacker_.call<std::vector<std::vector<std::string>>>("list", setting_);
  for (const auto& each : all)
    attempts_.push_back({static_cast<int>(attempts_.size()), each.at(0), each.at(1), read_stops(each.at(2))});
}

void firing_range::tell_facts() {
  const std::vector<int> numbers = {::getpid(), host_->fork_server_pid(), worker_of(sibling_).pid, outside_.port()};
  attacker_.call("facts", numbers,
                 std::vector<std::string>{outside_.abstract(), outside_.directory() + "/secret", outside_.directory()});
}

sandbox_report firing_range::report() { return worker_of(attacker_).sandbox; }

std::set<std::string> firing_range::layers_in_force() {
  std::set<std::string> names = {"inventory", "kernel"};
  if (!setting_.starts_with("unsealed")) names.insert("seals");
  if (::geteuid() == 0) names.insert("user");  // workers are nobody, and own nothing outside
  for (const sandbox_layer& each : report().layers)
    if (each.in_force) names.insert(each.name);
  return names;
}

// `damage`: what it did outside.
reply firing_range::make_attempt(const attempt& what, std::string& damage) {
  std::optional<outside::mover> mover;
  std::optional<passed> descriptors;
  if (what.family == "swaps by another") mover.emplace(outside_);
  if (setting_.ends_with("passed") || setting_.ends_with("returned"))
    descriptors.emplace(attacker_, outside_.directory(), setting_.ends_with("returned"), !setting_.starts_with("un"));
  reply answer = attacker_.try_call("attempt", setting_, what.index);
  mover.reset();
  damage = outside_.damage();
  if (!damage.empty()) outside_.repair();
  else if (descriptors) damage = descriptors->damage();
  return answer;
}

shot firing_range::fire(const attempt& what, const std::set<std::string>& layers) {
  shot made{&what, "", "", false};
  const auto first =
      std::find_if(what.stops.begin(), what.stops.end(), [&](const stop& s) { return layers.contains(s.layer); });
  if (first == what.stops.end()) {
    made.as_expected = true;
    return made;
  }
  made.expected = first->layer;
  const unsigned before = worker_of(attacker_).violations;
  std::string damage;
  const reply answer = make_attempt(what, damage);
  if (!answer) {
    made.got = "the call ended with " + std::string(to_string(answer.outcome())) + ": " + answer.message();
    attacker_.reset();                 // one that broke the protocol is quarantined
    attacker_.call("list", setting_);  // the next worker
    tell_facts();
    return made;
  }
  const long result = answer.as<long>();
  const auto workers = attacker_.workers();
  const bool denied = !workers.empty() && workers[0].violations != before;
  if (!damage.empty()) {
    made.got = "outside, " + damage;
  } else if (result >= 0) {
    made.got = "succeeded";
  } else {
    bool errors_fit = true;
    for (long rest = -result; rest > 0; rest /= two_errors) {
      const std::string error = error_name(rest % two_errors);
      made.got += (made.got.empty() ? "" : ", ") + error;
      errors_fit &= std::find(first->errors.begin(), first->errors.end(), error) != first->errors.end();
    }
    if (denied) made.got += " by seccomp";
    made.as_expected = first->errors.empty() ? denied : errors_fit && (!denied || first->layer == "seccomp");
  }
  return made;
}

firing_range::number_result firing_range::call_number(int table, int number) {
  const unsigned before = worker_of(attacker_).violations;
  const reply answer = attacker_.try_call("raw", table, number);
  if (!answer) {
    attacker_.call("list", setting_);
    return {0, false, true};
  }
  return {answer.as<long>(), worker_of(attacker_).violations != before, false};
}

}  // namespace bulkhead::testing
