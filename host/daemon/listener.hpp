// The Unix socket that clients connect to: made so that two daemons never share one, and what a dead daemon left behind
// is replaced; each client's credentials are the kernel's word (SO_PEERCRED).
#pragma once

#include "connection.hpp"

namespace bulkhead::daemon {

class listener final : public reactor::target, public std::enable_shared_from_this<listener> {
 public:
  using taker = std::function<void(unique_fd socket, const peer& who)>;

  // Takes the path for this daemon. Its mode is 0600, or 0666 when `for_others`: then who is let in is `take`'s matter.
  // Throws std::runtime_error.
  listener(const std::filesystem::path& path, bool for_others);
  // Removes the socket, unless stop() has done so.
  ~listener() override;

  // Calls `take` for each connection, on the reactor's thread.
  void start(std::shared_ptr<reactor> loop, taker take);
  // No connection comes any more, and the path is free. Any thread.
  void stop();

  void on_ready(int tag, std::uint32_t events) override;
  void on_timer() override;

 private:
  const std::filesystem::path path_;
  unique_fd lock_, socket_;
  std::shared_ptr<reactor> loop_;
  taker take_;
  std::uint64_t watch_ = 0;
  std::atomic<bool> stopped_{false};
};

}  // namespace bulkhead::daemon
