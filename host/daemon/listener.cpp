// See listener.hpp.
#include "listener.hpp"

#include <fmt/format.h>

#include <cstring>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace bulkhead::daemon {
namespace {

constexpr int backlog = 128;
constexpr int most_at_once = 16;                             // then others get their turn
constexpr std::chrono::milliseconds pause_after_error{100};  // out of descriptors: accepting again at once would spin

// Held for as long as the daemon lives; the kernel lets go of it however the daemon ends.
unique_fd take_lock(const std::filesystem::path& path) {
  const std::string name = path.string() + ".lock";
  unique_fd lock(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) throw_errno("socket: can't make " + name);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) throw_errno("socket: can't lock " + name);
  throw std::runtime_error("another daemon serves " + path.string() +
                           " already: stop it, or give this one another 'socket'");
}

void remove_stale(const std::filesystem::path& path, const sockaddr_un& address) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return;
  if (!S_ISSOCK(found.st_mode))
    throw std::runtime_error("socket: there is something else at " + path.string() +
                             "; remove it, or give another path");
  const unique_fd probe(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno != ECONNREFUSED)
    throw std::runtime_error("socket: another program serves " + path.string() + "; give another path");
  if (::unlink(path.c_str()) != 0) throw_errno("socket: can't remove what is left of " + path.string());
}

}  // namespace

listener::listener(const std::filesystem::path& path, bool for_others) : path_(path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path) throw std::runtime_error("socket: its path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  std::filesystem::create_directories(path.parent_path());
  lock_ = take_lock(path);
  remove_stale(path, address);
  socket_.reset(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
  if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw_errno("socket: can't make " + path.string());
  // Nobody gets in before listen().
  if (::chmod(path.c_str(), for_others ? 0666 : 0600) != 0)
    throw_errno("socket: can't set the mode of " + path.string());
  checked(::listen(socket_.get(), backlog), "listen");
}

listener::~listener() { stop(); }

void listener::start(std::shared_ptr<reactor> loop, taker take) {
  loop_ = std::move(loop);
  take_ = std::move(take);
  watch_ = loop_->new_watch();
  loop_->add(watch_, socket_.get(), weak_from_this(), 0, EPOLLIN);
}

void listener::stop() {
  if (stopped_.exchange(true)) return;
  if (loop_) loop_->remove(socket_.get(), watch_);
  ::unlink(path_.c_str());
}

void listener::on_ready(int, std::uint32_t) {
  for (int i = 0; i < most_at_once && !stopped_; ++i) {
    unique_fd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) {
      if (errno == EAGAIN || stopped_) break;
      if (errno == ECONNABORTED || errno == EINTR) continue;
      return loop_->schedule(ipc::clock::now() + pause_after_error, weak_from_this());
    }
    ucred who{};
    socklen_t size = sizeof who;
    if (::getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) == 0)
      take_(std::move(client), {who.pid, who.uid});
  }
  on_timer();
}

void listener::on_timer() {
  if (!stopped_) loop_->arm(socket_.get(), watch_, EPOLLIN);
}

}  // namespace bulkhead::daemon
