// Each denial is reported with the grant that would have allowed it, whoever made the call and however.
#include "guest.hpp"

#include <csignal>

#include <fcntl.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

constexpr int create = O_CREAT;

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
  CHECK(error.message().find("did what its policy denies and was killed in method 'connect_to'") != std::string::npos);
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values().front().result == "killed");
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
  const auto has = [](const std::string& grant) {
    return [grant](const std::vector<violation>& all) {
      return std::any_of(all.begin(), all.end(), [&](const violation& v) { return v.grant == grant; });
    };
  };
  CHECK(seen.wait(has("read:" + files.file())));
  CHECK(seen.wait(has("create:" + files.path())));
}

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
  CHECK(what.system_call == (how == "vfork" ? "vfork" : "clone"));
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
