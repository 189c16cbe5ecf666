// Each denial is reported with the grant that would have allowed it, whoever made the call and however.
#include "guest.hpp"

#include <boost/asio/use_future.hpp>

#include <csignal>
#include <thread>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

constexpr int create = O_CREAT;

// Whether each frame is in one, and one is in the plugin's own, which is "plugin.so" in the root that workers have, and
// the number of a descriptor where they have none.
bool in_loaded_files(const std::vector<std::string>& stack) {
  return std::all_of(stack.begin(), stack.end(),
                     [](const std::string& frame) { return frame.find('+') != std::string::npos; }) &&
         std::any_of(stack.begin(), stack.end(), [](const std::string& frame) {
           return frame.starts_with("plugin.so+") || (frame[0] >= '0' && frame[0] <= '9');
         });
}

auto has_denial(const std::string& call, const std::string& result, const std::string& grant) {
  return [=](const std::vector<violation>& all) {
    return std::any_of(all.begin(), all.end(), [&](const violation& v) {
      return v.system_call == call && v.result == result && v.grant == grant;
    });
  };
}

}  // namespace

TEST_CASE("a denied system call is reported with its name, arguments, method and the grant for it") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, {});
  CHECK_FALSE(plain.try_call("connect_to", 443, false));
  REQUIRE(seen.wait_for(1));
  const violation what = seen.values().front();
  CHECK(what.plugin == "guest");
  CHECK(what.pid == plain.workers().at(0).pid);
  CHECK(what.system_call == "socket");
  CHECK(what.arguments == "AF_INET, SOCK_STREAM, 0");
  CHECK(what.result == "EPERM");
  CHECK(what.method == "connect_to");
  CHECK(what.grant == "connect:PORT");
  REQUIRE(!what.stack.empty());
  CHECK(what.stack.front().find("libc") == 0);
  CHECK(in_loaded_files(what.stack));
  CHECK(plain.workers().at(0).violations == 1);
}

TEST_CASE("a denial may be told to kill, and the report says that it was one") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, policy{}.kill_on_denial());
  const auto error = failure_of([&] { plain.call("connect_to", 443, false); });
  CHECK(error.outcome() == outcome::worker_lost);
  CHECK(error.report()->reason == exit_reason::violation);
  CHECK(error.report()->signal == SIGSYS);
  CHECK(error.report()->signal_code == 1);  // SYS_SECCOMP
  CHECK(error.report()->system_call == "socket");
  CHECK(error.report()->system_call_number == SYS_socket);
  CHECK(error.report()->system_call_arguments == "AF_INET, SOCK_STREAM, 0");
  CHECK(error.message().find("did what its policy denies (socket) and was killed in method 'connect_to'") !=
        std::string::npos);
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values().front().result == "killed");
}

TEST_CASE("a denial that no signal handler can report kills, too, when it is told to") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, policy{}.kill_on_denial());
  const auto error = failure_of([&] { plain.call("make_child", "fork"); });
  CHECK(error.outcome() == outcome::worker_lost);
  CHECK(error.report()->reason == exit_reason::violation);
  CHECK(error.report()->system_call == "clone");
  CHECK(error.report()->system_call_number == SYS_clone);
  CHECK(error.message().find("did what its policy denies (clone) and was killed in method 'make_child'") !=
        std::string::npos);
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values().front().system_call == "clone");
  CHECK_FALSE(error.report()->system_call_arguments.empty());
  CHECK(seen.values().front().arguments == error.report()->system_call_arguments);
  CHECK(seen.values().front().result == "killed");
  // So it is with children: the policy says of no denial that it may pass.
  auto parent = guest(host, policy{}.allow_subprocesses().kill_on_denial());
  CHECK(failure_of([&] { parent.call("socket_in_child"); }).report()->reason == exit_reason::violation);
}

TEST_CASE("a denial fails the call also in a thread that blocks all signals") {
  host host;
  CHECK(guest(host, {}).call<int>("blocked", "") == EPERM);
}

