// See host.hpp: the host itself, and what its plugins share.
#include "group_core.hpp"
#include "plugin_pool.hpp"
#include "report/symbolize.hpp"
#include "sandbox/own_cgroup.hpp"
#include "sandbox/refuse_descriptors.hpp"
#include "sandbox/report_text.hpp"
#include "signals_blocked.hpp"
#include <bulkhead/host.hpp>

#include <boost/asio/execution/blocking.hpp>
#include <boost/asio/execution/relationship.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/require.hpp>
#include <boost/asio/system_executor.hpp>

namespace bulkhead {
namespace {

constexpr std::chrono::milliseconds thread_retry{100};
constexpr unsigned queued_logs_limit = 1024;  // records the application has not handled yet

// That executor, for things that must not run before it has been given them. What post() would make of it for each.
template <class Executor>
boost::asio::any_io_executor never_within(const Executor& executor) {
  namespace execution = boost::asio::execution;
  return boost::asio::prefer(boost::asio::require(executor, execution::blocking.never), execution::relationship.fork);
}

}  // namespace

std::string_view to_string(enum lifecycle_event::kind kind) {
  using kinds = enum lifecycle_event::kind;
  switch (kind) {
    case kinds::started: return "started";
    case kinds::ready: return "ready";
    case kinds::exited: return "exited";
    case kinds::undead: return "undead";
    case kinds::restarting: return "restarting";
    case kinds::degraded: return "degraded";
    case kinds::recovered: return "recovered";
    case kinds::gave_up: return "gave up";
    case kinds::quarantined: return "quarantined";
    case kinds::poisoned: return "poisoned";
    case kinds::reloaded: return "reloaded";
    case kinds::regrouped: return "regrouped";
    case kinds::fork_server_died: return "fork server died";
    case kinds::fork_server_gave_up: return "fork server gave up";
  }
  return "unknown";
}

host_core::host_core(host_options given, std::optional<boost::asio::any_io_executor> executor)
    : options(std::move(given)),
      cpu_quota(sandbox::cpu_quota()),
      forks(options.worker_path, options.worker_user),
      cgroups(options.cgroup),
      spawner(options.spawns),
      crashes(options.crash_dir, options.crash_files),
      external_(executor ? std::optional(never_within(*executor)) : std::nullopt),
      handler_work_(handler_io_.get_executor()) {
  if (!external_) {
    io_.emplace(1);
    work_.emplace(io_->get_executor());
  }
  reactor = std::make_shared<bulkhead::reactor>(external_ ? *external_ : io_->get_executor());
  reactor->start();
  if (external_) return;
  const signals_blocked guard;
  io_thread_ = std::thread([this] { io_->run(); });  // last: whatever throws before it leaves no thread
}

std::shared_ptr<host_core> host_core::make(host_options given, std::optional<boost::asio::any_io_executor> executor) {
  auto core = std::make_shared<host_core>(std::move(given), std::move(executor));
  core->watch_fork_servers();
  return core;
}

host_core::~host_core() { shutdown(); }

void host_core::watch_fork_servers() {
  const auto started = [this](bool network, int pidfd) {
    fork_server_watches_[network] = reactor->new_watch();
    reactor->add(fork_server_watches_[network], pidfd, weak_from_this(), network, EPOLLIN);
  };
  const auto ended = [this](bool network, int pidfd, const fork_server::death* end) {
    reactor->remove(pidfd, fork_server_watches_[network]);
    if (!end) return;
    const bool lost = !end->gave_up.empty();
    const std::string text = lost ? end->gave_up : "the fork server " + end->how + "; another is started";
    using kind = enum lifecycle_event::kind;
    log({lost ? log_level::error : log_level::warning, "", end->pid, text, 0});
    lifecycle({.kind = lost ? kind::fork_server_gave_up : kind::fork_server_died, .pid = end->pid, .text = text});
  };
  forks.observe({started, ended});
}

// Not here: starting another takes a while.
void host_core::on_ready(int network, std::uint32_t) {
  spawner.run_soon([weak = weak_from_this(), network] {
    const auto self = weak.lock();
    if (!self) return;
    try {
      self->forks.revive(network != 0);
    } catch (const std::exception& e) {  // the next spawn tries again
      self->log({log_level::error, "", -1, std::string("the fork server died: ") + e.what(), 0});
    }
  });
}

boost::asio::any_io_executor host_core::handlers() {
  if (handlers_ended_.load(std::memory_order_relaxed)) return never_within(boost::asio::system_executor());
  return callback_executor();
}

boost::asio::any_io_executor host_core::callback_executor() {
  if (external_) return *external_;
  if (!handlers_started_.load(std::memory_order_relaxed)) {  // else calls would share a lock
    std::lock_guard held(mutex_);
    start_handlers();
  }
  return never_within(handler_io_.get_executor());
}

// Callers can do nothing about a thread that is not to be had: what was posted waits until there is one, or for shutdown().
void host_core::start_handlers() {
  const unsigned wanted = std::max(1u, options.handler_threads);
  if (!handler_work_ || handler_threads_.size() >= wanted) return;
  const signals_blocked guard;
  try {
    handler_threads_.reserve(wanted);
    while (handler_threads_.size() < wanted) handler_threads_.emplace_back([this] { run_handlers(); });
    handlers_started_.store(true, std::memory_order_relaxed);
  } catch (const std::exception&) {  // system_error, bad_alloc
    reactor->schedule(ipc::clock::now() + thread_retry, weak_from_this());
  }
}

// Completion handlers among them, of which nobody else knows what they throw.
void host_core::run_handlers() {
  for (bool thrown = true; thrown;) {
    thrown = false;
    try {
      handler_io_.run();
    } catch (...) {
      thrown = true;
      log_exception("");
    }
  }
}

void host_core::on_timer() {
  std::lock_guard held(mutex_);
  start_handlers();
}

void host_core::add(const std::shared_ptr<plugin_pool>& pool) {
  std::lock_guard held(mutex_);
  if (stopped_) throw call_error(outcome::unavailable, "the host has been shut down");
  std::erase_if(plugins_, [](const auto& weak) { return weak.expired(); });
  plugins_.push_back(pool);
}

std::vector<std::shared_ptr<plugin_pool>> host_core::plugins() {
  std::lock_guard held(mutex_);
  std::vector<std::shared_ptr<plugin_pool>> out;
  for (const auto& weak : plugins_)
    if (auto pool = weak.lock()) out.push_back(std::move(pool));
  return out;
}

void host_core::shutdown() {
  std::vector<std::weak_ptr<plugin_pool>> plugins;
  {
    std::lock_guard held(mutex_);
    if (std::exchange(stopped_, true)) return;
    plugins.swap(plugins_);
  }
  std::reverse(plugins.begin(), plugins.end());
  for (const auto& weak : plugins)
    if (const auto pool = weak.lock()) pool->unload();
  crashes.finish();
  spawner.stop();
  forks.stop();
  work_.reset();  // the reactor is the last to have work there
  reactor->stop();
  if (io_thread_.joinable()) io_thread_.join();
  reactor->close();
  std::vector<std::thread> ending;
  {
    std::lock_guard held(mutex_);
    handler_work_.reset();
    ending.swap(handler_threads_);
  }
  for (std::thread& each : ending) {                                 // handlers that are under way or queued still run
    if (each.get_id() == std::this_thread::get_id()) each.detach();  // this is one
    else each.join();
  }
  if (!external_) handlers_ended_.store(true, std::memory_order_relaxed);
  handler_io_.restart();  // for what was posted after the last of them had ended
  run_handlers();         // nothing is left otherwise, unless no thread was to be had
  closer.stop();
  callbacks_.close();
}

// Posts it to the application's callbacks, in order.
template <class F>
void host_core::tell(F callback) {
  callbacks_.post([weak = weak_from_this(), callback = std::move(callback)] {
    if (const auto self = weak.lock()) callback(*self);
  });
}

void host_core::log(log_record record) {
  if (!options.on_log) return;
  if (queued_logs_.fetch_add(1) >= queued_logs_limit) {
    --queued_logs_;
    ++lost_logs_;
    return;
  }
  record.dropped += lost_logs_.exchange(0);
  tell([record = std::move(record)](host_core& self) {
    try {
      self.options.on_log(record);
    } catch (...) {  // there is nowhere to say it
    }
    --self.queued_logs_;
  });
}

void host_core::log_exception(const std::string& plugin) noexcept {
  try {
    std::string what = "what is no std::exception";
    try {
      throw;
    } catch (const std::exception& e) {
      what = e.what();
    } catch (...) {
    }
    log({log_level::error, plugin, -1, "a handler in the application threw: " + what, 0});
  } catch (const std::exception&) {  // no memory to say it
  }
}

void host_core::lifecycle(lifecycle_event event) {
  if (!options.on_lifecycle) return;
  spawner.event_queued();
  tell([event = std::move(event)](host_core& self) {
    self.spawner.event_told();
    self.run(event.plugin, [&] { self.options.on_lifecycle(event); });
  });
}

void host_core::violation(bulkhead::violation what) {
  if (!options.on_violation) return;
  if (queued_violations_.fetch_add(1) >= queued_logs_limit) {
    --queued_violations_;
    return;
  }
  tell([what = std::move(what)](host_core& self) {
    self.run(what.plugin, [&] { self.options.on_violation(what); });
    --self.queued_violations_;
  });
}

host::host(host_options options) : core_(host_core::make(std::move(options), std::nullopt)) {}
host::host(boost::asio::any_io_executor executor, host_options options)
    : core_(host_core::make(std::move(options), std::move(executor))) {}
host::~host() { core_->shutdown(); }

plugin host::load(const std::filesystem::path& file, load_options options) {
  return plugin_pool::load(core_, file, {}, std::move(options), nullptr);
}

plugin host::launch(const std::vector<std::string>& argv, load_options options) {
  return plugin_pool::launch(core_, argv, std::move(options), nullptr);
}

plugin_group host::group(group_options options) { return plugin_group(std::make_shared<group_core>(core_, options)); }

sandbox_report host::examine(const policy& rules) const {
  sandbox_report report = sandbox::from_lines(core_->forks.examine(rules));
  const unique_fd any(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  report.layers.push_back(sandbox::guard_channel(any.get(), rules.granted().handles));
  if (sandbox::cgroup_maker::wanted(rules.granted(), report))
    report.layers.push_back(core_->cgroups.examine(rules.granted()));
  return report;
}

crash_report host::symbolized(crash_report report) const {
  symbolize(core_, report);
  return report;
}

std::vector<plugin_metrics> host::metrics() const {
  std::vector<plugin_metrics> out;
  for (const auto& pool : core_->plugins()) out.push_back(pool->metrics());
  return out;
}

std::uint64_t host::publish(const std::string& name, bytes_view value) {
  return publish(name, value.size(),
                 [&](std::span<std::uint8_t> to) { std::copy(value.begin(), value.end(), to.begin()); });
}
std::uint64_t host::publish(const std::string& name, std::size_t size,
                            const std::function<void(std::span<std::uint8_t>)>& fill) {
  if (name.empty() || name.size() > 255) throw std::invalid_argument("publish: a name has 1 to 255 bytes");
  return core_->published.publish(name, size, fill);
}
bool host::unpublish(const std::string& name) { return core_->published.unpublish(name); }

void host::shutdown() { core_->shutdown(); }
void host::reset() { core_->forks.reset(); }
pid_t host::fork_server_pid() const { return core_->forks.pid(); }

}  // namespace bulkhead
