// See child_core.hpp.
#include "process/child_core.hpp"

#include "process/node_wire.hpp"
#include "sandbox/report_text.hpp"
#include <bulkhead/crash_report.hpp>

#include <boost/asio/bind_executor.hpp>

#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead {
namespace {

constexpr int shutdown_ms = 1000;

// Without a PID namespace a policy leaves the group.
kill_scope scope_of(const process_options& options, const sandbox_report& sandbox) {
  if (!options.policy) return options.scope;
  for (const sandbox_layer& each : sandbox.layers)
    if (each.name == "pid" && each.in_force) return kill_scope::pid_namespace;
  return options.scope == kill_scope::child ? kill_scope::child : kill_scope::group;
}

}  // namespace

std::string to_string(const exit_status& status) {
  if (status.code < -1) return "could not be started";
  if (status.code < 0 && !status.signal) return "ended, and its status was lost with the process server";
  if (status.out_of_memory) return "was killed by the kernel, out of memory";
  if (status.signal) return "was killed by " + signal_name(status.signal);
  return "exited with status " + std::to_string(status.code);
}

child_core::child_core(std::shared_ptr<process::server_client> servers, const boost::asio::any_io_executor& on,
                       std::shared_ptr<void> context, const process_options& options, process::spawned_child made,
                       unique_fd end, std::unique_ptr<sandbox::cgroup> cgroup)
    : pid(made.pid),
      sandbox(sandbox::from_lines(made.layers)),
      executor(on),
      context_(std::move(context)),
      servers_(std::move(servers)),
      strand_(on),
      events_(options.events),
      detached_(options.detached),
      timeout_(options.timeout),
      kill_grace_(options.kill_grace),
      kill_signal_(options.kill_signal),
      scope_(scope_of(options, sandbox)),
      has_init_(options.policy || options.scope == kill_scope::pid_namespace),
      stop_(options.stop),
      pidfd_(std::move(made.pidfd)),
      end_number_(end.get()),
      end_(strand_, end.release()),
      timer_(strand_),
      any_handle_(options.any_handle),
      may_send_handles_(!options.policy || options.policy->granted().handles),
      cgroup_(std::move(cgroup)) {}

void child_core::add_stream(std::size_t number, unique_fd end, bool output) {
  if (output) ++open_outputs_;
  streams_[number] =
      std::make_shared<child_stream>(std::move(end), executor, output, [weak = weak_from_this(), output] {
        const auto self = weak.lock();
        if (!self || !output) return;
        boost::asio::post(self->strand_, [self] {
          --self->open_outputs_;
          self->check_closed();
        });
      });
}

void child_core::start() {
  for (const auto& [number, stream] : streams_) stream->watch();  // before it is somebody else's
  boost::asio::post(strand_, [self = shared_from_this()] {
    self->watch_end();
    self->watch_limits();
    if (self->channel_) self->channel_->open();
    if (self->events_.on_spawn) self->events_.on_spawn();
  });
}

void child_core::add_channel(unique_fd socket, std::function<void(std::vector<unique_fd>)> discard) {
  // It runs on this strand: what it reads is told before it reads more. What nobody is told of has handles all the same.
  const auto tell = [&](auto member) -> decltype(node_channel_options::on_message) {
    if (!(events_.*member)) return nullptr;
    return [weak = weak_from_this(), member, discard](const nlohmann::json& message, passed_handle handle) {
      if (const auto self = weak.lock()) return (self->events_.*member)(message, std::move(handle));
      discard(node::descriptor_of(std::move(handle)));
    };
  };
  node_channel_options options;
  options.on_message = tell(&child_events::on_message);
  options.on_internal = tell(&child_events::on_internal);
  options.on_disconnect = [weak = weak_from_this()](const std::string& violation) {
    const auto self = weak.lock();
    if (!self) return;
    if (!violation.empty()) {
      self->try_kill(SIGKILL);
      self->tell_error(make_error_code(boost::system::errc::protocol_error), "its channel: " + violation);
    }
    boost::asio::post(self->strand_, [self] { self->on_disconnected(); });
  };
  options.on_unsent = [weak = weak_from_this()](boost::system::error_code code) {
    if (const auto self = weak.lock()) self->tell_error(code, "a message could not be sent");
  };
  options.receive_handles = may_send_handles_;
  options.any_handle = any_handle_;
  options.discard = std::move(discard);
  channel_ = node_channel::prepare(strand_, std::move(socket), std::move(options));
}

