// See birth.hpp.
#include "birth.hpp"

#include "bootstrap.hpp"
#include "report/black_box.hpp"
#include <bulkhead/crash_report.hpp>
#include <bulkhead/error.hpp>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead::fork_server {
namespace {

// 0 is /dev/null already; 1 and 2 become the log, then channel, black box, plugin and lanes. All else is to be closed.
void place_descriptors(std::vector<unique_fd>& fds, bool program, sandbox::prepared& prepared, int supervisor) {
  constexpr std::array targets = {channel_fd, 1, black_box_fd, plugin_fd, lane_in_fd, lane_out_fd};
  std::vector<int> high;  // out of the way of the targets first
  if (program) fds.erase(fds.begin() + end_index);
  fds.erase(fds.begin() + reports_index);  // these are the fork server's alone
  for (const unique_fd& fd : fds) high.push_back(::fcntl(fd.get(), F_DUPFD, 64));
  supervisor = ::fcntl(supervisor, F_DUPFD, 64);
  prepared.move_descriptor(64);
  for (std::size_t i = 0; i < high.size(); ++i) ::dup2(high[i], targets[i]);
  ::dup2(1, 2);
  ::dup2(supervisor, supervisor_fd);
  for (std::size_t i = high.size(); i < targets.size(); ++i) ::close(targets[i]);
  ::close(sandbox_fd);
  prepared.move_descriptor(sandbox_fd);
  for (unique_fd& fd : fds) fd.release();
}

// Why a worker ends before it can speak: read by the host from its black box.
void leave_note(const std::string& why) {
  const std::string cut = why.substr(0, sizeof black_box::message - 1);
  [[maybe_unused]] const ssize_t n = ::pwrite(black_box_fd, cut.c_str(), cut.size() + 1, offsetof(black_box, message));
}

// What run_worker() goes on with, once it has mapped the black box.
void note_phase(phase reached) {
  const auto value = static_cast<std::uint32_t>(reached);
  [[maybe_unused]] const ssize_t n = ::pwrite(black_box_fd, &value, sizeof value, offsetof(black_box, phase));
}

[[noreturn]] void exec_program(incoming& in, sandbox::prepared& prepared) {
  ::fcntl(black_box_fd, F_SETFD, FD_CLOEXEC);
  const auto arguments = in.arguments();
  std::vector<char*> argv(arguments.begin(), arguments.end());
  argv.push_back(nullptr);
  static black_box unused;
  try {
    prepared.seal(unused, black_box_fd, unique_fd(supervisor_fd));
  } catch (const std::exception& e) {
    leave_note(std::string("its sandbox could not be set up: ") + e.what());
    ::_exit(126);
  }
  ::execve(argv[0], argv.data(), environ);
  leave_note(std::string("could not start ") + argv[0] + ": " + std::strerror(errno));
  ::_exit(127);
}

}  // namespace

void become_worker(incoming& in, sandbox::prepared& prepared, int supervisor) {
  const bool plugin = in.head.kind == request_kind::spawn_plugin;
  const bool lanes = in.fds.size() > plugin_index + 1;
  std::signal(SIGPIPE, SIG_DFL);            // the fork server has a handler
  ::prctl(PR_SET_NAME, "bulkhead-worker");  // in reports, too, of a child that has executed nothing
  bool placed = false;
  try {
    prepared.enter_files();
    place_descriptors(in.fds, !plugin, prepared, supervisor);
    placed = true;
    checked(::syscall(SYS_close_range, first_closed_fd, ~0u, 0), "close_range");
    note_phase(phase::limits);
    prepared.enter();
  } catch (const std::exception& e) {
    if (placed) leave_note(std::string("its sandbox could not be set up: ") + e.what());
    ::_exit(126);
  }
  ::clearenv();
  for (char* each : in.environment()) ::putenv(each);
  ::setenv("BULKHEAD_CHANNEL_FD", std::to_string(channel_fd).c_str(), 1);
  ::setenv("BULKHEAD_PROTOCOL", "1", 1);
  if (plugin) {
    ::setenv("BULKHEAD_BLACK_BOX_FD", std::to_string(black_box_fd).c_str(), 1);
    ::setenv("BULKHEAD_PLUGIN_FD", std::to_string(plugin_fd).c_str(), 1);
    if (lanes) {
      ::setenv("BULKHEAD_LANE_IN_FD", std::to_string(lane_in_fd).c_str(), 1);
      ::setenv("BULKHEAD_LANE_OUT_FD", std::to_string(lane_out_fd).c_str(), 1);
    }
    worker_sandbox seal{prepared.library(), prepared.granted().memory > 0, prepared.granted().handles,
                        [&](black_box& box) { prepared.seal(box, plugin_fd, unique_fd(supervisor_fd)); }};
    ::_exit(run_worker("", seal));
  }
  exec_program(in, prepared);
}

}  // namespace bulkhead::fork_server
