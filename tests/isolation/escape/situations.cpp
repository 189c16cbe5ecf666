// The escape suite under other circumstances than this machine's: as an ordinary user, with user namespaces off, without
// Landlock, inside the filter of a container. Each is a process of its own that changes its circumstances, then runs
// the hidden test cases of escape.cpp.
#include <bulkhead/host.hpp>
#include <bulkhead/ipc/system.hpp>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <seccomp.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

// A kernel that has Ubuntu's setting, switched on. Takes root.
void have_apparmor_setting() {
  bulkhead::checked(::unshare(CLONE_NEWNS), "unshare");
  bulkhead::checked(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount");
  bulkhead::checked(::mount("none", "/proc/sys/kernel", "tmpfs", 0, "mode=0755"), "mount of a tmpfs");
  const char* setting = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
  bulkhead::unique_fd(bulkhead::checked(::open(setting, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), setting));
  put(setting, "1\n");
}

// In a user namespace with no other user: root can't be anybody else.
void be_lonely_root() {
  be_ordinary();
  const std::string uid = std::to_string(::getuid()), gid = std::to_string(::getgid());
  bulkhead::checked(::unshare(CLONE_NEWUSER), "unshare");
  put("/proc/self/setgroups", "deny");
  put("/proc/self/uid_map", "0 " + uid + " 1");
  put("/proc/self/gid_map", "0 " + gid + " 1");
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

// A container's root with what Docker gives it, which CAP_SYS_ADMIN is not part of.
void be_container_root() {
  if (::getuid() != 0) throw std::runtime_error("this takes root");
  std::uint32_t kept = 0;
  for (const int each :
       {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP,
        CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_MKNOD, CAP_AUDIT_WRITE, CAP_SETFCAP})
    kept |= 1u << each;
  for (int each = 0; each < 64; ++each)
    if (each > 31 || !(kept & (1u << each))) ::prctl(PR_CAPBSET_DROP, each, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  bulkhead::checked(::syscall(SYS_capget, &header, data), "capget");
  data[0].effective = data[0].permitted &= kept;
  data[1].effective = data[1].permitted = 0;
  data[0].inheritable = data[1].inheritable = 0;
  bulkhead::checked(::syscall(SYS_capset, &header, data), "capset");
  refuse(container_calls);
}

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
    ::execl("/proc/self/exe", "test_escape", test.c_str(), "-w", "NoTests", nullptr);
    ::_exit(not_possible);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// False where it can't be made; CI's root can make all of them.
bool possible(int status, const std::string& situation) {
  if (status != not_possible) return true;
  REQUIRE_FALSE((std::getenv("CI") && ::getuid() == 0));
  WARN(situation << ": not possible here");
  return false;
}

// What is read from it up to its end; it is closed.
std::string all_of(int pipe) {
  std::string text;
  char chunk[4096];
  for (ssize_t n = 0; (n = ::read(pipe, chunk, sizeof chunk)) > 0;) text.append(chunk, static_cast<std::size_t>(n));
  ::close(pipe);
  return text;
}

// What `bulkhead doctor` says there, and its exit status.
std::string doctor(const std::function<void()>& prepare, int& status, std::vector<std::string> options = {}) {
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
    options.insert(options.begin(), {"bulkhead", "doctor"});
    std::vector<char*> argv;
    for (std::string& each : options) argv.push_back(each.data());
    argv.push_back(nullptr);
    ::execv(BULKHEAD_TEST_PROGRAMS "/bulkhead", argv.data());
    ::_exit(not_possible);
  }
  ::close(pipe[1]);
  const std::string text = all_of(pipe[0]);
  ::waitpid(child, &status, 0);
  status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return text;
}

// What a host says there of a worker that is to have every layer; empty if it starts.
std::string refusal_there(const std::function<void()>& prepare, const std::string& simulated = "") {
  int pipe[2];
  bulkhead::checked(::pipe2(pipe, O_CLOEXEC), "pipe2");
  const pid_t child = ::fork();
  if (child == 0) {
    std::string text;
    try {
      prepare();
      bulkhead::host host;
      bulkhead::policy rules;
      if (!simulated.empty()) rules.add(simulated);
      host.load(BULKHEAD_TEST_PLUGINS "/echo.so", {.policy = rules.at_least(bulkhead::sandbox_level::full)});
    } catch (const std::exception& e) {
      text = e.what();
    }
    ::_exit(::write(pipe[1], text.data(), text.size()) < 0);
  }
  ::close(pipe[1]);
  const std::string text = all_of(pipe[0]);
  ::waitpid(child, nullptr, 0);
  return text;
}

struct expected_layer {
  const char* name;
  bool in_force;
  const char* detail;  // a part of it
};

// `simulated`: what the policy has to say for the situation to be there.
void holds(const std::string& situation, const std::string& level, const std::vector<expected_layer>& layers,
           const std::function<void()>& prepare, const std::string& simulated = "") {
  INFO(situation);
  const int status = run(
      "in this situation every attempt is stopped",
      {"BULKHEAD_TEST_SITUATION=" + situation, "BULKHEAD_TEST_LEVEL=" + level, "BULKHEAD_TEST_SIMULATED=" + simulated},
      prepare);
  if (!possible(status, situation)) return;
  CHECK(status == 0);
  int examined = 0;
  std::vector<std::string> options = {"--json"};
  if (!simulated.empty()) options.insert(options.end(), {"--grant", simulated});
  const std::string said = doctor(prepare, examined, options);
  CHECK(examined == 0);
  INFO(said);
  const auto strict = nlohmann::json::parse(said).at("profiles").at(0);
  CHECK(strict.at("profile") == (simulated.empty() ? "strict" : "given"));
  CHECK(strict.at("level") == level);
  for (const expected_layer& expected : layers) {
    INFO(expected.name << ": " << expected.detail);
    int found = 0;
    for (const auto& layer : strict.at("layers")) {
      if (layer.at("name") != expected.name) continue;
      ++found;
      CHECK(layer.at("in_force") == expected.in_force);
      CHECK(layer.at("detail").get<std::string>().find(expected.detail) != std::string::npos);
    }
    CHECK(found == 1);
  }
}

}  // namespace

TEST_CASE("the suite holds for an ordinary user") {
  holds("ordinary user", "full",
        {{"namespaces", true, "user, mount, network"},
         {"root", true, "a read-only root"},
         {"pid", true, "of its own"},
         {"landlock", true, "ABI"},
         {"seccomp", true, "instructions"}},
        be_ordinary);
}

TEST_CASE("the suite holds without user namespaces") {
  holds("no user namespaces", "confined",
        {{"namespaces", false, "user namespace"},
         {"root", false, "no root of its own"},
         {"pid", false, "no PID namespace"},
         {"landlock", true, "ABI"},
         {"seccomp", true, "instructions"}},
        lose_user_namespaces);
}

TEST_CASE("attempts that count on the namespaces turn red without them") {
  const int status =
      run("in this situation the attempts that count on the namespaces turn red", {}, lose_user_namespaces);
  if (possible(status, "no user namespaces")) CHECK(status == 0);
}

TEST_CASE("the suite holds for root without user namespaces") {
  if (::getuid() != 0) return;
  holds("root, no user namespaces", "full",
        {{"namespaces", true, "seccomp=unconfined"}, {"root", true, "a read-only root"}, {"pid", true, "of its own"}},
        [] {
          refuse({{"unshare", EPERM, CLONE_NEWUSER}});
        });
}

TEST_CASE("the suite holds without Landlock") {
  const std::vector<expected_layer> layers = {{"landlock", false, "CONFIG_SECURITY_LANDLOCK"},
                                              {"root", true, "a read-only root"}};
  holds("no Landlock", "confined", layers, [] { refuse(landlock_calls); });
  holds("no Landlock, ordinary user", "confined", layers, [] {
    be_ordinary();
    refuse(landlock_calls);
  });
}

TEST_CASE("the suite holds with Landlock as of Linux 6.2, and doctor says what that takes away") {
  const std::string abi = "landlock-abi:3", said = "ABI 3: files; the rest needs a newer kernel (ABI 6";
  holds(
      "Landlock ABI 3 only", "confined",
      {{"landlock", true, said.c_str()}, {"root", true, "a read-only root"}, {"pid", true, "of its own"}}, [] {}, abi);
  // What can't be held to its grant then, and what is to have every layer, does not start.
  for (const auto& [grant, level, reason] :
       {std::tuple("connect:443", "limited", "TCP is not held to the granted ports before ABI 4 (Linux 6.7)"),
        std::tuple("level:full", "confined", said.c_str())}) {
    int status = 0;
    const std::string found = doctor([] {}, status, {"--json", "--grant", abi, "--grant", grant});
    INFO(found);
    CHECK(status == 16);
    const auto given = nlohmann::json::parse(found).at("profiles").at(0);
    CHECK(given.at("level") == level);
    CHECK(given.at("starts") == false);
    CHECK(found.find(reason) != std::string::npos);
  }
  CHECK(refusal_there([] {}, abi).find("landlock: " + said) != std::string::npos);
}

TEST_CASE("the suite holds inside the filter of a container") {
  holds("container", "confined",
        {{"namespaces", false, "seccomp=unconfined"},
         {"root", false, "seccomp=unconfined"},
         {"pid", false, "seccomp=unconfined"},
         {"landlock", true, "ABI"}},
        [] {
          be_ordinary();
          refuse(container_calls);
        });
}

TEST_CASE("the suite holds for a container's root") {
  holds("container, root without CAP_SYS_ADMIN", "confined",
        {{"namespaces", false, "run the host with CAP_SYS_ADMIN"},
         {"root", false, "seccomp=unconfined"},
         {"pid", false, "seccomp=unconfined"},
         {"landlock", true, "ABI"},
         {"privileges", true, "not dumpable"}},
        be_container_root);
}

TEST_CASE("the suite holds for an ordinary user at the level limited") {
  const int status = run("in this situation what is left at the level limited holds", {}, be_ordinary);
  if (possible(status, "ordinary user")) CHECK(status == 0);
}

// Ubuntu's restriction: an ordinary user may make a user namespace and has no rights in it.
TEST_CASE("the suite holds where user namespaces give no rights") {
  const bool root = ::getuid() == 0;
  holds("user namespaces without rights", "confined",
        {{"namespaces", true, root ? "apparmor_restrict_unprivileged_userns=0" : "no mount namespace"},
         {"root", false, "no mount namespace"},
         {"pid", false, "PID namespaces are denied"},
         {"landlock", true, "ABI"}},
        [root] {
          if (root) have_apparmor_setting();
          be_ordinary();
          std::vector<refusal> calls = {
              {"mount", EPERM}, {"umount2", EPERM}, {"pivot_root", EPERM}, {"sethostname", EPERM}};
          for (const unsigned flag :
               {CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP, CLONE_NEWPID})
            for (const char* call : {"unshare", "clone"}) calls.push_back({call, EPERM, flag});
          calls.push_back({"clone3", ENOSYS});
          refuse(calls);
        });
}

TEST_CASE("a worker that lacks one of the namespaces has not all layers, and is told which") {
  int status = 0;
  if (doctor([] {}, status).find("strict      full") == std::string::npos) {
    WARN("namespaces: not possible here");
    return;
  }
  for (const auto& [flag, name] :
       {std::pair(CLONE_NEWIPC, "ipc"), std::pair(CLONE_NEWUTS, "uts"), std::pair(CLONE_NEWCGROUP, "cgroup")}) {
    const std::string lacking = std::string("no ") + name + " namespace: Operation not permitted";
    const auto deny = [denied = static_cast<std::uint64_t>(flag)] { refuse({{"unshare", EPERM, denied}}); };
    const std::string said = doctor(deny, status);
    INFO(said);
    CHECK(said.find(lacking) != std::string::npos);
    CHECK(said.find("strict      confined") != std::string::npos);
    CHECK(refusal_there(deny).find(lacking) != std::string::npos);
  }
}

TEST_CASE("doctor says as whom workers run") {
  int status = 0;
  if (::getuid() == 0)
    CHECK(doctor([] {}, status).find("root; workers run as an unprivileged user") != std::string::npos);
  const std::string said = doctor(be_lonely_root, status);
  if (!possible(status, "root that can't be anybody else")) return;
  INFO(said);
  CHECK(said.find("root; so are workers") != std::string::npos);
}

TEST_CASE("where neither namespaces nor Landlock are to be had, no worker starts unless less is asked for") {
  const int status =
      run("in this situation the worker is not started", {"BULKHEAD_TEST_REMEDY=seccomp=unconfined"}, [] {
        be_ordinary();
        auto both = container_calls;
        both.insert(both.end(), landlock_calls.begin(), landlock_calls.end());
        refuse(both);
      });
  if (possible(status, "neither namespaces nor Landlock")) CHECK(status == 0);
}