TEST_CASE("explaining, a denied file access is reported with the grant for it") {
  const scratch files;
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, policy{}.explain());
  CHECK(error_of(plain.try_call("read_file", files.file())) == "ENOENT");
  CHECK(error_of(plain.try_call("write_file", files.path() + "/new", create, 1)) == "EPERM");
  CHECK(seen.wait(has_denial("openat", "ENOENT", "read:" + files.file())));
  CHECK(seen.wait(has_denial("openat", "EPERM", "create:" + files.path())));
  for (const violation& each : seen.values()) {
    CAPTURE(each.system_call, each.arguments, each.stack);
    if (each.method == "read_file" || each.method == "write_file") CHECK(in_loaded_files(each.stack));
  }
}

#if defined(__x86_64__)
TEST_CASE("explaining, ports and files that are refused by others than the filter are reported with the grant") {
  const scratch files;
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain =
      guest(host, policy{}.allow_connect(443).allow_bind(444).allow_create("/var/tmp/bulkhead-nowhere").explain());
  CHECK(error_of(plain.try_call("connect_to", 444, false)) == "EACCES");
  CHECK(error_of(plain.try_call("listen_on", 8080)) == "EACCES");
  REQUIRE(seen.wait(has_denial("connect", "EACCES", "connect:444")));
  REQUIRE(seen.wait(has_denial("bind", "EACCES", "bind:8080")));
  for (const violation& each : seen.values()) {
    if (each.system_call == "connect") CHECK(each.arguments.find("127.0.0.1:444") != std::string::npos);
    if (each.system_call == "bind") CHECK(each.arguments.find("127.0.0.1:8080") != std::string::npos);
  }
  const std::vector<std::tuple<std::string, std::string, std::string>> changes = {
      {"mkdir", files.path() + "/made", "create:" + files.path()},
      {"unlink", files.file(), "create:" + files.path()},
      {"rename", files.path() + "/moved", "create:" + files.path()},
      {"symlink", files.path() + "/link", "create:" + files.path()},
      {"truncate", files.file(), "write:" + files.file()}};
  for (const auto& [how, path, grant] : changes) {
    CAPTURE(how);
    const std::string error = error_of(plain.try_call("change", how, path));
    CHECK_FALSE(error.empty());
    CHECK(seen.wait(has_denial(how, error, grant)));
  }
  CHECK(std::filesystem::file_size(files.file()) == 7);
}

TEST_CASE(
    "explaining, what the filter denies of the calls that are looked at counts once, and kills when it is told to") {
  const scratch files;
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, policy{}.explain());
  CHECK(error_of(plain.try_call("change", "mkdir", files.path() + "/made")) == "EPERM");
  CHECK(plain.workers().at(0).violations == 1);
  REQUIRE(seen.wait(has_denial("mkdir", "EPERM", "create:" + files.path())));
  auto doomed = guest(host, policy{}.explain().kill_on_denial());
  const auto error = failure_of([&] { doomed.call("change", "mkdir", files.path() + "/made"); });
  REQUIRE(error.report());
  CHECK(error.report()->reason == exit_reason::violation);
}
#endif

TEST_CASE("learning, everything works and what strict would have denied is recorded") {
  const scratch files;
  const listener port;
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto learner = guest(host, policy{}.learn().at_least(sandbox_level::none));
  CHECK(learner.call<std::string>("read_file", files.file()) == "content");
  CHECK(learner.call<int>("write_file", files.path() + "/learned", create, 1) == 1);
  CHECK(learner.try_call("connect_to", port.port, false));
  for (const std::string& grant :
       {"read:" + files.file(), "create:" + files.path(), "connect:" + std::to_string(port.port)})
    CHECK(seen.wait([&](const std::vector<violation>& all) {
      return std::any_of(all.begin(), all.end(),
                         [&](const violation& v) { return v.grant == grant && v.result == "allowed"; });
    }));
}

