// What other users than root, and older kernels, refuse around children: whom they run as, who may signal them, and how.
#include "process_fixture.hpp"

#include <seccomp.h>

#include <sys/prctl.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

constexpr unsigned ordinary_user = 12345;
constexpr unsigned process_group = 4;  // PIDFD_SIGNAL_PROCESS_GROUP, of Linux 6.9

// On a thread of its own: whose it is, and what the kernel refuses it, is the thread's alone, and of what that starts.
template <class F>
void on_a_thread(F action) {
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      action();
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

// Not by the C library's functions, which change all threads.
template <class F>
void as_ordinary_user(F action) {
  on_a_thread([&] {
    if (::geteuid() == 0) {
      checked(::syscall(SYS_setgroups, 0, nullptr), "setgroups");
      checked(::syscall(SYS_setresgid, ordinary_user, ordinary_user, ordinary_user), "setresgid");
      checked(::syscall(SYS_setresuid, ordinary_user, ordinary_user, ordinary_user), "setresuid");
      ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // or what is in /proc of this process would be root's
    }
    action();
  });
}

// Signals through a pidfd with such flags fail with this error.
template <class F>
void without_signals(unsigned flags, int error, F action) {
  on_a_thread([&] {
    const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
    ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(static_cast<unsigned>(error)), SYS_pidfd_send_signal, 1,
                       SCMP_A3(SCMP_CMP_MASKED_EQ, flags, flags));
    const int loaded = ::seccomp_load(filter);
    ::seccomp_release(filter);
    REQUIRE(loaded == 0);
    action();
  });
}

// A copy of the program `probe` that any user reaches.
struct reachable_probe {
  scratch_folder folder;
  const std::string file = folder / "probe";
  reachable_probe() {
    std::filesystem::copy_file(program("probe"), file);
    std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
  }
};

