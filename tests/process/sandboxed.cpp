// Children under a policy: what they can't do, that everything else of a child is as without one, what is reported.
#include "process_fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

process_options strict(policy rules = {}) { return {.policy = std::move(rules)}; }

}  // namespace

TEST_CASE("a sandboxed program runs, sees only what is granted, and reports its own status") {
  launcher launch;
  CHECK(launch.spawn("/bin/true", {}, strict()).wait().code == 0);
  CHECK(launch.spawn("/bin/sh", {"-c", "exit 5"}, strict()).wait().code == 5);
  CHECK(launch.spawn("/bin/sh", {"-c", "kill -TERM $$"}, strict()).wait().signal == SIGTERM);
  const auto result = launch.exec("cat /etc/passwd; echo status $?", {.process = strict(policy().allow_read("/bin"))});
  CHECK(result.out.find("root") == std::string::npos);
  CHECK(result.out.find("status 1") != std::string::npos);
  const scratch_folder folder;
  std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
  write_file(folder.path / "granted", "contents", 0644);
  const auto granted = launch.exec("cat " + (folder.path / "granted").string(),
                                   {.process = strict(policy().allow_read("/bin").allow_read(folder.path))});
  CHECK(granted.out == "contents");
}

TEST_CASE("a sandboxed script has its interpreter, and no network") {
  launcher launch;
  const scratch_folder folder;
  std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
  const auto script = write_file(folder.path / "script",
                                 "#!/usr/bin/env python3\n"
                                 "import socket\n"
                                 "try:\n  socket.socket().connect(('127.0.0.1', 1))\n"
                                 "except OSError as e: print(e.errno)\n",
                                 0755);
  const auto done =
      launch.exec_file(script, {}, {.process = strict(policy().allow_read("/usr/lib").allow_read("/usr/bin"))});
  INFO(done.err);
  CHECK(done.out == std::to_string(EPERM) + "\n");
}

TEST_CASE("what a sandbox denies is reported") {
  launcher launch;
  const child made = launch.spawn("/usr/bin/unshare", {"-U", "true"}, strict());
  CHECK(!made.wait());
  made.async_wait(boost::asio::use_future).get();
  const auto denied = made.violations();
  REQUIRE(!denied.empty());
  CHECK(denied[0].system_call == "unshare");
  CHECK(made.sandbox().level >= sandbox_level::confined);
}

TEST_CASE("all of a sandboxed child's tree dies with it, and it can't be reached from inside") {
  launcher launch;
  const child parent = launch.spawn("/bin/sh", {"-c", "sleep 300 & sleep 300 & echo started; wait"},
                                    strict(policy().allow_read("/bin")));
  CHECK(line_of(parent.out()) == "started");
  const unique_fd held(parent.out().release());
  CHECK(parent.kill(SIGTERM));
  CHECK(parent.wait().signal == SIGTERM);
  pollfd hung_up{held.get(), 0, 0};
  CHECK(::poll(&hung_up, 1, 10'000) == 1);
}

TEST_CASE("a sandboxed program that can't be executed says why") {
  launcher launch;
  CHECK(error_of([&] { launch.spawn("/no/such/file", {}, strict()); }).code().value() == ENOENT);
  CHECK(error_of([&] { launch.spawn("/bin/true", {}, {.directory = "/root/x", .policy = policy()}); }).code().value() ==
        ENOENT);
  CHECK(no_children());
}

TEST_CASE("a policy's limits hold for a child") {
  launcher launch;
  const auto hungry = launch.exec_file("/usr/bin/python3", {"-c", "x = bytearray(1 << 30)"},
                                       {.process = strict(policy().allow_read("/usr/lib").memory_limit(256 << 20))});
  INFO(hungry.err);
#ifndef BULKHEAD_SANITIZED
  CHECK(hungry.err.find("MemoryError") != std::string::npos);
#endif
  CHECK(hungry.status.code != 0);
}
