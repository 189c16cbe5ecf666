// Children under a policy: what they can't do, that everything else of a child is as without one, what is reported.
#include "process_fixture.hpp"

#include <fstream>
#include <iterator>
#include <thread>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

process_options strict(policy rules = {}) { return {.policy = std::move(rules)}; }

sandbox_layer cgroup_of(const child& of) {
  for (const sandbox_layer& each : of.sandbox().layers)
    if (each.name == "cgroup") return each;
  return {"none", false, ""};
}

// As the host sees it: its init's only child.
pid_t program_of(const child& of) {
  std::ifstream children("/proc/" + std::to_string(of.pid()) + "/task/" + std::to_string(of.pid()) + "/children");
  pid_t program = 0;
  children >> program;
  return program;
}

// Waits for it: of that nobody but its parent is told.
bool is_stopped(pid_t pid) {
  return eventually([&] {
    std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
    const std::string text(std::istreambuf_iterator<char>(status), {});
    return text.substr(text.rfind(')') + 1).starts_with(" T");
  });
}

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

TEST_CASE("a sandboxed program's relative name, and relative places in PATH, are those of the directory it runs in") {
  launcher launch;
  CHECK(launch.spawn("./true", {}, {.directory = "/usr/bin", .policy = policy().allow_read("/usr/bin")}).wait());
  CHECK(
      launch
          .spawn("true", {}, {.directory = "/usr", .add_env = {"PATH=bin"}, .policy = policy().allow_read("/usr/bin")})
          .wait());
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

TEST_CASE("without a PID namespace a policy's child and its group die when killed, or out of time") {
  launcher launch;
  const auto begun = [&](process_options options) {
    options.policy = policy().allow_read("/bin").allow_read("/usr/bin").without("pid").at_least(sandbox_level::limited);
    return launch.spawn("/bin/sh", {"-c", "sleep 300 & echo $$ $!; wait"}, std::move(options));
  };
  const auto check_gone = [](const child& made, int signal, auto action) {
    pid_t program = 0, heir = 0;
    REQUIRE(std::sscanf(line_of(made.out()).c_str(), "%d %d", &program, &heir) == 2);
    CHECK(program != made.pid());  // its init is between
    action();
    CHECK(made.wait().signal == signal);
    CHECK(ends(program));
    CHECK(ends(heir));
  };
  const child killed = begun({});
  for (const sandbox_layer& each : killed.sandbox().layers) CHECK((each.name != "pid" || !each.in_force));
  check_gone(killed, SIGKILL, [&] { CHECK(killed.kill_tree()); });
  const child told = begun({});
  check_gone(told, SIGTERM, [&] { CHECK(told.kill_tree(SIGTERM)); });
  const child late = begun({.timeout = 1s, .kill_signal = SIGKILL});
  check_gone(late, SIGKILL, [] {});
  CHECK(late.timed_out());
  const child alone =
      launch.spawn("/bin/sh", {"-c", "echo $$; exec sleep 300"},
                   strict(policy().allow_read("/usr/bin").without("pid").at_least(sandbox_level::limited)));
  const pid_t program = std::stoi(line_of(alone.out()));
  CHECK(alone.kill(SIGKILL));
  CHECK(ends(program));
}

TEST_CASE("without a PID namespace kill_tree reaches what has left the group, by a cgroup") {
  boost::asio::io_context nobody_runs_it;  // so the child is not reaped, which ends them as well
  launcher launch(nobody_runs_it.get_executor());
  const child parent = launch.spawn(
      "/bin/sh", {"-c", "setsid sh -c 'echo $$; exec sleep 300' & wait"},
      strict(policy().allow_read("/bin").allow_read("/usr/bin").without("pid").at_least(sandbox_level::limited)));
  const pid_t left = std::stoi(line_of(parent.out()));
  const sandbox_layer layer = cgroup_of(parent);
  if (!layer.in_force) {
    lacks("cgroups", layer.detail);
    return;
  }
  CHECK(parent.kill_tree());
  CHECK(ends(left));
}

TEST_CASE("signals to a sandboxed child reach the program once, SIGSTOP too, and its tree if that is meant") {
  launcher launch;
  const child counting = launch.spawn(
      "/bin/sh",
      {"-c", "trap 'echo told' USR1; trap 'echo last; exit 3' USR2; echo ready; while :; do sleep 0.02; done"},
      strict(policy().allow_read("/bin").allow_read("/usr/bin")));
  CHECK(line_of(counting.out()) == "ready");
  CHECK(counting.kill(SIGUSR1));
  std::string text;
  boost::asio::read_until(counting.out(), boost::asio::dynamic_buffer(text), '\n');
  CHECK(counting.kill(SIGSTOP));
  CHECK(is_stopped(program_of(counting)));
  CHECK(counting.kill(SIGUSR2));
  CHECK(counting.kill(SIGCONT));
  CHECK(text + rest_of(counting.out()) == "told\nlast\n");
  CHECK(counting.wait().code == 3);

  const child parent = launch.spawn("/bin/sh",
                                    {"-c",
                                     "trap 'wait; exit 4' TERM\n"
                                     "(trap 'echo heir; exit' TERM; echo ready; while :; do sleep 0.02; done) & wait"},
                                    strict(policy().allow_read("/bin").allow_read("/usr/bin")));
  CHECK(line_of(parent.out()) == "ready");
  CHECK(parent.kill_tree(SIGTERM));
  CHECK(rest_of(parent.out()) == "heir\n");
  CHECK(parent.wait().code == 4);
  CHECK(error_of([&] { launch.spawn("/bin/sleep", {"300"}, strict()).kill(1000); }).code().value() == EINVAL);
}

TEST_CASE("a sandboxed child is in the application's process group if it is asked for alone") {
  launcher launch;
  const child made = launch.spawn("/bin/sleep", {"300"}, {.scope = kill_scope::child, .policy = policy()});
  CHECK(::getpgid(made.pid()) == ::getpgrp());
  CHECK(::getpgid(program_of(made)) == ::getpgrp());
  CHECK(made.kill(SIGTERM));
  CHECK(made.wait().signal == SIGTERM);
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
  const auto limited =
      launch.exec_file("/usr/bin/python3",
                       {"-c", "import resource as r\nprint(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_FSIZE))"},
                       {.process = strict(policy().allow_read("/usr/lib").descriptors(70).file_size_limit(4096))});
  INFO(limited.err);
  CHECK(limited.out == "(70, 70) (4096, 4096)\n");
#ifndef BULKHEAD_SANITIZED  // a worker with a sanitizer in it can't live with a limited address space, and sets none
  const auto hungry =
      launch.exec_file("/usr/bin/python3", {"-c", "x = bytearray(1 << 30)"},
                       {.process = strict(policy().allow_read("/usr/lib").default_memory_limit(256 << 20))});
  INFO(hungry.err);
  CHECK(hungry.err.find("MemoryError") != std::string::npos);
  CHECK(hungry.status.code != 0);
#endif
}

TEST_CASE("a child and all that it starts are held to the policy's number of processes, by a cgroup if need be") {
  launcher launch;
  const auto begin = [&](policy rules) {
    return launch.spawn("/bin/sh", {"-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 >&- 2>&- & echo $i; done"},
                        strict(rules.allow_read("/bin").allow_read("/usr/bin")));
  };
  const auto made_by = [](const child& of) {
    const std::string lines = rest_of(of.out());
    of.wait();
    return std::count(lines.begin(), lines.end(), '\n');
  };
  CHECK(made_by(begin(policy().threads(64))) == 9);
  const child limited = begin(policy().threads(6));
  bool counted = cgroup_of(limited).in_force;
  for (const sandbox_layer& each : limited.sandbox().layers)
    counted = counted || (each.name == "limits" && each.detail.find("not counted") == std::string::npos);
  CHECK(made_by(limited) == (counted ? 5 : 9));  // and the shell; its init is not one of them
  CHECK(launch.spawn("/bin/true", {}, strict(policy().threads(1))).wait().code == 0);

  // Where namespaces and limits hold none of them.
  const child bare = begin(policy().threads(6).without("pid").without("limits").at_least(sandbox_level::none));
  const sandbox_layer layer = cgroup_of(bare);
  REQUIRE(layer.name == "cgroup");
  const auto without_limits = made_by(bare);
  if (!layer.in_force) {
    lacks("cgroups", layer.detail);
    CHECK(layer.detail.find("not counted") != std::string::npos);
    return;
  }
  CHECK(layer.detail.find("processes 7") != std::string::npos);  // one is its init
  CHECK(without_limits == 5);
}

TEST_CASE("a cgroup counts the memory of a child and all that it starts, and its end says so") {
  launcher launch;
  process_options options = strict(policy().allow_read("/usr/lib").memory_limit(256 << 20));
  options.streams = {stdio::null(), stdio::null(), stdio::null()};
  // Each stays below the limit, together they do not, and the first is the largest when they reach it.
  const child family = launch.spawn("/usr/bin/python3",
                                    {"-c",
                                     "import os, time\n"
                                     "r, w = os.pipe()\n"
                                     "for i in range(3):\n"
                                     "  if os.fork() == 0:\n"
                                     "    x = bytearray(b'x') * (40 << 20)\n"
                                     "    os.write(w, b'x'); time.sleep(300)\n"
                                     "for i in range(3): os.read(r, 1)\n"
                                     "x = bytearray(b'x') * (170 << 20)\n"},
                                    options);
  const sandbox_layer layer = cgroup_of(family);
  REQUIRE(layer.name == "cgroup");
  const exit_status end = family.wait();
  if (!layer.in_force) {  // then the address space is limited alone, and the reason is told
    lacks("cgroups", layer.detail);
    CHECK_FALSE(layer.detail.empty());
    return;
  }
  CHECK(layer.detail.find("memory 256 MiB") != std::string::npos);
  CHECK(end.signal == SIGKILL);
  CHECK(end.out_of_memory);
  CHECK(to_string(end) == "was killed by the kernel, out of memory");
  CHECK(!launch.spawn("/bin/sh", {"-c", "kill -KILL $$"}, options).wait().out_of_memory);
}

TEST_CASE("a child is in the cgroup that limits its CPUs from its first instruction, and nothing is left of that") {
  launcher launch;
  std::vector<std::filesystem::path> made;
  try {
    process_options options = strict(policy().cpus(0.2));
    const child waiting = launch.spawn("/bin/cat", {}, options);
    CHECK(cgroup_of(waiting).detail.find("CPUs 0.2") != std::string::npos);
    std::ifstream groups("/proc/" + std::to_string(waiting.pid()) + "/cgroup");
    for (std::string line; std::getline(groups, line);) {
      const std::size_t first = line.find(':'), second = line.find(':', first + 1);
      if (line.find("/bulkhead-") == std::string::npos) continue;
      for (const std::string& hierarchy : {line.substr(first + 1, second - first - 1), std::string()})
        if (const auto path = std::filesystem::path("/sys/fs/cgroup") / hierarchy / line.substr(second + 2);
            std::filesystem::exists(path))
          made.push_back(path);
    }
    REQUIRE(!made.empty());
    // Its init's first process is the program.
    std::ifstream members(made.front() / "cgroup.procs");
    CHECK(std::distance(std::istream_iterator<int>(members), std::istream_iterator<int>()) == 2);
    waiting.in().close();
    CHECK(waiting.wait());
    for (const auto& each : made) CHECK(!std::filesystem::exists(each));
    options.detached = true;
    CHECK_THROWS_WITH(launch.spawn("/bin/true", {}, options), Catch::Contains("detached"));
  } catch (const std::runtime_error& error) {
    lacks("cgroups", error.what());
    CHECK(std::string(error.what()).find("cpus can't be limited here: ") != std::string::npos);
  }
  launcher without({.cgroup = "/nowhere"});
  CHECK_THROWS_WITH(without.spawn("/bin/true", {}, strict(policy().cpus(1))), Catch::Contains("/nowhere"));
  CHECK(without.spawn("/bin/true", {}, strict(policy().memory_limit(256 << 20))).wait());
}
