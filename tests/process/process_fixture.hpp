// What the tests of child processes share.
#pragma once

#include "../features.hpp"
#include "../integration/fixture.hpp"
#include <bulkhead/process.hpp>

#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <csignal>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead::testing {

inline std::string program(const std::string& name) { return std::string(BULKHEAD_TEST_PROGRAMS) + "/" + name; }

// All that a stream has until its end.
inline std::string rest_of(child_stream& from) {
  std::string out;
  boost::system::error_code code;
  boost::asio::read(from, boost::asio::dynamic_buffer(out), code);
  return out;
}

inline std::string line_of(child_stream& from) {
  std::string out;
  boost::asio::read_until(from, boost::asio::dynamic_buffer(out), '\n');
  return out.substr(0, out.find('\n'));
}

// Waits for the end of a process that is nobody's child here. Before it could be asked for, it may be gone already.
inline bool ends(pid_t pid, int within_ms = 10'000) {
  const unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return errno == ESRCH;
  pollfd ready{pidfd.get(), POLLIN, 0};
  return ::poll(&ready, 1, within_ms) == 1;
}

template <class F>
boost::system::system_error error_of(F action) {
  try {
    action();
  } catch (const boost::system::system_error& error) {
    return error;
  }
  FAIL("it succeeded");
  throw std::logic_error("unreachable");
}

inline std::filesystem::path write_file(const std::filesystem::path& file, const std::string& text,
                                        unsigned mode = 0644) {
  std::ofstream(file) << text;
  std::filesystem::permissions(file, std::filesystem::perms(mode));
  return file;
}

// No child is left for anybody to reap, of whatever kind.
inline bool no_children() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 ? errno == ECHILD : info.si_pid == 0;
}

inline std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> out;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream list(thread.path() / "children");
    for (pid_t each = 0; list >> each;) out.push_back(each);
  }
  return out;
}

// How many children this process's children have: what process servers have left, alive or to be reaped.
inline std::size_t grandchildren() {
  std::size_t count = 0;
  for (const pid_t child : children_of(::getpid())) count += children_of(child).size();
  return count;
}

// The last children's events may be under way: waits until there are no more than so many descriptors, and no child.
inline void settle(launcher& launch, std::size_t descriptors) {
  for (int i = 0; i < 1000 && (entries("/proc/self/fd") > descriptors || grandchildren() > 0); ++i)
    launch.exec("true", {}, boost::asio::use_future).get();
}

// Neither the application nor any of its process servers has kept something of a child. `descriptors`: how many there were.
inline void check_nothing_left(launcher& launch, std::size_t descriptors) {
  settle(launch, descriptors);
  CHECK(entries("/proc/self/fd") <= descriptors);
  CHECK(grandchildren() == 0);
  for (const pid_t server : children_of(::getpid())) CHECK(entries("/proc/" + std::to_string(server) + "/fd") < 20);
  CHECK(no_children());
}

// What `one` starts leaves no descriptor and no process, however often it is done.
template <class F>
void check_leaves_nothing(launcher& launch, int times, F one) {
  launch.exec("true", {}, boost::asio::use_future).get();
  for (int i = 0; i < 5; ++i) one();
  settle(launch, entries("/proc/self/fd"));
  const std::size_t before = entries("/proc/self/fd");
  for (int i = 0; i < times; ++i) one();
  check_nothing_left(launch, before);
}

}  // namespace bulkhead::testing
