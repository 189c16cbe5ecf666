// See worker_process.hpp. Three parties act on a worker at once: callers (who read its channel themselves), the
// reactor, and the pool that owns it. Whoever first learns that the process has ended settles its account.
#include "worker_process.hpp"

#include "report/black_box_copy.hpp"
#include "sandbox/refuse_descriptors.hpp"
#include "sandbox/report_text.hpp"
#include "sandbox/violation_text.hpp"
#include <bulkhead/ipc/lane_transport.hpp>

#include <algorithm>
#include <csignal>
#include <fstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

namespace bulkhead {
namespace {

enum tag { channel_tag, look_tag, pidfd_tag, log_tag, reports_tag };

constexpr std::chrono::milliseconds cancel_grace{1000};
constexpr std::chrono::milliseconds log_pause{5};  // after each full read of a flooded log
constexpr std::size_t log_chunk = std::size_t{64} << 10;

unique_fd make_black_box() {
  unique_fd fd(checked(::memfd_create("bulkhead-black-box", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  checked(::ftruncate(fd.get(), black_box::size), "ftruncate");
  checked(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "fcntl(F_ADD_SEALS)");
  return fd;
}

void make_pipe(unique_fd& reading, unique_fd& writing, int flags) {
  int ends[2];
  checked(::pipe2(ends, flags), "pipe2");
  reading.reset(ends[0]);
  writing.reset(ends[1]);
}

}  // namespace

worker_process::worker_process(std::shared_ptr<host_core> core, std::shared_ptr<const worker_settings> settings,
                               std::weak_ptr<worker_owner> owner, std::uint64_t id)
    : worker_process(std::move(core), std::move(settings), std::move(owner), id, ipc::socket_transport::make_pair()) {}

worker_process::worker_process(std::shared_ptr<host_core> core, std::shared_ptr<const worker_settings> settings,
                               std::weak_ptr<worker_owner> owner, std::uint64_t id,
                               std::pair<unique_fd, unique_fd> ends)
    : core_(std::move(core)),
      settings_(std::move(settings)),
      owner_(std::move(owner)),
      id_(id),
      worker_end_(std::move(ends.second)),
      socket_(ends.first.get()),
      channel_(make_transport(std::move(ends.first)), settings_->options.limits, *this, this),
      socket_watch_(core_->reactor->new_watch()),
      pidfd_watch_(core_->reactor->new_watch()),
      log_watch_(core_->reactor->new_watch()),
      reports_watch_(core_->reactor->new_watch()),
      black_box_(make_black_box()),
      image_(settings_->plugin),
      kept_(settings_->options.keep_requests),
      start_deadline_(ipc::clock::now() + settings_->options.start_timeout) {}

// Programs of others do without lanes. What goes to the worker can't be mapped for writing from now on; what comes from
// it, the worker's bootstrap maps once and seals before it loads the plugin.
std::unique_ptr<ipc::transport> worker_process::make_transport(unique_fd socket) {
  const unsigned handles = settings_->rules.granted().handles ? settings_->options.limits.handles : 0;
  auto plain = std::make_unique<ipc::socket_transport>(std::move(socket), handles, ipc::read_patience);
  const ipc::lane_options& options = settings_->options.lanes;
  if (!options.enabled || !settings_->argv.empty() || settings_->internal) return plain;
  lane_to_ = ipc::lane_memory::make(options.ring);
  lane_from_ = ipc::lane_memory::make(options.ring);
  ipc::lane_memory mine(lane_to_.get(), true), theirs(lane_from_.get(), false);
  ipc::lane_memory::seal(lane_to_.get());
  auto made = std::make_unique<ipc::lane_transport>(std::move(plain), std::move(mine), std::move(theirs), true);
  made->configure(options);
  return made;
}

worker_process::~worker_process() {
  stop_watching();
  if (settings_->rules.granted().handles) {  // the socket may hold some that were never read
    std::vector<unique_fd> rest = channel_.take_leftover_handles();
    if (unique_fd socket(::fcntl(socket_, F_DUPFD_CLOEXEC, 3)); socket) rest.push_back(std::move(socket));
    discard(std::move(rest));
  }
  if (!pidfd_) return;
  core_->forks.forget(pidfd_.get());
  if (is_reaped_) return;
  // Its birth failed half-way, or it is undead; or it has ended, but a debugger has the first word.
  ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  core_->closer.reap(std::move(pidfd_));
}

void worker_process::start() {
  blobs_ = std::make_shared<worker_blobs>(
      settings_->arguments, core_->reactor,
      [me = weak_from_this()](std::vector<std::uint8_t> frame, std::vector<unique_fd> handles) {
        const auto alive = me.lock();
        return alive && alive->tell(frame, std::move(handles));
      });
  try {
    spawn();
  } catch (const std::exception& e) {
    throw call_error(outcome::unavailable, std::string("no worker could be started: ") + e.what());
  }
}

void worker_process::spawn() {
  const sandbox_layer channel = sandbox::guard_channel(socket_, settings_->rules.granted().handles);
  log_ = std::make_shared<log_stream>([this](log_level level, std::string text, std::uint64_t dropped) {
    if (const auto owner = owner_.lock()) owner->on_log(level, pid_, std::move(text), dropped);
  });
  unique_fd log_end, reports_end;
  make_pipe(log_pipe_, log_end, O_CLOEXEC);
  checked(::fcntl(log_pipe_.get(), F_SETFL, O_NONBLOCK), "fcntl(O_NONBLOCK)");
  make_pipe(reports_pipe_, reports_end, O_CLOEXEC | O_NONBLOCK);

  // The greeting waits in the socket before the worker exists; with a cgroup it comes when the worker is in there, and
  // nothing of the plugin's runs before the greeting.
  sandbox_layer layer;
  const bool counted = sandbox::cgroup_maker::wanted(settings_->rules.granted());
  if (counted) cgroup_ = core_->cgroups.make(settings_->rules.granted(), layer);
  if (!cgroup_ && settings_->rules.granted().milli_cpus > 0 &&
      settings_->rules.granted().required > sandbox_level::limited)
    throw std::runtime_error("cpus can't be limited here: " + layer.detail);
  // Whether children have to be counted is known by what else stands.
  const bool greeted = !cgroup_ && !settings_->rules.granted().subprocesses;
  if (greeted) say_hello();
  std::vector<int> fds = {worker_end_.get(), log_end.get(), black_box_.get(), reports_end.get()};
  if (image_) fds.push_back(image_->get());
  if (lane_to_) fds.insert(fds.end(), {lane_to_.get(), lane_from_.get()});
  unique_fd end_end;
  if (!settings_->argv.empty()) {
    make_pipe(end_pipe_, end_end, O_CLOEXEC | O_NONBLOCK);
    fds.push_back(end_end.get());
  }
  policy rules = settings_->rules;
  if (rules.granted().memory > 0) rules.default_memory_limit(rules.granted().memory + published_bytes());
  auto spawned = core_->forks.spawn(fds, settings_->argv, settings_->options.environment, rules);
  worker_end_.reset();
  log_end.reset();
  reports_end.reset();
  end_end.reset();
  sandbox_ = std::move(spawned.layers) + sandbox::to_line(channel);
  const sandbox_report report = sandbox::from_lines(sandbox_);
  if (std::string missing = sandbox::missing_grants(report);
      !missing.empty() && settings_->counters && !settings_->counters->grants_missed.exchange(true))
    core_->log({log_level::warning, settings_->name, spawned.pid, std::move(missing), 0});
  const bool wanted = sandbox::cgroup_maker::wanted(settings_->rules.granted(), report);
  if (wanted && !counted) cgroup_ = core_->cgroups.make(settings_->rules.granted(), layer);
  if (wanted) sandbox_ += sandbox::to_line(layer);
  {
    std::lock_guard held(mutex_);
    pidfd_ = std::move(spawned.pidfd);
    started_ = ipc::clock::now();
    pid_ = spawned.pid;
    if (condemned_ != exit_reason::unknown) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  }
  if (cgroup_) cgroup_->add(pid_);
  if (!greeted) say_hello();
  if (const auto owner = owner_.lock()) owner->on_started(id_, pid_);

  const auto self = weak_from_this();
  core_->reactor->add(socket_watch_, socket_, self, channel_tag, 0);
  core_->reactor->add(pidfd_watch_, end_pipe_ ? end_pipe_.get() : pidfd_.get(), self, pidfd_tag, EPOLLIN);
  core_->reactor->add(log_watch_, log_pipe_.get(), self, log_tag, EPOLLIN);
  core_->reactor->add(reports_watch_, reports_pipe_.get(), self, reports_tag, EPOLLIN);
  channel_.open();
  schedule(start_deadline_);
}

// --- the reactor ----------------------------------------------------------------------------------------------------

void worker_process::arm(bool reading, bool writing) {
  core_->reactor->arm(socket_, socket_watch_, (reading ? EPOLLIN | EPOLLRDHUP : 0u) | (writing ? EPOLLOUT : 0u));
}

// Only where handlers run in the same executor, and get their turn in between: a thread that does nothing else had better
// sleep until there is more to hand on.
bool worker_process::again() { return core_->needs_help() && core_->reactor->again(weak_from_this(), look_tag); }

void worker_process::stop_watching() {
  core_->reactor->remove(socket_, socket_watch_);
  core_->reactor->remove(end_pipe_ && !end_lost_ ? end_pipe_.get() : pidfd_.get(), pidfd_watch_);
  core_->reactor->remove(log_pipe_.get(), log_watch_);
  core_->reactor->remove(reports_pipe_.get(), reports_watch_);
}

void worker_process::schedule(ipc::time_point when) {
  ipc::time_point current = next_timer_;
  while (when < current)
    if (next_timer_.compare_exchange_weak(current, when)) {
      try {
        return core_->reactor->schedule(when, weak_from_this());
      } catch (...) {  // no memory: whoever asks next is not to rely on this one
        next_timer_ = ipc::never;
        throw;
      }
    }
}

void worker_process::on_ready(int tag, std::uint32_t events) {
  if (tag == channel_tag) {
    channel_.on_event(events & ~static_cast<std::uint32_t>(EPOLLOUT), events & EPOLLOUT);
  } else if (tag == look_tag) {
    channel_.look_again();
  } else if (tag == log_tag) {
    read_log(false);
  } else if (tag == reports_tag) {
    read_reports(false);
  } else if (end_pipe_ && !end_lost_ && !has_ended(ipc::clock::now())) {  // the fork server has died, and it lives on
    core_->reactor->remove(end_pipe_.get(), pidfd_watch_);
    end_lost_ = true;
    core_->reactor->add(pidfd_watch_, pidfd_.get(), weak_from_this(), pidfd_tag, EPOLLIN);
  } else {
    settle();
  }
}

void worker_process::on_timer() {
  next_timer_ = ipc::never;
  const auto now = ipc::clock::now();
  ipc::time_point next = ipc::never;
  if (dead_) return;
  if (exited_ && channel_.closed()) return settle();
  tell_what_is_owed();
  unsigned at_once = 1;
  {
    std::lock_guard held(mutex_);
    at_once = description_.concurrency;
  }
  const auto tick = channel_.tick(now, cancel_grace, at_once);
  next = tick.next;
  if (tick.overdue) {
    {
      std::lock_guard held(mutex_);
      fatal_call_ = tick.overdue;
    }
    kill(exit_reason::hung);
  }
  if (!ready_ && now >= start_deadline_) kill(exit_reason::start_timeout);
  else if (!ready_) next = std::min(next, start_deadline_);
  if (const ipc::time_point kill_at = kill_at_; kill_at != ipc::never) {
    if (now >= kill_at) kill(exit_reason::closed);
    else next = std::min(next, kill_at);
  }
  if (log_paused_.exchange(false)) core_->reactor->arm(log_pipe_.get(), log_watch_, EPOLLIN);
  if (next != ipc::never) schedule(next);
}

void worker_process::read_log(bool to_the_end) {
  char chunk[log_chunk];
  // A pipe holds 64 KiB; what a dead worker left behind is read within a few turns.
  for (int turns = to_the_end ? 4 : 1; turns > 0; --turns) {
    const ssize_t n = ::read(log_pipe_.get(), chunk, sizeof chunk);
    if (n > 0) log_->feed({chunk, static_cast<std::size_t>(n)}, ipc::clock::now());
    if (to_the_end) {
      if (n <= 0) break;
      continue;
    }
    if (n == 0) return;  // nobody holds the other end any more
    if (n == static_cast<ssize_t>(sizeof chunk)) {
      log_paused_ = true;
      schedule(ipc::clock::now() + log_pause);
    } else {
      core_->reactor->arm(log_pipe_.get(), log_watch_, EPOLLIN);
    }
  }
  if (to_the_end) log_->finish(ipc::clock::now());
}

// What the fork server writes, which does so at a bounded rate.
void worker_process::read_reports(bool to_the_end) {
  std::lock_guard held(reading_reports_);
  char chunk[log_chunk];
  ssize_t n = 0;
  for (int turns = to_the_end ? 4 : 1; turns > 0 && (n = ::read(reports_pipe_.get(), chunk, sizeof chunk)) > 0; --turns)
    partial_report_.append(chunk, static_cast<std::size_t>(n));
  std::size_t begin = 0;
  for (std::size_t end; (end = partial_report_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    auto denied = sandbox::parse_report(std::string_view(partial_report_).substr(begin, end - begin));
    if (!denied) continue;
    if (denied->result == "killed") {
      std::lock_guard also_held(mutex_);
      if (condemned_ == exit_reason::unknown) condemned_ = exit_reason::violation, killed_for_ = *denied;
    }
    if (const auto owner = owner_.lock()) owner->on_violation(std::move(*denied));
  }
  partial_report_.erase(0, begin);
  if (!to_the_end && n != 0) core_->reactor->arm(reports_pipe_.get(), reports_watch_, EPOLLIN);
}

// --- life as an instance --------------------------------------------------------------------------------------------

void worker_process::wait_ready() {
  channel_.run([this] { return ready_ || dead_; }, start_deadline_);
  if (ready_) return;
  if (!channel_.closed()) kill(exit_reason::start_timeout);
  await_exit(ipc::clock::now() + std::chrono::seconds(5));
  if (ready_ && !dead_) return;
  std::shared_ptr<const crash_report> report;
  outcome code = outcome::unavailable;
  {
    std::lock_guard held(mutex_);
    report = report_;
    if (no_plugin_) code = outcome::rejected;
  }
  throw call_error(
      code,
      "plugin " + settings_->name + " could not start: the worker " + (report ? report->summary() : "does not end"), {},
      report);
}

plugin_info worker_process::description() const {
  std::lock_guard held(mutex_);
  return description_;
}

bool worker_process::idempotent(std::string_view method) const {
  std::lock_guard held(mutex_);
  return std::ranges::any_of(description_.methods,
                             [&](const auto& each) { return each.idempotent && each.name == method; });
}

bool worker_process::in_call() const { return settings_->argv.empty() && black_box_copy(black_box_.get()).in_call; }

worker_info worker_process::info() const {
  const black_box_copy box(black_box_.get());
  worker_info out;
  out.pid = pid_;
  if (out.pid < 0) return out;  // it is being spawned
  if (settings_->argv.empty()) out.phase = box.in_call ? phase::call : box.reached;
  else out.phase = ready_ ? phase::ready : phase::hello;
  out.outstanding = channel_.outstanding();
  out.sandbox = sandbox::from_lines(sandbox_);
  out.violations = box.violations;
  out.started = started_;
  return out;
}

std::size_t worker_process::resident_bytes() const {
  std::ifstream statm("/proc/" + std::to_string(pid_) + "/statm");
  std::size_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

std::size_t worker_process::published_bytes() const {
  return settings_->arguments ? core_->published.bytes(settings_->options.published) : 0;
}

void worker_process::ask_to_leave() {
  leaving_ = true;
  ipc::buffer shutdown = ipc::begin_notification("$/shutdown");
  ipc::packer(shutdown).pack_array(0);
  tell(shutdown.view());
}

void worker_process::end(ipc::time_point deadline) {
  if (!has_ended(deadline)) kill(exit_reason::shut_down, "it did not exit in time");
  await_exit(ipc::clock::now() + std::chrono::seconds(5));
}

}  // namespace bulkhead