void child_core::on_disconnected() {
  disconnected_ = true;
  boost::asio::post(strand_, [self = shared_from_this()] {
    if (self->exit_waits_ && !self->exit_told_) self->tell_exit();
  });
  if (events_.on_disconnect) events_.on_disconnect();
}

node_channel& child_core::channel() {
  if (!channel_) throw std::logic_error("this child has no channel: see process_options::channel, or use fork()");
  return *channel_;
}

child_stream& child_core::stream(std::size_t number) {
  const auto found = streams_.find(number);
  if (found == streams_.end())
    throw std::logic_error("stream " + std::to_string(number) +
                           " of this child is no pipe: see process_options::streams");
  return *found->second;
}

// True when its end is known.
bool child_core::reap() {
  {
    std::lock_guard held(mutex_);
    if (status_) return true;
    process::end how;
    ssize_t n = 0;
    while ((n = ::read(end_number_, &how, sizeof how)) == sizeof how && how.inner) inner_status_ = how.status;
    exit_status status;
    if (n == sizeof how) {
      const int said = inner_status_.value_or(how.status);
      if (WIFEXITED(said)) status.code = WEXITSTATUS(said);
      else status.signal = WTERMSIG(said);
      status.core_dumped = WIFSIGNALED(said) && WCOREDUMP(said);
      status.user_time = std::chrono::microseconds(how.user_us);
      status.system_time = std::chrono::microseconds(how.system_us);
      status.max_resident = static_cast<std::size_t>(how.max_resident);
    } else if (n != 0 || !fork_server::has_ended(pidfd_.get(), 0)) {
      return false;
    }  // else its server has died before it, and nobody knows
    status.out_of_memory = status.signal == SIGKILL && cgroup_ && cgroup_->ran_out_of_memory();
    cgroup_.reset();
    status_ = status;
  }
  servers_->forget(pidfd_.get());
  return true;
}

void child_core::watch_end() {
  if (let_go) return;
  const auto ended = [self = shared_from_this()](boost::system::error_code code) { code ? void() : self->on_ended(); };
  if (pidfd_watch_) pidfd_watch_->async_wait(boost::asio::posix::stream_descriptor::wait_read, ended);
  else end_.async_wait(boost::asio::posix::stream_descriptor::wait_read, ended);
}

void child_core::on_ended() {
  if (!reap()) {
    pollfd gone{end_number_, POLLIN, 0};
    // Nothing is there, nor has another thread read it: its server has died.
    if (!pidfd_watch_ && ::poll(&gone, 1, 0) == 1 && gone.revents == POLLHUP && !reap()) {
      pidfd_watch_.emplace(strand_, ::fcntl(pidfd_.get(), F_DUPFD_CLOEXEC, 0));
      watch_server();
    }
    return watch_end();
  }
  server_watch_.reset();
  read_reports();
  if (!channel_ || disconnected_) return tell_exit();
  exit_waits_ = true;  // for what it had sent before its end
  channel_->drain();
}

// That has died.
void child_core::watch_server() {
  unique_fd next = servers_->replace_server_of(pidfd_.get());
  server_watch_.reset();
  if (!next) return;
  server_watch_.emplace(strand_, next.release());
  server_watch_->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                            [weak = weak_from_this()](boost::system::error_code code) {
                              if (const auto self = weak.lock(); self && !code) self->watch_server();
                            });
}

void child_core::tell_exit() {
  if (std::exchange(exit_told_, true)) return;
  std::vector<detail::completion<boost::system::error_code, exit_status>> waiters;
  exit_status status;
  {
    std::lock_guard held(mutex_);
    waiters.swap(waiters_);
    status = *status_;
  }
  for (auto& each : waiters) each->complete({}, status);
  boost::asio::post(strand_, [self = shared_from_this()] { self->check_closed(); });
  if (events_.on_exit) events_.on_exit(status);
}

