// Faults at each moment of a worker's life but calls (for those, misbehaviour.cpp): while its library is loaded, made,
// initialised and destroyed. Each has its one right outcome and report, in time, and nothing is left behind.
#include "fixture.hpp"

#include <csignal>
#include <optional>

namespace bulkhead::testing::moments {
namespace {

// How a worker ended.
struct account {
  exit_reason reason;
  int number;  // its exit code, or the signal
  phase where;

  bool operator==(const account&) const = default;
};

account account_of(const crash_report& report) {
  return {report.reason, report.reason == exit_reason::exited ? report.exit_code : report.signal, report.phase};
}

std::ostream& operator<<(std::ostream& out, const account& of) {
  return out << to_string(of.reason) << " " << of.number << " in " << to_string(of.where);
}

struct fault {
  const char* kind;
  exit_reason reason;
  int number = 0;
};

constexpr auto signalled = exit_reason::signalled, exited = exit_reason::exited, closed = exit_reason::closed,
               protocol = exit_reason::protocol, shut_down = exit_reason::shut_down;

// In a host of its own, with another plugin that must not notice anything.
class trial {
 public:
  trial() {
    std::thread([] {}).join();        // ThreadSanitizer's own thread begins with the first
    happen("create", "exit_3", 20s);  // so does what a host starts when it is first needed
    descriptors_ = entries("/proc/self/fd");
    threads_ = entries("/proc/self/task");
  }

  void run(const std::string& moment, phase where, const std::vector<fault>& faults) {
    for (const auto& [kind, reason, number] : faults) {
      INFO(kind << " in " << moment);
      const bool hangs = number == SIGKILL && (reason == exit_reason::start_timeout || reason == shut_down);
      const auto limit = hangs ? 1s * slowness : 20s;
      const auto began = std::chrono::steady_clock::now();
      CHECK(happen(moment, kind, limit) == account{reason, number, where});
      const auto took = std::chrono::steady_clock::now() - began;
      if (hangs) CHECK(took >= limit);
      CHECK(took < (hangs ? limit + 5s : limit));
      CHECK(neighbour_.call<int>("add", 20, 22) == 42);
      // Threads of the host let go of the last of it.
      eventually([&] { return entries("/proc/self/fd") == descriptors_; });
      CHECK(entries("/proc/self/fd") == descriptors_);
      CHECK(entries("/proc/self/task") == threads_);
    }
  }

 private:
#ifdef BULKHEAD_SANITIZED
  static constexpr int slowness = 8;
#else
  static constexpr int slowness = 1;
#endif

  // `limit`: for its start, or for its end if that is the moment.
  account happen(const std::string& moment, const std::string& kind, std::chrono::nanoseconds limit) {
    load_options options;
    (moment == "destroy" ? options.supervision.drain.shutdown : options.start_timeout) = limit;
    if (kind == "memory_bomb") options.memory_limit = std::size_t{96} << 20;
    options.environment = {"BULKHEAD_CHAOS_AT=" + moment, "BULKHEAD_CHAOS=" + kind};
    pid_t pid = -1;
    try {
      auto chaos = host_.load(plugin_path("chaos"), options);
      CHECK(chaos.call<int>("echo", 1) == 1);
      pid = chaos.workers().at(0).pid;
    } catch (const call_error& error) {
      CHECK(error.outcome() == outcome::unavailable);
      return error.report() ? account_of(*error.report()) : account{};
    }
    // It was unloaded.
    account how{};
    CHECK(ends_.wait([&](const auto& all) {
      const auto found = std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.first == pid; });
      if (found != all.end()) how = found->second;
      return found != all.end();
    }));
    return how;
  }

  mailbox<std::pair<pid_t, account>> ends_;
  host host_{{.on_lifecycle =
                  [this](const lifecycle_event& event) {
                    if (event.report) ends_.put({event.report->pid, account_of(*event.report)});
                  },
              .spawns = any_number_of_spawns}};
  plugin neighbour_ = host_.load(plugin_path("echo"));
  std::size_t descriptors_ = 0, threads_ = 0;
};

const std::vector<fault> at_any_time = {
    {"segfault", signalled, SIGSEGV},           {"abort", signalled, SIGABRT},
    {"stack_overflow", signalled, SIGSEGV},     {"exit_3", exited, 3},
    {"garbage_on_channel", protocol, SIGKILL},  {"close_all_fds", closed, SIGKILL},
    {"close_channel", closed, SIGKILL},         {"bus_error", signalled, SIGBUS},
    {"illegal_instruction", signalled, SIGILL}, {"uncaught_exception_in_thread", signalled, SIGABRT},
#ifndef BULKHEAD_SANITIZED
    {"divide_by_zero", signalled, SIGFPE},      {"memory_bomb", exit_reason::out_of_memory, SIGABRT},
#endif
};

const std::vector<fault> before_it_is_ready = {
    {"exit_0", exited, 0},
    {"_exit_0", exited, 0},
    {"endless_loop", exit_reason::start_timeout, SIGKILL},
    {"deadlock", exit_reason::start_timeout, SIGKILL},
};

// Its plugin is made, serves, and is unloaded.
const std::vector<fault> survived = {{"stdout_flood", shut_down, 0}};

}  // namespace

TEST_CASE("each fault while a library is loaded makes its plugin unavailable, with its phase and reason") {
  trial each;
  each.run("constructor", phase::load, at_any_time);
  each.run("constructor", phase::load, before_it_is_ready);
  each.run("constructor", phase::load, {{"exception", signalled, SIGABRT}, {"foreign_exception", signalled, SIGABRT}});
  each.run("constructor", phase::shutdown, survived);
}

TEST_CASE("each fault while a plugin is made makes it unavailable, with its phase and reason") {
  trial each;
  each.run("create", phase::load, at_any_time);
  each.run("create", phase::load, before_it_is_ready);
  each.run("create", phase::load, {{"exception", exited, 1}, {"foreign_exception", exited, 1}});
  each.run("create", phase::shutdown, survived);
}

TEST_CASE("each fault while a plugin is initialised makes it unavailable, with its phase and reason") {
  trial each;
  each.run("init", phase::init, at_any_time);
  each.run("init", phase::init, before_it_is_ready);
  each.run("init", phase::init, {{"exception", exited, 1}, {"foreign_exception", exited, 1}});
  each.run("init", phase::shutdown, survived);
}

TEST_CASE("each fault while a plugin is destroyed ends its worker, with its phase and reason, and holds up nobody") {
  trial each;
  each.run("destroy", phase::shutdown, at_any_time);
  each.run("destroy", phase::shutdown,
           {{"exit_0", shut_down, 0},
            {"_exit_0", shut_down, 0},
            {"endless_loop", shut_down, SIGKILL},
            {"deadlock", shut_down, SIGKILL},
            {"exception", shut_down, 0},
            {"foreign_exception", shut_down, 0},
            {"stderr_lines", shut_down, 0}});
  each.run("destroy", phase::shutdown, survived);
}

}  // namespace bulkhead::testing::moments
