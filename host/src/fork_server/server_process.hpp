// The program bulkhead-worker started as a server of this host: fork server or process server.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace bulkhead::fork_server {

struct server_process {
  unique_fd control;  // SOCK_SEQPACKET; the server ends when it is closed
  pid_t pid = -1;
  unique_fd pidfd;
};

// `variable` names the control channel in its environment, which is otherwise `environment` alone. Throws
// std::system_error.
server_process start_server(const std::filesystem::path& program, const std::string& variable,
                            std::vector<std::string> environment);

// Where the bulkhead-worker program is. Throws std::runtime_error naming the places searched.
std::filesystem::path find_worker_program(const std::filesystem::path& configured);

// The program `bulkhead` of this worker program: beside it where both are built, else where it is installed. If it is not
// there, where it should be.
std::filesystem::path command_program(const std::filesystem::path& worker);

// Whether the process ends within so many milliseconds; -1: waits for it.
bool has_ended(int pidfd, int within_ms);

// How a server ended.
struct server_end {
  bool by_itself = false;     // rather than killed here
  std::optional<int> code;    // what it exited with
  std::optional<int> signal;  // or died of; neither: the application's own wait() was told instead
};
// Kills it unless it ends by itself within so many milliseconds, and reaps it. By its pidfd alone: the application may have
// reaped it already, and its pid be somebody else's. Blocks for a second more at most.
server_end end_server(int pidfd, int within_ms);

}  // namespace bulkhead::fork_server
