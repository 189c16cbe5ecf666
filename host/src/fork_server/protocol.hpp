// What host and fork server say to each other, over a SOCK_SEQPACKET pair: one request of a fixed form, with file
// descriptors attached and strings behind it, and one answer with the worker's pidfd attached.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::fork_server {

inline constexpr std::uint32_t magic = 0x62686673;  // "bhfs"
inline constexpr std::uint32_t version = 5;
inline constexpr std::size_t strings_limit = std::size_t{64} << 10;
inline constexpr std::size_t report_limit = std::size_t{8} << 10;

enum class request_kind : std::uint32_t {
  spawn_plugin = 1,   // descriptors: channel, log, black box, reports, plugin, perhaps both lanes
  spawn_program = 2,  // descriptors: channel, log, black box, reports, a pipe for its end
  adopt = 3,          // descriptor: pidfd of a living worker, to be killed when the host goes away. No answer.
  examine = 4,        // no descriptors; strings: policy. What its sandbox would be, with no worker made.
};

// Among a request's descriptors. Reports is a pipe, not blocking, where the fork server writes what it denies the worker and
// its children: sandbox::parse_report() reads it.
inline constexpr std::size_t black_box_index = 2, reports_index = 3, plugin_index = 4, end_index = 4;
inline constexpr std::size_t descriptors_limit = 7;

struct request {
  std::uint32_t magic = fork_server::magic;
  std::uint32_t version = fork_server::version;
  request_kind kind = request_kind::spawn_plugin;
  std::uint32_t arguments = 0;  // how many of the strings are argv
  std::uint32_t strings = 0;    // how many, zero-terminated, behind this struct: policy (which is kept, so
                                // without its environment), argv, environment
  std::uint32_t strings_size = 0;
};

struct answer {
  std::uint32_t magic = fork_server::magic;
  std::int32_t error = 0;       // errno of clone3; 0: the pidfd is attached
  std::int32_t pid = -1;        // as the fork server sees it
  std::uint32_t refused = 0;    // 1: the sandbox that the policy requires can't be had; the text says why
  std::uint32_t text_size = 0;  // behind this struct: the layers in force (sandbox::to_lines), or why not
};

// How a program has ended, on its pipe for that. Its parent is the fork server, which writes it: execve() gives every
// process SIGCHLD as exit signal again, so that one of the host's would be seen by the application's own wait().
struct end {
  std::int32_t status = 0;  // as of wait()
  std::int64_t cpu_us = 0;
  std::int64_t max_resident = 0;  // bytes
};

// Where a worker finds its descriptors.
inline constexpr int channel_fd = 3, black_box_fd = 4, plugin_fd = 5;
inline constexpr int sandbox_fd = 6;                   // gone before the plugin is loaded
inline constexpr int supervisor_fd = 7;                // so is this
inline constexpr int lane_in_fd = 8, lane_out_fd = 9;  // and these, which are there by lanes only
inline constexpr int first_closed_fd = 10;

}  // namespace bulkhead::fork_server
