// What a level promises holds with every version of Landlock, with a root of its own and without: either the attempt
// fails, or the worker is said to be limited and the report says why.
#include "guest.hpp"

#include <csignal>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

int kernel_abi() { return static_cast<int>(::syscall(444 /* landlock_create_ruleset */, nullptr, 0, 1)); }

// A process of the workers' user that waits.
class victim {
 public:
  victim() : pid_(::fork()) {
    if (pid_ != 0) return;
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(1);
    for (;;) ::pause();
  }
  ~victim() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  int pid() const { return pid_; }

 private:
  const pid_t pid_;
};

struct situation {
  int abi;
  bool rootless;
  bool files() const { return abi > 0 || !rootless; }
  policy rules() const {
    policy made;
    if (rootless) made.without("root");
    return made.landlock_abi_at_most(abi).at_least(sandbox_level::limited);
  }
};

// Each version that there is here; 0: without.
template <class F>
void in_each(F&& test) {
  for (const bool rootless : {false, true})
    for (int abi = 0; abi <= std::min(kernel_abi(), 6); ++abi) {
      INFO("Landlock ABI " << abi << (rootless ? ", no root of its own" : ""));
      test(situation{abi, rootless});
    }
}

// Whether it is confined at least; that it is or not must be `expected`, and if not, the report has to have the reason.
bool confined(const plugin& of, bool expected, const std::string& reason = "") {
  const auto workers = of.workers();
  const sandbox_report& report = workers.at(0).sandbox;
  std::string text;
  for (const sandbox_layer& each : report.layers) text += each.name + ": " + each.detail + "\n";
  CHECK((report.level >= sandbox_level::confined) == expected);
  CHECK((report.level >= sandbox_level::confined || text.find(reason) != std::string::npos));
  return report.level >= sandbox_level::confined;
}

}  // namespace

TEST_CASE("a plugin that may write somewhere empties no file elsewhere, with any version of Landlock") {
  const scratch granted, readable, outside;
  host host;
  in_each([&](situation in) {
    auto writer = guest(host, in.rules().allow_create(granted.path()).allow_read(readable.path()));
    if (!confined(writer, in.files())) return;
    CHECK(error_of(writer.try_call("truncate_file", outside.file())) != "");
    CHECK(error_of(writer.try_call("truncate_file", readable.file())) != "");
    CHECK(error_of(writer.try_call("open_flags", readable.file(), O_RDONLY | O_TRUNC)) != "");
    CHECK(std::filesystem::file_size(outside.file()) > 0);
    CHECK(std::filesystem::file_size(readable.file()) > 0);
    CHECK(writer.try_call("open_flags", readable.file(), O_RDONLY));
    CHECK(writer.try_call("open_flags", granted.file(), O_WRONLY | O_TRUNC));
  });
}

TEST_CASE("a plugin that may run programs signals nobody outside, with any version of Landlock") {
  const victim other;
  host host;
  in_each([&](situation in) {
    auto parent = guest(host, in.rules().allow_subprocesses().without("pid"));
    if (confined(parent, in.files() && in.abi >= 6, in.files() ? "signals reach processes outside" : ""))
      CHECK(error_of(parent.try_call("signal", other.pid())) != "");
  });
}

TEST_CASE("a plugin that is granted a port reaches no other, with any version of Landlock") {
  host host;
  in_each([&](situation in) {
    const listener granted, other;  // each takes a few connections only
    auto client = guest(host, in.rules().allow_connect(static_cast<std::uint16_t>(granted.port)));
    if (confined(client, in.files() && in.abi >= 4, in.files() ? "not held to the granted ports" : ""))
      CHECK(error_of(client.try_call("connect_to", other.port, false)) == "EACCES");
    CHECK(client.try_call("connect_to", granted.port, false));
    // All of them, but to listen on none.
    auto any = guest(host, in.rules().allow_connect(0));
    if (confined(any, in.files())) CHECK(error_of(any.try_call("listen_on", 0)) == "EPERM");
    CHECK(any.try_call("connect_to", other.port, false));
  });
}

TEST_CASE("a plugin that may write to what exists makes nothing new, with any version of Landlock") {
  const scratch granted;
  host host;
  in_each([&](situation in) {
    auto writer = guest(host, in.rules().allow_write(granted.path()));
    if (confined(writer, in.abi > 0, in.files() ? "files can be made" : ""))
      CHECK(error_of(writer.try_call("write_file", granted.path() + "/new", O_CREAT, 1)) != "");
    CHECK(writer.try_call("write_file", granted.file(), 0, 1));
  });
}

TEST_CASE("workers share one network namespace, which is not the host's") {
  host host;
  const plugin one = guest(host, {}), other = guest(host, policy{}.threads(2));
  const auto space = [](int pid, const std::string& kind) {
    std::error_code denied;
    return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/ns/" + kind, denied).string();
  };
  const worker_info first = one.workers().at(0), second = other.workers().at(0);
  std::string spaces;
  for (const sandbox_layer& each : first.sandbox.layers)
    if (each.name == "namespaces") spaces = each.detail;
  if (spaces.find("network") == std::string::npos || space(first.pid, "net").empty()) {
    WARN("not to be seen here: " << spaces);  // workers are not dumpable: it takes root
    return;
  }
  CHECK(space(first.pid, "net") == space(second.pid, "net"));
  CHECK(space(first.pid, "net") != space(::getpid(), "net"));
}

TEST_CASE("a worker that can't be held to what it is granted is not started, and the reason is told") {
  host host;
  const auto error = failure_of([&] { guest(host, policy{}.allow_connect(443).landlock_abi_at_most(3)); });
  CHECK(error.outcome() == outcome::unavailable);
  CHECK_THAT(error.message(), Catch::Contains("TCP is not held to the granted ports"));
}
