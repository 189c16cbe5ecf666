// See daemon.hpp. What clients can ask of the daemon itself is in control.cpp.
#include "daemon.hpp"

#include "notify.hpp"
#include "sandbox/cgroup.hpp"
#include <bulkhead/prometheus.hpp>

#include <fmt/format.h>

#include <algorithm>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

namespace bulkhead::daemon {
namespace {

constexpr std::chrono::seconds flush_limit{1};  // for clients to read their last answers
constexpr std::chrono::milliseconds flush_turn{5};

host_options for_host(host_options options, log_book& log) {
  if (options.cgroup.empty()) options.cgroup = sandbox::vacate_own_cgroup();
  options.on_log = [&log](const log_record& record) { log.add(line_of(record)); };
  options.on_lifecycle = [&log](const lifecycle_event& event) { log.add(line_of(event)); };
  return options;
}

}  // namespace

signal_mask::signal_mask() {
  ::sigemptyset(&set_);
  for (const int each : {SIGHUP, SIGTERM, SIGINT}) ::sigaddset(&set_, each);
  ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);
}

server::server(std::filesystem::path file, config settings, const signal_mask& signals)
    : file_(std::move(file)),
      settings_(std::move(settings)),
      signals_(signals.set()),
      listener_(std::make_shared<listener>(settings_.socket, !settings_.allow_users.empty())),
      log_(settings_.json_log, settings_.level),
      host_(for_host(settings_.host, log_)),
      signals_end_(checked(::eventfd(0, EFD_CLOEXEC), "eventfd")) {
  if (!settings_.metrics.empty())
    metrics_.emplace(io_, settings_.metrics, [this] {
      std::vector<plugin_metrics> all;
      for (plugin_table::row& each : plugins_.rows()) all.push_back(std::move(each.metrics));
      return to_prometheus_text(all);
    });
  loop_->start();
  io_thread_ = std::thread([this] { io_.run(); });
  signal_thread_ = std::thread([this] { watch_signals(); });
}

server::~server() {
  listener_->stop();
  host_.shutdown();
  close_connections();
  ::eventfd_write(signals_end_.get(), 1);
  signal_thread_.join();
  loop_->stop();
  work_.reset();
  boost::asio::post(io_, [this] { io_.stop(); });  // after what has been cancelled: it still refers to this context
  io_thread_.join();
}

int server::run() {
  plugins_.become(settings_);
  listener_->start(loop_, [this](unique_fd socket, const peer& who) { welcome(std::move(socket), who); });
  if (metrics_) log_.info("metrics are at " + metrics_->address());
  log_.info(fmt::format("serving {} on {}", summary(), settings_.socket.string()));
  notify_service_manager("READY=1\nSTATUS=" + summary());
  boost::asio::post(io_, [this] { pet_watchdog(); });
  for (;;) {
    job next;
    {
      std::unique_lock held(mutex_);
      changed_.wait(held, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) break;
      next = std::move(jobs_.front());
      jobs_.pop_front();
    }
    next();
  }
  drain();
  return 0;
}

std::string server::summary() const {
  std::size_t all = 0, well = 0;
  for (const plugin_table::row& each : plugins_.rows()) {
    ++all;
    well += each.state == "running" || each.state == "half open" ? 1 : 0;
  }
  return all == well ? fmt::format("{} plugins", all)
                     : fmt::format("{} plugins, {} of them not running", all, all - well);
}

// --- clients --------------------------------------------------------------------------------------------------------

