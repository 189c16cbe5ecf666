// How a denial reads that a worker has told of in a line.
#include "sandbox/violation_text.hpp"

#include "sandbox/violation_line.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <sstream>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

using namespace bulkhead;

namespace {

// The arguments of a call that was denied with EPERM.
std::string arguments_of(long number, std::vector<std::uint64_t> arguments) {
  arguments.resize(6, 0xdead0000);  // what is left in the registers
  std::ostringstream line;
  line << sandbox::violation_mark << std::hex << sandbox::native_arch << ' ' << number;
  for (const std::uint64_t each : arguments) line << ' ' << each;
  line << " 1 method -";
  const auto read = sandbox::parse_violation(line.str());
  return read ? read->arguments : "no violation";
}

}  // namespace

TEST_CASE("what a denied call was made with is told by names") {
  CHECK(arguments_of(SYS_clone, {SIGCHLD, 0}) == "SIGCHLD, 0");
  CHECK(arguments_of(SYS_clone, {CLONE_VM | CLONE_VFORK | SIGCHLD, 0}) == "CLONE_VM|CLONE_VFORK|SIGCHLD, 0");
  CHECK(arguments_of(SYS_clone, {CLONE_NEWUSER, 0}) == "CLONE_NEWUSER, 0");
  CHECK(arguments_of(SYS_unshare, {CLONE_NEWNS | CLONE_NEWNET}) == "CLONE_NEWNS|CLONE_NEWNET");
  CHECK(arguments_of(SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0}) == "PR_SET_DUMPABLE, 1, 0, 0");
  CHECK(arguments_of(SYS_ioctl, {0, TIOCSTI, 0}) == "0, TIOCSTI, 0");
  CHECK(arguments_of(SYS_fcntl, {3, F_ADD_SEALS, 1}) == "3, F_ADD_SEALS, 1");
  CHECK(arguments_of(SYS_kill, {1, SIGKILL}) == "1, SIGKILL");
  CHECK(arguments_of(SYS_tgkill, {7, 8, SIGABRT}) == "7, 8, SIGABRT");
}

TEST_CASE("what has no name in a denied call is told as a number, and no other is taken for it") {
  CHECK(arguments_of(SYS_kill, {~std::uint64_t{0}, 0}) == "-1, 0");
  CHECK(arguments_of(SYS_kill, {1, 40}) == "1, 40");
  CHECK(arguments_of(SYS_kill, {1, 1000}) == "1, 1000");
  CHECK(arguments_of(SYS_ioctl, {0, 0x100000000 | TIOCSTI, 0}) == "0, 0x100005412, 0");
  CHECK(arguments_of(SYS_clone, {0, 0}) == "0, 0");
  CHECK(arguments_of(SYS_unshare, {std::uint64_t{1} << 40}) == "0x10000000000");
  CHECK(arguments_of(SYS_dup, {5, 1, 2, 3}) == "5, 1, 2, 3");
}