TEST_CASE("learning, children run, and the grants that were learned are what they need") {
  const auto how = GENERATE(as<std::string>(), "fork", "vfork", "clone", "spawn", "system");
  CAPTURE(how);
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  CHECK(guest(host, policy{}.learn().at_least(sandbox_level::none)).call<int>("make_child", how) == 0);
  REQUIRE(seen.wait_for(1));  // its first is that of the child; all are here when the worker is gone
  policy learned;
  bool executed = false;
  host.shutdown();
  for (const violation& what : seen.values()) {
    CAPTURE(what.system_call, what.arguments, what.program);
    CHECK(what.result == "allowed");
    CHECK_FALSE(what.grant.empty());
    learned.add(what.grant);
    executed |= what.grant.starts_with("read:/bin/");
  }
  CHECK(learned.granted().subprocesses);
  CHECK(executed == (how == "spawn" || how == "system"));
  bulkhead::host fresh;
  CHECK(guest(fresh, learned).call<int>("make_child", how) == 0);
}

TEST_CASE("a flood of denials is reported at a bounded rate and harms nobody") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, {});
  for (int i = 0; i < 1000; ++i) CHECK_FALSE(plain.try_call("connect_to", 1, false));
  CHECK(plain.workers().at(0).violations == 1000);
  CHECK(seen.values().size() < 1000);
}

TEST_CASE("a child that is denied is reported, however the plugin tried to make it") {
  const auto how = GENERATE(as<std::string>(), "fork", "vfork", "clone", "spawn", "system");
  CAPTURE(how);
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, {});
  CHECK(plain.call<int>("make_child", how) == (how == "system" ? 127 : EPERM));
  REQUIRE(seen.wait_for(1));
  const violation what = seen.values().front();
  CHECK(what.plugin == "guest");
  CHECK(what.pid == plain.workers().at(0).pid);
  CHECK(what.program.empty());
#ifdef __SANITIZE_THREAD__
  const bool is_vfork = false;  // its runtime makes a fork of it
#else
  const bool is_vfork = how == "vfork";
#endif
  CHECK(what.system_call == (is_vfork ? "vfork" : "clone"));
  CHECK(what.result == "EPERM");
  CHECK(what.method == "make_child");
  CHECK(what.grant == "subprocesses");
  CHECK(plain.workers().at(0).violations == 1);
}

TEST_CASE("denied with all signals blocked, a call fails and is reported, and harms no thread that is made") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto plain = guest(host, {});
  CHECK(plain.call<int>("thread_on_cpu") == EPERM);
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values().front().system_call == "sched_setaffinity");
  CHECK(seen.values().front().grant == "syscalls:scheduling");
  CHECK(guest(host, policy{}.allow_syscalls("scheduling")).call<int>("thread_on_cpu") == 0);
}

TEST_CASE("what is denied to a plugin's children fails there, and is reported with the process and its program") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto parent = guest(host, policy{}.allow_subprocesses().allow_read("/usr/bin").allow_read("/bin"));
  const auto worker = parent.workers().at(0).pid;
  CHECK(parent.call<int>("socket_in_child") == EPERM);
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values().at(0).system_call == "socket");
  CHECK(seen.values().at(0).arguments == "AF_INET, SOCK_STREAM, 0");
  CHECK(seen.values().at(0).pid != worker);
  CHECK(seen.values().at(0).program.find("bulkhead") != std::string::npos);
  // A shell's ulimit says what the kernel said, and the shell lives on.
  CHECK(parent.call<int>("shell", "ulimit -S -n 5") == 2);
  REQUIRE(seen.wait_for(2));
  const violation what = seen.values().at(1);
  CHECK(what.system_call == "prlimit64");
  CHECK(what.result == "EPERM");
  CHECK(what.pid > 0);
  CHECK(what.pid != worker);
  CHECK(std::filesystem::path(what.program).filename() == std::filesystem::canonical("/bin/sh").filename());
  CHECK(parent.workers().at(0).violations == 2);
}

TEST_CASE("what a plugin's children name is read from their memory only to explain") {
  for (const bool explained : {false, true}) {
    CAPTURE(explained);
    mailbox<violation> seen;
    host host({.on_violation = [&](const violation& what) { seen.put(what); }});
    policy rules = policy{}.allow_subprocesses().allow_read("/usr/bin").allow_read("/bin");
    if (explained) rules.explain();
    auto parent = guest(host, rules);
    CHECK(parent.call<int>("shell", ": > /var/tmp/made") != 0);
    const auto denied = [](const violation& v) { return v.system_call == "openat" && v.result == "EPERM"; };
    REQUIRE(seen.wait([&](const std::vector<violation>& all) { return std::any_of(all.begin(), all.end(), denied); }));
    const auto all = seen.values();
    const violation what = *std::find_if(all.begin(), all.end(), denied);
    CHECK(!what.program.empty());
    CHECK(what.arguments.find("O_CREAT") != std::string::npos);
    CHECK((what.arguments.find("/var/tmp/made") != std::string::npos) == explained);
    CHECK(what.grant == (explained ? "create:/var/tmp" : ""));
  }
}