void server::welcome(unique_fd socket, const peer& who) {
  const bool trusted = who.uid == ::geteuid() || who.uid == 0;
  const auto& others = settings_.allow_users;
  if (!trusted && std::find(others.begin(), others.end(), who.uid) == others.end()) {
    // Said without waiting, and whether it is heard or not.
    ipc::buffer no = ipc::begin_notification("$/leaving");
    ipc::packer(no)
        .pack_array(1)
        .pack_map(2)
        .pack("code")
        .pack("rejected")
        .pack("message")
        .pack(fmt::format("user {} may not use this daemon (allow_users)", who.uid));
    [[maybe_unused]] const ssize_t sent =
        ::send(socket.get(), no.view().data(), no.view().size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return log_.warning("refused a client: " + who.text());
  }
  if (*alive_ >= settings_.clients.connections)
    return log_.warning(fmt::format("refused a client, {}: there are {} already", who.text(), alive_->load()));
  ++*alive_;
  std::shared_ptr<connection> added(new connection(loop_, std::move(socket), who, trusted, settings_.clients, *this),
                                    [alive = alive_](connection* which) {
                                      delete which;
                                      --*alive;
                                    });
  {
    std::lock_guard held(mutex_);
    connections_.insert(added);
  }
  added->open();
}

void server::gone(connection& which, const std::string& violation) {
  if (!violation.empty()) log_.warning(fmt::format("client {} lost its connection: {}", which.who().text(), violation));
  std::lock_guard held(mutex_);
  connections_.erase(which.shared_from_this());
}

std::shared_ptr<ipc::stream> server::call(const connection& from, std::string_view method, packed_arguments arguments,
                                          call_options options, std::unique_ptr<reply_handler> handler,
                                          std::shared_ptr<ipc::stream::link> onward) {
  if (!method.starts_with("bulkhead."))
    return plugins_.call(method, std::move(arguments), options, std::move(handler), std::move(onward));
  control(from, method.substr(9), arguments, options, std::move(handler));
  return nullptr;
}

void server::describe(ipc::packer& into) {
  const auto rows = plugins_.rows();
  std::uint32_t count = 0;
  for (const auto& each : rows) count += static_cast<std::uint32_t>(each.methods.size());
  into.pack_map(3).pack("id").pack("bulkhead").pack("version").pack(BULKHEAD_VERSION).pack("methods").pack_array(count);
  for (const auto& row : rows)
    for (const method_info& each : row.methods) {
      into.pack_map(4).pack("name").pack(row.name + "." + each.name).pack("signature").pack(each.signature);
      into.pack("doc").pack(each.doc).pack("idempotent").pack(each.idempotent);
    }
}

// --- what takes time ------------------------------------------------------------------------------------------------

void server::post(job work) {
  std::lock_guard held(mutex_);
  jobs_.push_back(std::move(work));
  changed_.notify_all();
}

void server::watch_signals() {
  const unique_fd signals(checked(::signalfd(-1, &signals_, SFD_CLOEXEC), "signalfd"));
  for (;;) {
    pollfd fds[] = {{signals.get(), POLLIN, 0}, {signals_end_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents) return;
    signalfd_siginfo info{};
    if (::read(signals.get(), &info, sizeof info) != sizeof info) continue;
    if (info.ssi_signo == SIGHUP) {
      post([this] { reload(); });
      continue;
    }
    std::unique_lock held(mutex_);
    if (std::exchange(stopping_, true)) {
      held.unlock();
      listener_->stop();
      ::_exit(128 + static_cast<int>(info.ssi_signo));  // workers see their channels close, and end
    }
    changed_.notify_all();
  }
}

void server::reload() {
  notify_service_manager(reloading_state());
  try {
    config next = read_config(file_);
    if (next.fixed != settings_.fixed)
      log_.warning("only plugins and 'drain' change without a restart of the daemon; the rest is as it was");
    settings_.plugins = std::move(next.plugins);
    settings_.groups = std::move(next.groups);
    settings_.drain = next.drain;
    const std::size_t failed = plugins_.become(settings_);
    if (failed == 0) log_.info("read the configuration again: " + summary());
    else log_.error(fmt::format("read the configuration again; {} plugins could not be loaded", failed));
  } catch (const std::exception& e) {
    log_.error(std::string("the configuration is as it was: ") + e.what());
  }
  notify_service_manager("READY=1\nSTATUS=" + summary());
}

void server::drain() {
  notify_service_manager("STOPPING=1\nSTATUS=waiting for calls to end");
  log_.info("stopping: no more calls are taken");
  listener_->stop();
  plugins_.refuse_calls("the daemon is stopping");
  if (!plugins_.wait_idle(ipc::clock::now() + settings_.drain))
    log_.warning("calls are still open, and are ended now (see 'drain' in the configuration)");
  host_.shutdown();
  const auto until = ipc::clock::now() + flush_limit;
  const auto unsent = [this] {
    std::lock_guard held(mutex_);
    return std::any_of(connections_.begin(), connections_.end(), [](const auto& each) { return each->unsent() > 0; });
  };
  while (unsent() && ipc::clock::now() < until) std::this_thread::sleep_for(flush_turn);
  log_.info("stopped");
}

void server::close_connections() {
  std::unique_lock held(mutex_);
  const auto those = connections_;
  held.unlock();
  for (const auto& each : those) each->close("");
  held.lock();
  const auto until = ipc::clock::now() + flush_limit;
  while (!connections_.empty() && ipc::clock::now() < until) {
    held.unlock();
    std::this_thread::sleep_for(flush_turn);
    held.lock();
  }
}

// Comes from the thread of the sockets, and only when no lock that calls take hangs.
void server::pet_watchdog() {
  const auto interval = watchdog_interval();
  if (!interval) return;
  plugins_.check_alive();
  notify_service_manager("WATCHDOG=1");
  watchdog_.expires_after(*interval / 3);
  watchdog_.async_wait([this](boost::system::error_code failure) {
    if (!failure) pet_watchdog();
  });
}

}  // namespace bulkhead::daemon
