// What a crash report says: the stack of the worker that died, as far as it can be had, in whatever state it died.
#include "watched_host.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <random>

#include <elf.h>
#include <sys/syscall.h>

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

[[maybe_unused]] frames of(const crash_report& report, code_origin origin) {
  frames found;
  std::copy_if(report.stack.begin(), report.stack.end(), std::back_inserter(found),
               [&](const stack_frame& each) { return each.origin == origin; });
  return found;
}

[[maybe_unused]] std::string shown(const crash_report& report) {
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

[[maybe_unused]] std::vector<std::uint64_t> addresses(const crash_report& report) {
  std::vector<std::uint64_t> list;
  for (const stack_frame& each : report.stack)
    if (!each.inlined) list.push_back(each.address);
  return list;
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

struct expected_signal {
  const char* how;
  int signal, code;
  const char* text;
  std::optional<std::uint64_t> address;  // none: whatever it is
};

const std::vector<expected_signal> expected_signals = {
    {"segfault", SIGSEGV, SEGV_MAPERR, "killed by SIGSEGV (SEGV_MAPERR, address 0x10) in", 0x10},
    {"jump_to_null", SIGSEGV, SEGV_MAPERR, "killed by SIGSEGV (SEGV_MAPERR, address 0x0) in", 0},
    {"write_to_code", SIGSEGV, SEGV_ACCERR, "killed by SIGSEGV (SEGV_ACCERR, address 0x", {}},
    {"abort", SIGABRT, SI_TKILL, "killed by SIGABRT in", 0},
#if defined(__x86_64__)
    {"illegal_instruction", SIGILL, ILL_ILLOPN, "killed by SIGILL (ILL_ILLOPN, address 0x", {}},
    {"divide_by_zero", SIGFPE, FPE_INTDIV, "killed by SIGFPE (FPE_INTDIV, address 0x", {}},
    {"smashed_return", SIGSEGV, SI_KERNEL, "killed by SIGSEGV (SI_KERNEL) in", 0},  // the processor tells no address
#endif
};

TEST_CASE("a crash report says why the signal came, and for which address") {
  const auto wanted = GENERATE(from_range(expected_signals));
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const auto report = crash(chaos, wanted.how);
  INFO(wanted.how << " " << shown(*report));
  CHECK(report->signal == wanted.signal);
  CHECK(report->signal_code.value_or(-100) == wanted.code);
  if (wanted.address) CHECK(report->fault_address == *wanted.address);
  else CHECK(report->fault_address != 0);
  CHECK_THAT(report->summary(), Catch::Matchers::Contains(wanted.text));
}

TEST_CASE("a signal that somebody sent has no address in its report") {
  watched_host host;
  auto chaos = host.self.load(plugin_path("chaos"));
  REQUIRE(::kill(chaos.workers().at(0).pid, SIGSEGV) == 0);
  REQUIRE(host.saw(watched_host::kind::exited));
  const auto report = host.last(watched_host::kind::exited).report;
  CHECK(report->signal == SIGSEGV);
  CHECK(report->signal_code.value_or(-100) == SI_USER);
  CHECK(report->fault_address == 0);
  CHECK(report->summary().starts_with("was killed by SIGSEGV (SI_USER) in phase "));
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
  for (std::size_t i = 60; i < 63; ++i) CHECK(report->stack[i].address != report->stack[i + 1].address);

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
  CHECK(report->system_call == "memfd_create");
  CHECK(report->system_call_number == SYS_memfd_create);
  CHECK_FALSE(report->system_call_arguments.empty());
  CHECK(of(*report, code_origin::plugin).size() >= 3);
  CHECK(report->stack.back().origin == code_origin::worker);
}

namespace {

const stack_frame& frame_of(const crash_report& report, const std::string& function) {
  const auto found = std::find_if(report.stack.begin(), report.stack.end(), [&](const stack_frame& each) {
    return each.function.find(function) != std::string::npos;
  });
  INFO(shown(report));
  if (found == report.stack.end()) FAIL("no frame of " << function);
  return *found;
}

// A copy of a plugin, with sections of these names filled with what comes out of a generator; 0: as they are.
std::filesystem::path damaged(const std::filesystem::path& folder, const std::string& name,
                              std::initializer_list<std::string_view> sections, unsigned seed) {
  std::ifstream in(plugin_path(name), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<Elf64_Shdr> table(header.e_shnum);
  std::memcpy(table.data(), &bytes[header.e_shoff], table.size() * sizeof table[0]);
  std::minstd_rand next(seed);
  for (const Elf64_Shdr& each : table) {
    const char* called = &bytes[table[header.e_shstrndx].sh_offset + each.sh_name];
    if (std::find(sections.begin(), sections.end(), called) == sections.end()) continue;
    for (std::size_t i = 0; i < each.sh_size; ++i)
      if (next() % 16 == 0) bytes[each.sh_offset + i] = static_cast<char>(next());
  }
  const auto file = folder / (name + ".so");
  std::filesystem::remove(file);
  std::ofstream(file, std::ios::binary) << bytes;
  return file;
}

}  // namespace

TEST_CASE("a symbolized stack names functions, files and lines, in the plugin, the libraries and the worker") {
  host host;
  auto chaos = host.load(plugin_path("chaos"));
  const auto report = crash(chaos, "segfault");
  const crash_report named = host.symbolized(*report);
  INFO(shown(named));
  CHECK(addresses(named) == addresses(*report));
  const stack_frame& first = named.stack.front();
  CHECK(first.function == "chaos_segfault");
  CHECK_THAT(first.source, Catch::Matchers::EndsWith("faults.c"));
  CHECK(first.line > 0);
  CHECK(frame_of(named, "misbehave").origin == code_origin::plugin);
  CHECK(frame_of(named, "__libc_start_main").origin == code_origin::library);
  CHECK(frame_of(named, "bulkhead::session::serve()").origin == code_origin::worker);
  CHECK(frame_of(named, "main").origin == code_origin::worker);

  host.shutdown();
  CHECK(host.symbolized(*report).stack.size() == report->stack.size());
}

TEST_CASE("functions that were inlined are frames of their own") {
  host host;
  auto parallel = host.load(plugin_path("inlined"));
  const reply lost = parallel.try_call("crash");
  REQUIRE(lost.report());
  const crash_report named = host.symbolized(*lost.report());
  INFO(shown(named));
  REQUIRE(named.stack.size() > 3);
  CHECK_THAT(named.stack[0].function, Catch::Matchers::Contains("innermost"));
  CHECK_THAT(named.stack[1].function, Catch::Matchers::Contains("in_between"));
  CHECK_THAT(named.stack[2].function, Catch::Matchers::Contains("not_inlined"));
  CHECK(named.stack[0].inlined);
  CHECK(named.stack[1].inlined);
  CHECK_FALSE(named.stack[2].inlined);
  CHECK(named.stack[0].address == named.stack[2].address);
  CHECK(named.stack[0].line < named.stack[1].line);
  CHECK(named.stack[1].line < named.stack[2].line);
}

TEST_CASE("a plugin whose symbols and debug information are damaged still has its stack in the report") {
  const scratch_folder folder;
  host host;
  for (unsigned seed = 1; seed <= 12; ++seed) {
    const auto file =
        damaged(folder.path, "chaos",
                {".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".symtab", ".strtab"}, seed);
    auto chaos = host.load(file);
    const auto report = crash(chaos, "segfault");
    INFO("seed " << seed << ": " << shown(*report));
    CHECK(report->stack.size() > 6);
    const crash_report named = host.symbolized(*report);
    CHECK(addresses(named) == addresses(*report));
    CHECK(frame_of(named, "bulkhead::session::serve()").origin == code_origin::worker);  // another file: none the worse
  }
}

TEST_CASE("a file that kills its reader costs the report its names and nothing else") {
  const scratch_folder folder;
  const std::string programs = BULKHEAD_TEST_PROGRAMS;
  std::filesystem::copy(programs + "/bulkhead-worker", folder.path);
  std::filesystem::copy(plugin_path("dying_reader"), folder.path / "bulkhead-symbolizer.so");
  mailbox<lifecycle_event> events;
  host host({.worker_path = folder.path / "bulkhead-worker",
             .on_lifecycle = [&](const lifecycle_event& event) { events.put(event); },
             .crash_dir = folder.path / "reports"});
  auto chaos = host.load(plugin_path("chaos"));
  const auto report = crash(chaos, "segfault");
  const crash_report named = host.symbolized(*report);
  INFO(shown(named));
  CHECK(addresses(named) == addresses(*report));
  CHECK(named.stack.front().function.empty());
  CHECK(frame_of(named, "the library's").origin == code_origin::library);  // asked after the first reader had died
  CHECK(chaos.call<int>("echo", 7) == 7);
  for (const lifecycle_event& each : events.values()) CHECK(each.plugin == "chaos");
  host.shutdown();
  CHECK(crash_reports_in(folder.path / "reports").size() == 1);
}

#endif

TEST_CASE("requests are kept when that is asked for, and the report has the one that its worker died in") {
  host host;
  const auto arguments = [](const auto&... each) {
    const auto view = pack_arguments(each...).params.take();
    return std::vector<std::uint8_t>(view.begin(), view.end());
  };
  auto plain = host.load(plugin_path("chaos"));
  CHECK(crash(plain, "exit_3")->request.empty());

  auto chaos = host.load(plugin_path("chaos"), {.deadline = 20s, .keep_requests = 1000});
  for (int i = 0; i < 100; ++i) chaos.call("echo", std::string(300, 'x'));  // far more than the limit in all
  const auto report = crash(chaos, "exit_3");
  CHECK(report->method == "misbehave");
  CHECK(report->request == arguments("exit_3"));

  SECTION("of several calls, it is that of the method which ran") {
    mailbox<outcome> ended;
    for (int i = 0; i < 3; ++i)
      chaos.async_call<reply>("later", std::tuple{60'000 + i},
                              [&](boost::system::error_code, const reply& r) { ended.put(r.outcome()); });
    CHECK(crash(chaos, "exit_0")->request == arguments("exit_0"));
    CHECK(ended.wait_for(3));
  }
  SECTION("also when the caller has given up long before the worker is killed") {
    mailbox<std::shared_ptr<const crash_report>> reports;
    bulkhead::host watched({.on_lifecycle = [&](const lifecycle_event& event) {
      if (event.kind == lifecycle_event::kind::exited) reports.put(event.report);
    }});
    auto hanging = watched.load(plugin_path("chaos"), {.keep_requests = 1000});
    CHECK(hanging.with({.deadline = 50ms}).try_call("misbehave", "endless_loop").outcome() == outcome::timeout);
    REQUIRE(reports.wait_for(1));
    CHECK(reports.values()[0]->reason == exit_reason::hung);
    CHECK(reports.values()[0]->request == arguments("endless_loop"));
  }
  SECTION("what is larger than the limit is not kept") {
    const std::string much(2000, 'x');
    const reply lost = chaos.try_call("die_of", much);
    REQUIRE(lost.outcome() == outcome::worker_lost);
    CHECK(lost.report()->method == "die_of");
    CHECK(lost.report()->request.empty());
  }
}

TEST_CASE("each crash is written to a file of its own, as all that is known of it") {
  const scratch_folder folder;
  const auto reports = folder.path / "reports";
  std::shared_ptr<const crash_report> report;
  const auto before = std::chrono::system_clock::now() - 1s;
  {
    host host({.crash_dir = reports});
    auto chaos = host.load(plugin_path("chaos"),
                           {.keep_requests = 1000, .policy = policy{}.threads(7).environment("KEY", "secret")});
    report = crash(chaos, "segfault");
    CHECK(chaos.call<int>("echo", 7) == 7);
    chaos.unload();  // its second worker ends in good order: no crash
  }
  const auto files = crash_reports_in(reports);
  REQUIRE(files.size() == 1);
  CHECK_THAT(files[0].filename(), Catch::Matchers::StartsWith("chaos-20") &&
                                      Catch::Matchers::EndsWith("Z-" + std::to_string(report->pid) + ".json"));
  CHECK(entries(reports) == 2);  // that one, and the request
  for (const auto& each : std::filesystem::directory_iterator(reports))
    CHECK(each.status().permissions() == (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));

  const crash_report read = read_crash_report(files[0]);
  CHECK(read.summary() == report->summary());
  CHECK(read.plugin == "chaos");
  CHECK(read.file == plugin_path("chaos"));
  CHECK(read.sha256.size() == 64);
  CHECK(read.sha256 == report->sha256);
  CHECK(read.pid == report->pid);
  CHECK(read.time > before);
  CHECK(read.time <= std::chrono::system_clock::now());
  CHECK(read.reason == report->reason);
  CHECK(read.signal == report->signal);
  CHECK(read.signal_code == report->signal_code);
  CHECK(read.fault_address == report->fault_address);
  CHECK(read.phase == phase::call);
  CHECK(read.method == "misbehave");
  CHECK(read.request == report->request);
  CHECK(read.request.size() > 5);
  CHECK(policy::from_text(read.policy).granted().threads == 7);
  CHECK(read.policy.find("secret") == std::string::npos);
  CHECK(read.cpu_time > 0us);
  CHECK(read.peak_memory > 1 << 20);
#ifndef BULKHEAD_SANITIZED
  CHECK(addresses(read) == addresses(*report));
  CHECK(read.instruction_pointer == report->instruction_pointer);
  CHECK(read.stack.front().function == "chaos_segfault");
  CHECK(read.stack.front().line > 0);
  CHECK(read.stack.front().build_id == report->stack.front().build_id);
#endif
}

TEST_CASE("there are as many report files as are wanted: the oldest go, and nothing else does") {
  const scratch_folder folder;
  std::vector<pid_t> pids;
  std::ofstream(folder.path / "notes-2.json") << "{}";
  {
    host host({.crash_dir = folder.path, .crash_files = 3});
    auto chaos = host.load(plugin_path("chaos"), {.keep_requests = 1000});
    for (const char* how : {"exit_0", "exit_3", "_exit_0", "abort", "segfault"}) pids.push_back(crash(chaos, how)->pid);
  }
  const auto files = crash_reports_in(folder.path);
  REQUIRE(files.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(read_crash_report(files[i]).pid == pids[4 - i]);
  CHECK(entries(folder.path) == 3 + 3 + 1);
}

TEST_CASE("the call that a worker was killed for is kept in a report's file, and every code has a name") {
  const scratch_folder folder;
  crash_report report;
  report.plugin = "p";
  report.reason = exit_reason::violation;
  report.signal = SIGSYS;
  report.signal_code = 1;
  report.system_call = "socket";
  report.system_call_number = SYS_socket;
  report.system_call_arguments = "AF_INET, SOCK_STREAM, 0";
  const crash_report read = read_crash_report(write_crash_report(folder.path, report));
  CHECK(read.signal_code.value_or(0) == 1);
  CHECK(read.system_call == "socket");
  CHECK(read.system_call_number == SYS_socket);
  CHECK(read.system_call_arguments == report.system_call_arguments);
  CHECK_THAT(to_json(report), Catch::Matchers::Contains(R"("signal_code": "SYS_SECCOMP")") &&
                                  Catch::Matchers::Contains(R"("system_call": "socket")"));
  CHECK_FALSE(read_crash_report(write_crash_report(folder.path, {})).signal_code);
  CHECK(signal_code_name(SIGFPE, SI_TKILL) == "SI_TKILL");
  CHECK(signal_code_name(SIGFPE, SEGV_ACCERR) == "FPE_INTOVF");
  CHECK(signal_code_name(SIGSEGV, 99) == "code 99");
}

TEST_CASE("what is no crash report is said to be none") {
  const scratch_folder folder;
  const auto file = folder.path / "chaos-20240501T120301.123Z-1.json";
  for (const char* text : {"", "{", "[]", "{}", R"({"format": 2})", R"({"format": 1, "time": 3})"}) {
    std::ofstream(file) << text;
    CHECK_THROWS_WITH(read_crash_report(file), Catch::Matchers::Contains(file.string() + " is no crash report"));
  }
  CHECK_THROWS_WITH(read_crash_report(folder.path / "none.json"), Catch::Matchers::Contains("none.json can't be read"));
}