TEST_CASE("a call by another table, or of no table, fails in a child and doesn't kill it") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto parent = guest(host, policy{}.allow_subprocesses());
  constexpr int x32 = 0x40000000, unknown = 5000;
  CHECK(parent.call<int>("call_in_child", x32 | SYS_getpid) == ENOSYS);
  CHECK(parent.call<int>("call_in_child", unknown) == ENOSYS);
  REQUIRE(seen.wait_for(2));
#ifdef __x86_64__
  CHECK(seen.values().at(0).system_call == "x32:39");
#endif
  CHECK(seen.values().at(1).result == "ENOSYS");
}

TEST_CASE("a flood of denials in children is answered, told of at a bounded rate, and holds up nobody else") {
  mailbox<violation> seen;
  host host({.on_violation = [&](const violation& what) { seen.put(what); }});
  auto flooding = guest(host, policy{}.allow_subprocesses());
  auto neighbour = guest(host, {});
  auto flood = flooding.async_call<int>("sockets", std::tuple{3000}, boost::asio::use_future);
  for (int i = 0; i < 100; ++i) CHECK(neighbour.call<int>("make_child", "fork") == EPERM);
  CHECK(guest(host, {}).call<int>("make_child", "fork") == EPERM);
  CHECK(flood.get() == 3000);
  CHECK(flooding.workers().at(0).violations == 3000);
  CHECK(seen.values().size() < 3000);
}

TEST_CASE("a fork server that dies takes the reports along, the denials stay") {
  host host;
  auto plain = guest(host, {});
  auto parent = guest(host, policy{}.allow_subprocesses());
  ::kill(host.fork_server_pid(), SIGKILL);
  auto next = guest(host, {});  // by another fork server: the first has been reaped
  CHECK(plain.call<int>("make_child", "fork") == ENOSYS);
  CHECK(parent.call<int>("socket_in_child") == ENOSYS);
  CHECK(next.call<int>("make_child", "fork") == EPERM);
}

// Where a filter above the host's own has a listener, as in some containers.
TEST_CASE(
    "where no listener can be had, children are denied all the same, and the sandbox's report says what is untold") {
  std::thread([] {
    sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const sock_fprog program{1, &allow};
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const unique_fd listener(
        static_cast<int>(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program)));
    CHECK(listener);
    mailbox<violation> seen;
    host host({.on_violation = [&](const violation& what) { seen.put(what); }});
    auto plain = guest(host, {});
    CHECK(plain.call<int>("make_child", "fork") == EPERM);
    CHECK(plain.call<int>("make_child", "spawn") == EPERM);
    CHECK(plain.call<int>("thread_on_cpu") == EPERM);
    const auto workers = plain.workers();
    for (const sandbox_layer& each : workers.at(0).sandbox.layers)
      if (each.name == "seccomp") {
        CHECK(each.in_force);
        CHECK(each.detail.find("has a listener already") != std::string::npos);
      }
    // All else is told as ever, also to learn.
    CHECK_FALSE(plain.try_call("connect_to", 443, false));
    CHECK(seen.wait_for(1));
    auto parent = guest(host, policy{}.allow_subprocesses());
    CHECK(parent.call<int>("socket_in_child") == EPERM);
    auto learner = guest(host, policy{}.learn().at_least(sandbox_level::none));
    CHECK(learner.call<std::string>("read_file", "/etc/passwd").starts_with("root:"));
    CHECK(seen.wait([](const std::vector<violation>& all) {
      return std::any_of(all.begin(), all.end(), [](const violation& v) { return v.grant == "read:/etc/passwd"; });
    }));
  }).join();
}
