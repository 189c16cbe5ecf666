// See bootstrap.hpp. The order of birth is a contract (see docs/security.md): nothing of the plugin runs before the
// sandbox stands.
#include "bootstrap.hpp"

#include "crash_handler.hpp"
#include "report/stack_recorder.hpp"
#include "sandbox/sandbox.hpp"
#include "session.hpp"
#include <bulkhead/error.hpp>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include <fcntl.h>
#include <sys/mman.h>

namespace bulkhead {
namespace {

constexpr int exit_usage = 64;  // EX_USAGE

// Takes a descriptor's number out of the environment, so that the plugin's own children do not inherit it.
std::optional<int> take_descriptor(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return std::nullopt;
  int fd = -1;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), fd);
  const bool valid = error == std::errc() && *end == 0 && ::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
  if (!valid) {
    std::fprintf(stderr, "bulkhead-worker: %s=%s does not name an open descriptor\n", variable, text);
    std::exit(exit_usage);
  }
  ::unsetenv(variable);
  return fd;
}

black_box* map_black_box(int fd) {
  void* page = ::mmap(nullptr, black_box::size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return page == MAP_FAILED ? nullptr : static_cast<black_box*>(page);
}

}  // namespace

int run_worker(const std::string& path, const worker_sandbox& sandbox) {
  const auto channel = take_descriptor("BULKHEAD_CHANNEL_FD");
  if (!channel) {
    std::fprintf(stderr,
                 "bulkhead-worker: this program is started by a bulkhead host, or by any other parent that makes a\n"
                 "channel and names it in BULKHEAD_CHANNEL_FD (see docs/protocol.md)\n");
    return exit_usage;
  }
  const char* protocol = std::getenv("BULKHEAD_PROTOCOL");
  if (!protocol || std::strcmp(protocol, "1") != 0) {
    std::fprintf(stderr, "bulkhead-worker: BULKHEAD_PROTOCOL is '%s', this worker speaks 1\n",
                 protocol ? protocol : "");
    return exit_usage;
  }
  ::unsetenv("BULKHEAD_PROTOCOL");

  static black_box own_box;  // when the parent gave none: the crash handler needs a place to write
  black_box* box = &own_box;
  if (const auto fd = take_descriptor("BULKHEAD_BLACK_BOX_FD"))
    if (black_box* shared = map_black_box(*fd)) box = shared;
  auto plugin = take_descriptor("BULKHEAD_PLUGIN_FD");
  std::string file = path;
  if (plugin) {
    file = "/proc/self/fd/" + std::to_string(*plugin);
  } else if (!file.empty()) {
    const int opened = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (opened >= 0) plugin = opened;
  }

  session::lane_descriptors lanes;
  if (const auto fd = take_descriptor("BULKHEAD_LANE_IN_FD")) lanes.in.reset(*fd);
  if (const auto fd = take_descriptor("BULKHEAD_LANE_OUT_FD")) lanes.out.reset(*fd);

  install_crash_handlers(*box, sandbox.memory_limited);
  auto* worker = new session(unique_fd(*channel), box, sandbox.may_send_handles,
                             std::move(lanes));  // never destroyed: the plugin's threads may outlive main()
  worker->enter(static_cast<std::uint32_t>(phase::hello));
  if (!worker->say_hello()) ::_exit(1);
  const std::string& library = sandbox.library.empty() ? file : sandbox.library;
  name_plugin_file(library);
  worker->start_plugin(plugin.value_or(-1), library, [&] { sandbox.seal(*box); });
  if (worker->serve()) {
    worker->enter(static_cast<std::uint32_t>(phase::shutdown));
    worker->runtime().destroy();
    std::fflush(nullptr);
  }
  ::_exit(0);
}

int run_worker_alone(const std::string& path) {
  const unique_fd library(path.empty() ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::optional<sandbox::prepared> prepared;
  const worker_sandbox own{"", false, false, [&](black_box& box) {
                             prepared.emplace(sandbox::namespaces(), policy{}.at_least(sandbox_level::limited),
                                              library.get(), false);
                             prepared->enter();
                             if (!prepared->sufficient()) throw std::runtime_error(prepared->shortcoming());
                             prepared->seal(box, -1, {});
                           }};
  return run_worker(path, own);
}

}  // namespace bulkhead