// That all is reached which can be: what has left the group, too, if there is a namespace.
void check_tree(launcher& launch, const process_options& options, bool namespaced) {
  const std::string heir = namespaced ? "setsid sleep 300" : "sleep 300";
  const child parent = launch.spawn("/bin/sh", {"-c", heir + " & echo started; wait"}, options);
  CHECK(line_of(parent.out()) == "started");
  const unique_fd held(parent.out().release());  // the far end is the sleeper's as well
  CHECK(parent.kill_tree());
  CHECK(parent.wait().signal == SIGKILL);
  pollfd hung_up{held.get(), 0, 0};
  CHECK(::poll(&hung_up, 1, 10'000) == 1);

  CHECK(launch.spawn("/bin/sh", {"-c", "exit 7"}, options).wait().code == 7);
  CHECK(launch.spawn("/bin/sh", {"-c", "kill -ABRT $$"}, options).wait().signal == SIGABRT);
  const child trapping =
      launch.spawn("/bin/sh", {"-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"}, options);
  CHECK(line_of(trapping.out()) == "ready");
  CHECK(trapping.kill(SIGTERM));
  CHECK(trapping.wait().code == 9);
}

}  // namespace

TEST_CASE("root chooses a child's user and group, and no other groups stay, others are refused with an error") {
  launcher launch;
  const reachable_probe probe;
  const auto chosen = [&] { return launch.spawn(probe.file, {"ids"}, {.uid = 23456, .gid = 34567}); };
  if (::geteuid() == 0) CHECK(rest_of(chosen().out()) == "23456 34567 0\n");
  else CHECK(error_of(chosen).code().value() == EPERM);
}

TEST_CASE("an ordinary user chooses itself and its group, and nothing is left of a child that was to be another's") {
  const reachable_probe probe;
  as_ordinary_user([&] {
    launcher launch;
    const unsigned uid = ::getuid(), gid = ::getgid();
    const child own = launch.spawn(probe.file, {"ids"}, {.uid = uid, .gid = gid});
    CHECK(rest_of(own.out()) ==
          std::to_string(uid) + " " + std::to_string(gid) + " " + std::to_string(::getgroups(0, nullptr)) + "\n");
    CHECK(own.wait());
    launch.exec("true", {}, boost::asio::use_future).get();
    settle(launch, entries("/proc/self/fd"));
    const std::size_t before = entries("/proc/self/fd");
    for (const process_options& other : {process_options{.uid = uid + 1}, process_options{.gid = gid + 1}}) {
      const auto error = error_of([&] { launch.spawn(probe.file, {"ids"}, other); });
      CHECK(error.code().value() == EPERM);
      CHECK(std::string(error.what()).find("spawn " + probe.file + ": changing user or group") == 0);
    }
    check_nothing_left(launch, before);
  });
}

TEST_CASE("in a PID namespace kill_tree reaches even those that left the group, and signals work as ever") {
  if (::geteuid() == 0) {
    launcher launch;
    check_tree(launch, {.scope = kill_scope::pid_namespace}, true);
  }
  as_ordinary_user([] {
    launcher launch;
    const auto error = error_of([&] { launch.spawn("true", {}, {.scope = kill_scope::pid_namespace}); });
    CHECK(error.code().value() == EPERM);
    CHECK(std::string(error.what()).find("spawn true: making a process in a PID namespace") == 0);

    // A policy has one of its own where the kernel permits that, or else a group.
    const process_options confined = {.policy = policy().allow_read("/bin").allow_read("/usr/bin")};
    const child first = launch.spawn("/bin/true", {}, confined);
    CHECK(first.wait());
    bool namespaced = false;
    for (const sandbox_layer& each : first.sandbox().layers) namespaced |= each.name == "pid" && each.in_force;
    check_tree(launch, confined, namespaced);
  });
}

TEST_CASE("a kill that is refused is an error event, and an exception for who has asked for it") {
  boost::asio::io_context io;
  launcher launch(io.get_executor());
  std::vector<std::string> errors;
  process_options options = {.timeout = 1ms, .kill_grace = 1ms};
  options.events.on_error = [&](boost::system::error_code code, const std::string& text) {
    errors.push_back(std::to_string(code.value()) + " " + text);
  };
  const child made = launch.spawn("sleep", {"300"}, options);
  const auto try_all = [&] {
    CHECK(error_of([&] { made.kill(); }).code().value() == EPERM);
    CHECK(error_of([&] { made.kill_tree(); }).code().value() == EPERM);
    while (errors.size() < 4 && io.run_one_for(10s) > 0) {  // those of the timeout and of its grace, too
    }
  };
  if (::geteuid() == 0) as_ordinary_user(try_all);  // it is root's
  else without_signals(0, EPERM, try_all);          // whoever is not can have none that is another's
  CHECK(errors.size() == 4);
  const std::string expected = std::to_string(EPERM) + " kill " + std::to_string(made.pid());
  for (const std::string& each : errors) CHECK(each.find(expected) == 0);
  CHECK(made.kill(SIGKILL));
  CHECK(made.wait().signal == SIGKILL);
}

TEST_CASE("before Linux 6.9 kill_tree goes by the group's number, but not once its leader has been reaped") {
  without_signals(process_group, EINVAL, [] {
    boost::asio::io_context nobody_runs_it;  // so nobody here is told of an end
    launcher launch(nobody_runs_it.get_executor());
    const child parent = launch.spawn("sh", {"-c", "sleep 300 & echo $!; wait"});
    const pid_t heir = std::stoi(line_of(parent.out()));
    CHECK(parent.kill_tree());
    CHECK(ends(heir));
    CHECK(parent.wait().signal == SIGKILL);
    CHECK(!parent.kill_tree());

    const child leaver = launch.spawn("sh", {"-c", "sleep 300 & echo $!"});
    const pid_t left = std::stoi(line_of(leaver.out()));
    REQUIRE(eventually([&] { return gone(leaver.pid()); }));  // had it left nobody, its number might be another's now
    CHECK(!leaver.kill_tree());
    CHECK(::kill(left, 0) == 0);
    CHECK(leaver.wait());
    CHECK(error_of([&] { launch.spawn("sleep", {"300"}).kill_tree(1000); }).code().value() == EINVAL);
  });
}
