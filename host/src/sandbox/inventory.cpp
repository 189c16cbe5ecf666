// See inventory.hpp. There is no /proc to look into: poll() says of each number whether it is open. It takes as many at
// once as a process may have open, whatever their numbers are.
#include "sandbox/inventory.hpp"

#include <bulkhead/ipc/system.hpp>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include <poll.h>
#include <sys/resource.h>

namespace bulkhead::sandbox {
namespace {

constexpr int looked_at = 1024;  // close_range() closed all; what has been opened since has low numbers

}  // namespace

void check_inventory(int highest_allowed) {
  rlimit most{};
  ::getrlimit(RLIMIT_NOFILE, &most);
  std::array<pollfd, 256> some;
  const auto at_once = std::clamp<rlim_t>(most.rlim_cur, 1, some.size());
  for (int fd = highest_allowed + 1; fd < looked_at;) {
    nfds_t count = 0;
    for (; count < at_once && fd < looked_at; ++fd) some[count++] = {fd, 0, 0};
    checked(::poll(some.data(), count, 0), "poll");
    for (nfds_t i = 0; i < count; ++i)
      if (!(some[i].revents & POLLNVAL))
        throw std::runtime_error("descriptor " + std::to_string(some[i].fd) +
                                 " is open in a worker, and should not be");
  }
}

}  // namespace bulkhead::sandbox
