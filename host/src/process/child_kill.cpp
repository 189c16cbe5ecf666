// What ends a child before its time: its limits, and signals, with whom they reach.
#include "process/child_core.hpp"

#include <csignal>

#include <sys/syscall.h>

namespace bulkhead {
namespace {

constexpr unsigned signal_group = 4;  // PIDFD_SIGNAL_PROCESS_GROUP, of Linux 6.9

}  // namespace

void child_core::watch_limits() {
  if (let_go) return;
  if (timeout_.count() > 0) {
    timer_.expires_after(timeout_);
    timer_.async_wait([self = shared_from_this()](boost::system::error_code code) {
      code ? void() : self->give_up(self->timed_out);
    });
  }
  if (stop_.stop_possible())
    on_stop_.emplace(stop_, [weak = weak_from_this()] {
      if (const auto child = weak.lock())
        boost::asio::post(child->strand_, [child] { child->give_up(child->stop_requested); });
    });
}

void child_core::give_up(std::atomic<bool>& why) {
  if (given_up() || closed_ || let_go) return;
  why = true;
  try_kill(kill_signal_);
  timer_.expires_after(kill_grace_);
  timer_.async_wait([self = shared_from_this()](boost::system::error_code code) {
    if (code) return;
    self->try_kill(SIGKILL);
    if (!self->exit_told_) return;
    std::unique_lock held(self->mutex_);
    const auto tell = std::exchange(self->given_up_, nullptr);
    held.unlock();
    if (tell) tell();
  });
}

void child_core::tell_error(boost::system::error_code code, std::string text) {
  if (events_.on_error)
    boost::asio::post(
        strand_, [self = shared_from_this(), code, text = std::move(text)] { self->events_.on_error(code, text); });
}

void child_core::try_kill(int signal) {
  try {
    kill_or_tell(signal, true);
  } catch (const boost::system::system_error&) {  // it has become another user
  }
}

bool child_core::kill_or_tell(int signal, bool tree) {
  try {
    return kill(signal, tree);
  } catch (const boost::system::system_error& e) {
    tell_error(e.code(), e.what());
    throw;
  }
}

void child_core::kill_quietly() {
  try {
    kill(SIGKILL, true);
  } catch (const boost::system::system_error&) {  // it has become another user, so it is waited for only
  }
}

void child_core::on_given_up(std::function<void()> tell) {
  std::lock_guard held(mutex_);
  given_up_ = std::move(tell);
}

bool child_core::kill(int signal, bool tree) {
  std::lock_guard held(mutex_);
  const bool group = tree && scope_ == kill_scope::group;
  if (status_ && !group) return false;
  siginfo_t told{};  // for an init
  told.si_signo = group ? signal : process::init_signal;
  told.si_code = SI_QUEUE;
  told.si_pid = ::getpid();
  told.si_uid = ::getuid();
  told.si_value.sival_int = process::init_mark | signal | (tree ? process::init_tree : 0);
  const auto send = [&](int number, siginfo_t* info) {
    return ::syscall(SYS_pidfd_send_signal, pidfd_.get(), number, info, group ? signal_group : 0u) == 0;
  };
  const bool forwarded = has_init_ && signal != SIGKILL && signal > 0 && signal <= SIGRTMAX;
  // A group also after its leader has been reaped: the kernel knows it by more than the number.
  bool sent = forwarded && send(told.si_signo, &told);
  if (!sent && (!forwarded || errno == EAGAIN)) sent = send(signal, nullptr);  // it may have filled the queue itself
  // Before Linux 6.9 by its number. That is this group's as long as the leader has not been reaped, which the process server
  // may have done before it is known here; and no number is given out twice between two calls.
  if (!sent && errno == EINVAL && group)
    sent = ::syscall(SYS_pidfd_send_signal, pidfd_.get(), 0, nullptr, 0u) == 0 && ::kill(-pid, signal) == 0;
  if (!sent && errno != ESRCH)
    throw boost::system::system_error(errno, boost::system::system_category(), "kill " + std::to_string(pid));
  if (group && signal == SIGKILL && cgroup_) cgroup_->kill_all();  // those that have left the group, too
  return sent;
}

}  // namespace bulkhead
