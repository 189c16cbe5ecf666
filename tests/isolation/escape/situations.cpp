// The escape suite under other circumstances than this machine's: as an ordinary user, with user namespaces off, without
// Landlock, inside the filter of a container. Each is a process of its own that changes its circumstances, then runs
// the hidden test cases of escape.cpp.
#include <bulkhead/ipc/system.hpp>

#include <catch2/catch.hpp>
#include <seccomp.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr uid_t ordinary_user = 12345;
constexpr int not_possible = 77;

void put(const char* file, const std::string& text) {
  const bulkhead::unique_fd fd(bulkhead::checked(::open(file, O_WRONLY | O_CLOEXEC), file));
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) bulkhead::throw_errno(file);
}

void be_ordinary() {
  if (::getuid() != 0) return;
  if (::setgid(ordinary_user) != 0 || ::setuid(ordinary_user) != 0) bulkhead::throw_errno("setuid");
  ::prctl(PR_SET_DUMPABLE, 1);
}

// The limit counts for the user namespaces made inside this one; exec takes the capabilities away.
void lose_user_namespaces() {
  be_ordinary();
  const std::string uid = std::to_string(::getuid()), gid = std::to_string(::getgid());
  bulkhead::checked(::unshare(CLONE_NEWUSER), "unshare");
  put("/proc/self/setgroups", "deny");
  put("/proc/self/uid_map", uid + " " + uid + " 1");
  put("/proc/self/gid_map", gid + " " + gid + " 1");
  put("/proc/sys/user/max_user_namespaces", "0");
}

struct refusal {
  const char* call;
  int error;
  std::uint64_t flags = 0;  // of the first argument; 0: whatever it is
};

void refuse(const std::vector<refusal>& refusals) {
  bulkhead::checked(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
  for (const refusal& each : refusals) {
    const int number = ::seccomp_syscall_resolve_name(each.call);
    const auto action = SCMP_ACT_ERRNO(static_cast<unsigned>(each.error));
    if (number < 0) continue;
    if (each.flags) ::seccomp_rule_add(filter, action, number, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, each.flags, each.flags));
    else ::seccomp_rule_add(filter, action, number, 0);
  }
  if (::seccomp_load(filter) != 0) throw std::runtime_error("seccomp_load");
  ::seccomp_release(filter);
}

const std::vector<refusal> landlock_calls = {
    {"landlock_create_ruleset", ENOSYS}, {"landlock_add_rule", ENOSYS}, {"landlock_restrict_self", ENOSYS}};
// What Docker's profile denies to a container without CAP_SYS_ADMIN.
const std::vector<refusal> container_calls = {{"clone3", ENOSYS},
                                              {"unshare", EPERM},
                                              {"setns", EPERM},
                                              {"mount", EPERM},
                                              {"umount2", EPERM},
                                              {"open_tree", EPERM},
                                              {"move_mount", EPERM},
                                              {"fsopen", EPERM},
                                              {"fsmount", EPERM},
                                              {"fsconfig", EPERM},
                                              {"mount_setattr", EPERM},
                                              {"pivot_root", EPERM},
                                              {"bpf", EPERM},
                                              {"keyctl", EPERM},
                                              {"clone", EPERM, CLONE_NEWNS},
                                              {"clone", EPERM, CLONE_NEWUSER},
                                              {"clone", EPERM, CLONE_NEWPID},
                                              {"clone", EPERM, CLONE_NEWNET}};

int run(const std::string& test, const std::vector<std::string>& environment, const std::function<void()>& prepare) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      prepare();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "not possible here: %s\n", e.what());
      ::_exit(not_possible);
    }
    for (const std::string& each : environment) ::putenv(::strdup(each.c_str()));
    ::execl("/proc/self/exe", "test_escape", test.c_str(), nullptr);
    ::_exit(not_possible);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// What `bulkhead doctor --json` says there, and its exit status.
std::string doctor(const std::function<void()>& prepare, int& status) {
  int pipe[2];
  bulkhead::checked(::pipe2(pipe, O_CLOEXEC), "pipe2");
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe[1], STDOUT_FILENO);
    try {
      prepare();
    } catch (const std::exception&) {
      ::_exit(not_possible);
    }
    ::execl(BULKHEAD_TEST_PROGRAMS "/bulkhead", "bulkhead", "doctor", "--json", nullptr);
    ::_exit(not_possible);
  }
  ::close(pipe[1]);
  std::string text;
  char chunk[4096];
  for (ssize_t n = 0; (n = ::read(pipe[0], chunk, sizeof chunk)) > 0;) text.append(chunk, static_cast<std::size_t>(n));
  ::close(pipe[0]);
  ::waitpid(child, &status, 0);
  status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return text;
}

void holds(const std::string& situation, const std::string& level, const std::function<void()>& prepare) {
  INFO(situation);
  const int status = run("in this situation every attempt is stopped",
                         {"BULKHEAD_TEST_SITUATION=" + situation, "BULKHEAD_TEST_LEVEL=" + level}, prepare);
  if (status == not_possible) {
    WARN(situation << ": not possible here");
    return;
  }
  CHECK(status == 0);
  int examined = 0;
  const std::string said = doctor(prepare, examined);
  CHECK(examined == 0);
  INFO(said);
  CHECK(said.find("\"level\":\"" + level + "\",\"profile\":\"strict\"") != std::string::npos);
}

}  // namespace

TEST_CASE("the suite holds for an ordinary user") { holds("ordinary user", "full", be_ordinary); }

TEST_CASE("the suite holds without user namespaces") { holds("no user namespaces", "confined", lose_user_namespaces); }

TEST_CASE("the suite holds for root without user namespaces") {
  if (::getuid() != 0) return;
  holds("root, no user namespaces", "full", [] { refuse({{"unshare", EPERM, CLONE_NEWUSER}}); });
}

TEST_CASE("the suite holds without Landlock") {
  holds("no Landlock", "confined", [] { refuse(landlock_calls); });
  holds("no Landlock, ordinary user", "confined", [] {
    be_ordinary();
    refuse(landlock_calls);
  });
}

TEST_CASE("the suite holds inside the filter of a container") {
  holds("container", "confined", [] {
    be_ordinary();
    refuse(container_calls);
  });
}

// Ubuntu's restriction: an ordinary user may make a user namespace and has no rights in it.
TEST_CASE("the suite holds where user namespaces give no rights") {
  holds("user namespaces without rights", "confined", [] {
    be_ordinary();
    std::vector<refusal> calls = {{"mount", EPERM}, {"umount2", EPERM}, {"pivot_root", EPERM}, {"sethostname", EPERM}};
    for (const unsigned flag : {CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP, CLONE_NEWPID})
      for (const char* call : {"unshare", "clone"}) calls.push_back({call, EPERM, flag});
    calls.push_back({"clone3", ENOSYS});
    refuse(calls);
  });
}

TEST_CASE("where neither namespaces nor Landlock are to be had, no worker starts unless less is asked for") {
  const int status =
      run("in this situation the worker is not started", {"BULKHEAD_TEST_REMEDY=seccomp=unconfined"}, [] {
        be_ordinary();
        auto both = container_calls;
        both.insert(both.end(), landlock_calls.begin(), landlock_calls.end());
        refuse(both);
      });
  CHECK((status == 0 || status == not_possible));
}
