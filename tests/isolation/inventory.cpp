// The inventory of a worker's descriptors.
#include "sandbox/inventory.hpp"

#include <bulkhead/ipc/system.hpp>

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace bulkhead;

namespace {

// As a process that may have 64 open.
std::string finding(int highest_allowed) {
  rlimit before{};
  checked(::getrlimit(RLIMIT_NOFILE, &before), "getrlimit");
  const rlimit few{64, before.rlim_max};
  checked(::setrlimit(RLIMIT_NOFILE, &few), "setrlimit");
  std::string said;
  try {
    sandbox::check_inventory(highest_allowed);
  } catch (const std::runtime_error& e) {
    said = e.what();
  }
  checked(::setrlimit(RLIMIT_NOFILE, &before), "setrlimit");
  return said;
}

}  // namespace

TEST_CASE("a descriptor that a worker should not have is found, also above its limit") {
  constexpr int highest_allowed = 90;
  REQUIRE(::syscall(SYS_close_range, highest_allowed + 1, ~0u, 0) == 0);  // what the test itself has inherited
  CHECK(finding(highest_allowed).empty());
  for (const int extra : {91, 100, 300}) {
    const unique_fd any(checked(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open"));
    const unique_fd high(checked(::fcntl(any.get(), F_DUPFD_CLOEXEC, extra), "fcntl(F_DUPFD_CLOEXEC)"));
    REQUIRE(high.get() == extra);
    CHECK(finding(highest_allowed).find("descriptor " + std::to_string(extra) + " is open") == 0);
    CHECK(finding(extra).empty());
  }
}
