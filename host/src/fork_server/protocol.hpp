// What host and fork server say to each other, over a SOCK_SEQPACKET pair: one request of a fixed form, with file
// descriptors attached and strings behind it, and one answer with the worker's pidfd attached.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bulkhead::fork_server {

inline constexpr std::uint32_t magic = 0x62686673;  // "bhfs"
inline constexpr std::uint32_t version = 1;
inline constexpr std::size_t strings_limit = std::size_t{32} << 10;

enum class request_kind : std::uint32_t {
  spawn_plugin = 1,   // descriptors: channel, log, black box, plugin
  spawn_program = 2,  // descriptors: channel, log, black box; strings: argv
  adopt = 3,          // descriptor: pidfd of a living worker, to be killed when the host goes away. No answer.
};

struct request {
  std::uint32_t magic = fork_server::magic;
  std::uint32_t version = fork_server::version;
  request_kind kind = request_kind::spawn_plugin;
  std::uint32_t arguments = 0;  // how many of the strings are argv; the rest is environment
  std::uint64_t memory_limit = 0;
  std::uint32_t strings = 0;    // how many, zero-terminated, behind this struct
  std::uint32_t strings_size = 0;
};

struct answer {
  std::uint32_t magic = fork_server::magic;
  std::int32_t error = 0;  // errno of clone3; 0: the pidfd is attached
  std::int32_t pid = -1;   // as the fork server sees it
  std::uint32_t pid_namespace = 0;  // 1: the worker has one of its own
};

// Where a worker finds its descriptors.
inline constexpr int channel_fd = 3, black_box_fd = 4, plugin_fd = 5;
inline constexpr int first_closed_fd = 6;

}  // namespace bulkhead::fork_server
