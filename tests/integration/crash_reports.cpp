// What a crash report says: the stack of the worker that died, as far as it can be had, in whatever state it died.
#include "fixture.hpp"

#include <algorithm>
#include <csignal>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

std::shared_ptr<const crash_report> crash(const plugin& chaos, const std::string& how) {
  const reply lost = chaos.try_call("misbehave", how);
  REQUIRE(lost.outcome() == outcome::worker_lost);
  REQUIRE(lost.report());
  return lost.report();
}

using frames = std::vector<stack_frame>;

frames of(const crash_report& report, code_origin origin) {
  frames found;
  std::copy_if(report.stack.begin(), report.stack.end(), std::back_inserter(found),
               [&](const stack_frame& each) { return each.origin == origin; });
  return found;
}

std::string shown(const crash_report& report) {
  std::string text = report.summary();
  for (const stack_frame& each : report.stack) {
    char line[256];
    std::snprintf(line, sizeof line, "\n%s%s %#llx %s+%#llx %s", std::string(to_string(each.origin)).c_str(),
                  each.guessed ? "?" : "", static_cast<unsigned long long>(each.address), each.module.c_str(),
                  static_cast<unsigned long long>(each.offset), each.function.c_str());
    text += line;
  }
  return text;
}

}  // namespace

#ifndef BULKHEAD_SANITIZED  // a sanitizer's runtime has frames, handlers and limits of its own

TEST_CASE("a crash report has the whole stack, from the instruction that crashed to the program's start") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const auto report = crash(chaos, "segfault");
  INFO(shown(*report));
  REQUIRE(report->stack.size() > 6);
  CHECK(report->frames_omitted == 0);
  const stack_frame& first = report->stack.front();
  CHECK(first.origin == code_origin::plugin);
  CHECK(first.module == plugin_path("chaos"));
  CHECK(first.address == report->instruction_pointer);
  CHECK(first.offset < std::filesystem::file_size(plugin_path("chaos")));
  CHECK(first.build_id.size() == 40);
  CHECK(report->stack_pointer != 0);
  CHECK(of(*report, code_origin::plugin).size() >= 3);  // the fault, misbehave(), what the SDK puts around it
  CHECK(report->stack.back().origin == code_origin::worker);
  for (const stack_frame& each : report->stack) {
    CHECK_FALSE(each.guessed);
    CHECK(each.address > each.offset);
    if (each.origin == code_origin::library) CHECK(std::filesystem::exists(each.module));
  }
}

TEST_CASE("threads of the plugin's have a stack in the report, too") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const auto report = crash(chaos, "uncaught_exception_in_thread");
  INFO(shown(*report));
  CHECK(report->signal == SIGABRT);
  CHECK(of(*report, code_origin::plugin).size() == 1);
  CHECK(report->stack.front().origin == code_origin::library);  // where abort() raises the signal
  CHECK(report->stack.back().origin == code_origin::library);   // where the thread began
}

TEST_CASE("a stack that has overflowed is recorded from both of its ends") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const auto report = crash(chaos, "stack_overflow");
  INFO(shown(*report));
  CHECK(report->signal == SIGSEGV);
  CHECK(report->method == "misbehave");
  CHECK(report->stack.size() == 64);
  CHECK(report->frames_omitted > 1000);
  CHECK(report->stack.front().origin == code_origin::plugin);
  CHECK(report->stack.back().origin == code_origin::worker);
  CHECK(report->stack[10].address == report->stack[40].address);  // the same call again and again
  CHECK(report->stack[60].address != report->stack[40].address);

  const auto in_thread = crash(chaos, "thread_stack_overflow");
  INFO(shown(*in_thread));
  CHECK(in_thread->signal == SIGSEGV);
  CHECK(in_thread->stack.size() == 64);
  CHECK(in_thread->fault_address != 0);
}

TEST_CASE("of a smashed stack the report has what is left, and says which frames are guesses") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  struct expected {
    const char* how;
    int signal;
    code_origin first;
  };
  const auto wanted = GENERATE(values<expected>({{"smashed_stack", SIGABRT, code_origin::library},
                                                 {"smashed_return", SIGSEGV, code_origin::plugin},
                                                 {"smashed_everything", SIGSEGV, code_origin::plugin},
                                                 {"jump_to_null", SIGSEGV, code_origin::unknown}}));
  const auto report = crash(chaos, wanted.how);
  INFO(wanted.how << " " << shown(*report));
  CHECK(report->reason == exit_reason::signalled);
  CHECK(report->signal == wanted.signal);
  CHECK(report->method == "misbehave");
  REQUIRE(report->stack.size() > 2);
  CHECK(report->stack.front().origin == wanted.first);
  CHECK_FALSE(report->stack.front().guessed);
  CHECK(report->stack.back().guessed);
  CHECK(report->stack.back().origin == code_origin::worker);  // _start
  if (std::string_view(wanted.how) != "smashed_everything")
    CHECK(of(*report, code_origin::plugin).size() >= 3);  // misbehave() was above what was overwritten
}

TEST_CASE("a worker killed for what its policy denies leaves its stack, too") {
  host host;
  auto chaos = host.load(plugin_path("chaos"), {.policy = policy{}.kill_on_denial()});
  const auto report = crash(chaos, "bus_error");
  INFO(shown(*report));
  CHECK(report->reason == exit_reason::violation);
  CHECK(of(*report, code_origin::plugin).size() >= 3);
  CHECK(report->stack.back().origin == code_origin::worker);
}

#endif