void child_core::check_closed() {
  if (closed_ || !exit_told_ || open_outputs_ > 0) return;
  closed_ = true;
  if (!given_up()) timer_.cancel();  // else what it has started has its grace yet
  on_stop_.reset();
  if (events_.on_close) events_.on_close(*status_);
}

exit_status child_core::wait() { return *wait_for(std::chrono::nanoseconds::max()); }

std::optional<exit_status> child_core::wait_for(std::chrono::nanoseconds limit) {
  const bool forever = limit == std::chrono::nanoseconds::max();
  const auto until = std::chrono::steady_clock::now() + (forever ? std::chrono::nanoseconds(0) : limit);
  while (!reap()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (!forever && left <= 0) return std::nullopt;
    pollfd told{end_number_, POLLIN, 0};
    const int patience = forever ? -1 : static_cast<int>(std::min<long>(left, 1 << 30));
    ::poll(&told, 1, patience);
    if (!(told.revents & POLLIN) && (told.revents & POLLHUP)) fork_server::has_ended(pidfd_.get(), patience);
  }
  std::lock_guard held(mutex_);
  return status_;
}

void child_core::start_wait(detail::completion<boost::system::error_code, exit_status> done) {
  std::unique_lock held(mutex_);
  if (!status_) return waiters_.push_back(std::move(done));
  const exit_status status = *status_;
  held.unlock();
  done->complete({}, status);
}

void child_core::end_now() {
  if (!detached_) {
    kill_quietly();
    wait_for(std::chrono::milliseconds(shutdown_ms));
  }
  // Operations in progress hold this child, and it the context that they are in. One may have completed already, whose
  // handler would begin the next.
  boost::asio::post(strand_, [self = shared_from_this()] {
    self->let_go = true;
    self->end_.cancel();
    if (self->pidfd_watch_) self->pidfd_watch_->cancel();
    if (self->channel_) self->channel_->drain();
    self->abandon();
    self->on_stop_.reset();
    const bool ended = self->reap();  // perhaps nobody has been told
    std::vector<detail::completion<boost::system::error_code, exit_status>> waiters;
    std::unique_lock held(self->mutex_);
    waiters.swap(self->waiters_);
    const auto status = self->status_;
    const auto tell = ended ? nullptr : std::exchange(self->given_up_, nullptr);
    held.unlock();
    for (auto& each : waiters)
      each->complete(ended ? boost::system::error_code() : boost::asio::error::operation_aborted,
                     status.value_or(exit_status()));
    if (tell) tell();
    if (ended && !self->exit_told_) self->on_ended();
  });
}

void child_core::abandon() {
  for (const auto& [number, each] : streams_) each->close();
  boost::asio::post(strand_, [self = shared_from_this()] {
    if (self->given_up()) self->try_kill(SIGKILL);  // the rest of its grace is nobody's
    self->timer_.cancel();
  });
}

// --- the handle -------------------------------------------------------------------------------------------------------

pid_t child::pid() const { return core_->pid; }
child_stream& child::stream(std::size_t number) const { return core_->stream(number); }
node_channel& child::channel() const { return core_->channel(); }
bool child::kill(int signal) const { return core_->kill_or_tell(signal, false); }
bool child::kill_tree(int signal) const { return core_->kill_or_tell(signal, true); }
exit_status child::wait() const { return core_->wait(); }
std::optional<exit_status> child::wait_for(std::chrono::nanoseconds limit) const { return core_->wait_for(limit); }
bool child::timed_out() const { return core_->timed_out; }
bool child::stopped() const { return core_->stop_requested; }
std::vector<violation> child::violations() const { return core_->violations(); }
sandbox_report child::sandbox() const { return core_->sandbox; }
boost::asio::any_io_executor child::executor() const { return core_->executor; }
void child::start_wait(detail::completion<boost::system::error_code, exit_status> done) const {
  core_->start_wait(std::move(done));
}

}  // namespace bulkhead
