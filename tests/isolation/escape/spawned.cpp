// A spawned program under a policy makes the same attempts as a plugin: it may have children and what programs need to
// start, and gets nowhere else.
#include "outside.hpp"
#include <bulkhead/process.hpp>

#include <boost/asio/read.hpp>
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <unistd.h>

using namespace bulkhead;
using namespace bulkhead::testing;

TEST_CASE("a spawned program under a policy can have children, and can't get out") {
  const outside there;
  // Where the sandbox's user finds it.
  const std::filesystem::path program = there.directory() + "/elsewhere/escapee";
  std::filesystem::copy_file(std::string(BULKHEAD_TEST_PROGRAMS) + "/escapee", program);
  std::filesystem::permissions(program, std::filesystem::perms(0755));
  const unique_fd terminal(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(::grantpt(terminal.get()) == 0);
  REQUIRE(::unlockpt(terminal.get()) == 0);
  const unique_fd its_end(::open(::ptsname(terminal.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(its_end);

  launcher launch;
  process_options options;
  options.policy = policy().default_memory_limit(std::size_t{1} << 30).at_least(sandbox_level::full);
  options.streams = {stdio::null(), stdio::null(), stdio::inherit()};
  const child sibling = launch.spawn("/bin/sleep", {"300"}, options);
  options.streams = {stdio::fd(its_end.get()), stdio::pipe(), stdio::inherit()};
  const child escapee =
      launch.spawn(program.string(),
                   {std::to_string(::getpid()), std::to_string(launch.server_pid()), std::to_string(sibling.pid()),
                    std::to_string(there.port()), there.abstract(), there.directory() + "/secret", there.directory()},
                   options);
  std::string text;
  boost::system::error_code end;
  boost::asio::read(escapee.out(), boost::asio::dynamic_buffer(text), end);
  CHECK(escapee.wait().code == 0);
  std::set<std::string> got;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) got.insert(line);
  // What programs may. A handler of denials they do not have.
  CHECK(got ==
        std::set<std::string>{"descriptors: make a file in memory", "kernel: ask for a signal when its parent dies",
                              "kernel: replace it by a number with high bits", "kernel: replace the handler of denials",
                              "processes: clone a child", "processes: fork", "processes: fork by the C library"});
  std::filesystem::remove(program);
  CHECK(there.damage() == "");
  CHECK(sibling.kill(SIGKILL));  // it lives
}
