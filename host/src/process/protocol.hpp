// What host and process server say to each other, over a SOCK_SEQPACKET pair: one request of a fixed form with strings
// behind it and file descriptors attached, and one answer with the child's pidfd attached. Both sides are trusted.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::process {

inline constexpr std::uint32_t magic = 0x62687073;  // "bhps"
inline constexpr std::uint32_t version = 3;
inline constexpr std::size_t inline_limit = std::size_t{64} << 10;  // of strings; more travel in a memfd
inline constexpr std::size_t streams_limit = 64;                    // descriptors 0 … 63 of a child
inline constexpr std::size_t cgroups_limit = 3;
inline constexpr std::size_t descriptors_limit = streams_limit + cgroups_limit + 4;

enum class request_kind : std::uint32_t {
  // Descriptors: the pipes for a failure and for its end, that for reports if it has a policy, the files by which it joins
  // its cgroups, the child's 0, 1, 2, …, and the memfd.
  spawn = 1,
  adopt = 2,  // descriptor: pidfd of a living child, to be killed when the host goes away. No answer.
  kill = 3,   // no descriptor: a child by its pid, which the host has no pidfd of. No answer.
};

enum flags : std::uint32_t {
  has_user = 1,
  has_group = 2,
  detached = 4,            // a session of its own; lives on when the host goes. Of a server of their own
  own_process_group = 8,   // killed as a whole
  own_pid_namespace = 16,  // dies as a whole; always with a policy that has one
  sandboxed = 32,          // the strings begin with a policy
  strings_in_memfd = 64,   // the last descriptor
  cgroup_settled =
      128,  // it has one if there is to be one: else it is not made where nothing but that counts or ends its
            // tree, and the answer says so
};

struct request {
  std::uint32_t magic = process::magic;
  std::uint32_t version = process::version;
  request_kind kind = request_kind::spawn;
  std::uint32_t flags = 0;
  std::uint32_t user = 0, group = 0;
  std::int32_t pid = -1;        // adopt: the child's; spawn: the process group to be in, unless it has its own
  std::uint32_t streams = 0;    // how many descriptors the child gets
  std::uint32_t cgroups = 0;    // how many it joins
  std::uint32_t arguments = 0;  // strings, zero-terminated: policy, file, directory, argv, environment
  std::uint32_t environment = 0;
  std::uint64_t strings_size = 0;
};

struct answer {
  std::uint32_t magic = process::magic;
  std::int32_t error = 0;       // errno of what failed before there was a child
  std::int32_t pid = -1;        // as the host sees it; the pidfd is attached
  std::uint32_t refused = 0;    // 1: the sandbox that the policy requires can't be had; the text says why
  std::uint32_t uncounted = 0;  // 1: see cgroup_settled
  std::uint32_t text_size = 0;  // behind this struct: the layers in force (sandbox::to_lines), or why not
};

// How a child has ended, on its pipe for that. Written by the server, which is its parent: execve() gives every process
// SIGCHLD as exit signal again, so that a child of the host's would be seen by the application's own wait().
// With a policy, or in a PID namespace, an init of ours is the program's parent, and what the pidfd stands for: it reaps, it
// forwards signals, and it writes the program's end (`inner`) before its own comes.
struct end {
  std::uint32_t inner = 0;
  std::int32_t status = 0;  // as of wait()
  std::int64_t user_us = 0, system_us = 0, max_resident = 0;
};

// How the host signals through an init: SIGSTOP, say, would stop the init alone. What is meant is in si_value. Whoever else
// signals the init means the program.
inline constexpr int init_signal = 34;  // the first that is queued and the C library's user's
inline constexpr int init_mark = 0x62680000, init_mark_mask = 0x7fff0000;
inline constexpr int init_tree =
    0x100;  // all of its PID namespace; without one, its process group has the signal already
inline constexpr int init_number = 0x7f;

// What the child could not do. Written to the pipe for a failure, which execve() closes otherwise.
enum class step : std::int32_t { streams = 1, session, directory, identity, sandbox, execute };
struct failure {
  process::step step = step::execute;
  std::int32_t error = 0;
};

}  // namespace bulkhead::process
