// chaos: does harm to workers at random while many threads call, and proves from an independent ledger that each call
// got one true outcome and that nothing leaked. `chaos --help` says the rest; ./dev chaos builds and runs it.
#include "host_death.hpp"
#include "storm.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <malloc.h>
#include <nlohmann/json.hpp>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using nlohmann::json;

constexpr std::uint64_t enough_to_measure_growth = 20'000;
constexpr std::uint64_t enough_to_judge_late = 4;  // fewer may have met with the same stall of the machine
#ifdef BULKHEAD_SANITIZED
constexpr double most_growth_kib = 512 << 10;  // what was freed is kept back
constexpr double most_late_ms = 20'000;
#else
constexpr double most_growth_kib = 2048;
constexpr double most_late_ms = 5000;  // no load explains more
#endif

// The file of marks, in a folder of its own; gone with this object.
class marks_file {
 public:
  explicit marks_file(std::uint64_t calls) {
    std::string name = std::filesystem::temp_directory_path() / "bulkhead-chaos-XXXXXX";
    if (!::mkdtemp(name.data())) throw std::system_error(errno, std::generic_category(), "mkdtemp");
    folder_ = name;
    std::filesystem::permissions(folder_, std::filesystem::perms(0755));
    const bulkhead::unique_fd file(
        bulkhead::checked(::open(path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666), "open"));
    ::fchmod(file.get(), 0666);  // whoever workers are
    bulkhead::checked(::ftruncate(file.get(), static_cast<off_t>(chaos::marks::size(calls))), "ftruncate");
    void* page = ::mmap(nullptr, chaos::marks::size(calls), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (page == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    shared = static_cast<chaos::marks*>(page);
  }
  ~marks_file() { std::filesystem::remove_all(folder_); }
  marks_file(const marks_file&) = delete;
  std::string path() const { return folder_ / "marks"; }

  chaos::marks* shared = nullptr;

 private:
  std::filesystem::path folder_;
};

// The ledger's process, and both ends of what is said to it and what it answers.
class ledger_process {
 public:
  ledger_process(const std::string& marks, std::uint64_t calls) {
    int in[2], out[2];
    bulkhead::checked(::pipe2(in, O_CLOEXEC), "pipe2");
    bulkhead::checked(::pipe2(out, O_CLOEXEC), "pipe2");
    ::fcntl(in[1], F_SETPIPE_SZ, 1 << 20);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::string program = BULKHEAD_TEST_PROGRAMS "/chaos_ledger", file = marks, count = std::to_string(calls);
    char* argv[] = {program.data(), file.data(), count.data(), nullptr};
    const int failed = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(in[0]);
    ::close(out[1]);
    to_.reset(in[1]);
    from_.reset(out[0]);
    if (failed != 0) throw std::system_error(failed, std::generic_category(), program);
  }
  int to() const { return to_.get(); }

  json close() {
    const chaos::record over{.kind = chaos::entry::over};
    if (::write(to_.get(), &over, sizeof over) != sizeof over) throw std::runtime_error("the ledger is gone");
    std::string text;
    char chunk[4096];
    for (ssize_t n = 0; (n = ::read(from_.get(), chunk, sizeof chunk)) > 0;)
      text.append(chunk, static_cast<std::size_t>(n));
    ::waitpid(pid_, nullptr, 0);
    return json::parse(text);
  }

 private:
  pid_t pid_ = -1;
  bulkhead::unique_fd to_, from_;
};

json to_json(const chaos::census& what) {
  return {{"descriptors", what.descriptors},
          {"threads", what.threads},
          {"mappings", what.mappings},
          {"memfds", what.memfds},
          {"zombies", what.zombies},
          {"resident_kib", what.resident_kib},
          {"allocated_kib", what.allocated_kib},
          {"server_descriptors", what.server_descriptors},
          {"server_resident_kib", what.server_resident_kib}};
}

void print_table(const std::string& title, const json& rows) {
  fmt::print("\n{}\n", title);
  for (const auto& [name, count] : rows.items()) fmt::print("  {:<56} {:>10}\n", name, count.get<std::uint64_t>());
}

void print(const json& report) {
  print_table("harm done", report["harm"]);
  print_table("how workers ended", report["exits"]);
  print_table("in which phase (those that the host did not end)", report["phases"]);
  print_table("outcomes", report["ledger"]["outcomes"]);
  const auto& before = report["baseline"];
  const auto& after = report["at_the_end"];
  fmt::print("\nwhat the host holds                     after the first rounds     at the end\n");
  for (const auto& [name, count] : after.items())
    fmt::print("  {:<36} {:>22.0f} {:>14.0f}\n", name, before[name].get<double>(), count.get<double>());
  const auto& growth = report["growth_kib_per_1000_ends"];
  fmt::print("  growth, KiB per 1,000 ends of workers {:>22.2f} +- {:.2f}\n", growth["slope"].get<double>(),
             growth["error"].get<double>());
  const auto& late = report["later_than_deadline_by_50_ms"];
  fmt::print(
      "\n{} calls, {} streamed items, {} events, {} ends of workers in {:.0f} s, seed {}; {} calls ran more than once, as they may; {} outcomes "
      "came more than 50 ms after the deadline, {} of them more than 1 s, the latest {:.0f} ms\n",
      report["ledger"]["calls"].get<std::uint64_t>(), report["ledger"]["items"].get<std::uint64_t>(),
      report["ledger"]["events"].get<std::uint64_t>(), report["ends"].get<std::uint64_t>(),
      report["seconds"].get<double>(), report["seed"].get<std::uint64_t>(),
      report["ledger"]["repeated"].get<std::uint64_t>(), late["count"].get<std::uint64_t>(),
      late["by_1_s"].get<std::uint64_t>(), late["latest_ms"].get<double>());
  for (const auto& [what, where] : report["ledger"]["violations"].items())
    fmt::print("LEDGER: {}: {} calls, the first is {}\n", what, where["count"].get<std::uint64_t>(),
               where["first"].get<std::string>());
  for (const auto& failure : report["failures"]) fmt::print("FAILED: {}\n", failure.get<std::string>());
  fmt::print("{}\n", report["passed"].get<bool>() ? "passed" : "FAILED");
}

int run_storm(chaos::storm_settings settings, bool as_json, char** argv) {
  // One arena, no caches of threads, and no thresholds that move: what is mapped then is what is held.
  if (!std::getenv("GLIBC_TUNABLES")) {
    ::setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 0);
    ::execv("/proc/self/exe", argv);
  }
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
  ::signal(SIGPIPE, SIG_IGN);
  fmt::print(stderr, "seed {}\n", settings.seed);
  marks_file file(settings.calls);
  ledger_process ledger(file.path(), settings.calls);
  settings.marks_file = file.path();
  settings.shared = file.shared;
  settings.ledger = ledger.to();
  const auto began = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
  const bool terminal = ::isatty(STDERR_FILENO);
  if (terminal)
    settings.on_progress = [&](std::uint64_t calls, std::uint64_t ends) {
      fmt::print(stderr, "\r{:>9} of {} calls, {:>7} of {} ends of workers, {:.0f} s ", calls, settings.calls, ends,
                 settings.kills, seconds());
    };
  chaos::storm_results found;
  {
    chaos::storm storm(settings);
    found = storm.run();
  }
  if (terminal) fmt::print(stderr, "\r{:78}\r", "");
  json report{{"seed", settings.seed},
              {"seconds", seconds()},
              {"ends", found.ends},
              {"harm", found.harm},
              {"exits", found.exits},
              {"phases", found.phases},
              {"baseline", to_json(found.before)},
              {"at_the_end", to_json(found.after)},
              {"resident_kib", found.resident},
              {"allocated_kib", found.allocated},
              {"growth_kib_per_1000_ends", {{"slope", found.growth.slope}, {"error", found.growth.error}}},
              {"later_than_deadline_by_50_ms",
               {{"count", found.late}, {"by_1_s", found.very_late}, {"latest_ms", found.latest_ms}}},
              {"ledger", ledger.close()}};
  if (found.failures.empty() && report["ledger"]["calls"] != settings.calls)
    found.failures.push_back("the ledger has another number of calls");
  // What is measured has an error: only what is certainly too much fails. A short run can't tell a leak from tables that
  // fill up to their limits (of calls that have killed workers, of the allocator), and a page is 4 KiB.
  if (found.ends >= enough_to_measure_growth && found.growth.slope - 3 * found.growth.error > 1)
    found.failures.push_back("resident memory grows by more than 1 KiB for each 1,000 ends of workers");
  if (found.after.server_resident_kib - found.before.server_resident_kib > most_growth_kib)
    found.failures.push_back("the fork server's memory has grown by more than 2 MiB");
  if (found.after.resident_kib - found.before.resident_kib > most_growth_kib)
    found.failures.push_back("resident memory has grown by more than 2 MiB");
  // Load makes many outcomes a little late and few very late. A host that waits for the end of a worker that hangs, which
  // is killed when its grace is over, makes them late by a second or more.
  if (found.latest_ms > most_late_ms)
    found.failures.push_back("an outcome came later after its deadline than load explains");
  if (found.very_late >= enough_to_judge_late && 2 * found.very_late > found.late)
    found.failures.push_back("most late outcomes came when the grace was over: they did not wait for the deadline");
  report["failures"] = found.failures;
  report["passed"] = found.failures.empty() && report["ledger"]["violations"].empty();
  if (as_json) std::cout << report.dump(2) << '\n';
  else print(report);
  return report["passed"].get<bool>() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  chaos::storm_settings settings;
  settings.seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1'000'000;
  bool is_long = false, as_json = false;
  unsigned hosts = 100;
  CLI::App app{
      "Harms workers at random while many threads call; an independent ledger holds each call to one outcome."};
  app.add_option("--kills", settings.kills, "at least so many ends of workers")->capture_default_str();
  app.add_option("--calls", settings.calls, "so many calls")->capture_default_str();
  app.add_option("--rounds", settings.rounds, "after each, what the host holds is counted")->capture_default_str();
  app.add_option("--threads", settings.threads, "that call")->capture_default_str();
  app.add_option("--seed", settings.seed, "repeats a plan; otherwise a new one each time");
  app.add_flag("--long", is_long, "100,000 kills, 10,000,000 calls, 100 rounds");
  app.add_flag("--json", as_json, "the result as JSON");
  auto* death = app.add_subcommand("hosts", "kills hosts instead: no worker may outlive its host by 1 s");
  death->add_option("--times", hosts, "so many")->capture_default_str();
  auto* victim = app.add_subcommand("be-killed", "the host that `chaos hosts` kills")->group("");
  CLI11_PARSE(app, argc, argv);
  try {
    if (*victim) return chaos::be_killed();
    if (*death) return chaos::kill_hosts(hosts, settings.seed, as_json);
    if (is_long) settings.kills = 100'000, settings.calls = 10'000'000, settings.rounds = 100;
    return run_storm(settings, as_json, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "chaos: {}\n", e.what());
    return 70;
  }
}
