// See process.hpp and launcher_core.hpp.
#include "process/launch_plan.hpp"
#include "process/launcher_core.hpp"
#include "sandbox/report_text.hpp"
#include "signals_blocked.hpp"

#include <boost/asio/strand.hpp>

#include <fcntl.h>
#include <sys/socket.h>

namespace bulkhead {
namespace {

// The two ends of what a stream is.
struct ends {
  unique_fd ours, theirs;
  int given = -1;  // instead of theirs
  int child() const { return given >= 0 ? given : theirs.get(); }
};

ends open_stream(const stdio& what, std::size_t number) {
  ends out;
  switch (what.what) {
    case stdio::kind::pipe: {
      int both[2];
      checked(::pipe2(both, O_CLOEXEC), "pipe2");
      const bool input = number == 0;  // the child reads it
      out.ours.reset(both[input ? 1 : 0]);
      out.theirs.reset(both[input ? 0 : 1]);
      break;
    }
    case stdio::kind::null:
      out.theirs.reset(checked(::open("/dev/null", (number == 0 ? O_RDONLY : O_RDWR) | O_CLOEXEC), "open /dev/null"));
      break;
    case stdio::kind::inherit: out.given = static_cast<int>(number); break;
    case stdio::kind::given: out.given = what.number; break;
  }
  if (out.given >= 0 && ::fcntl(out.given, F_GETFD) < 0) {
    // An application without, say, a standard input.
    if (what.what == stdio::kind::inherit) return open_stream(stdio::null(), number);
    throw std::invalid_argument("spawn: stream " + std::to_string(number) + ": descriptor " +
                                std::to_string(out.given) + " is not open");
  }
  return out;
}

std::pair<unique_fd, unique_fd> make_pipe() {
  int both[2];
  checked(::pipe2(both, O_CLOEXEC | O_NONBLOCK), "pipe2");
  return {unique_fd(both[0]), unique_fd(both[1])};
}

// As Node does: its error, then close with a code that says so.
void tell_failure(const boost::asio::any_io_executor& on, const child_events& events, boost::system::error_code code,
                  const std::string& text) {
  const auto strand = boost::asio::make_strand(on);
  if (events.on_error) boost::asio::post(strand, [tell = events.on_error, code, text] { tell(code, text); });
  if (events.on_close)
    boost::asio::post(strand, [tell = events.on_close, code] { tell(exit_status{.code = -code.value()}); });
}

// The program that a module is forked as, and its arguments; fills the options in.
std::vector<std::string> fork_plan(const std::string& module, const std::vector<std::string>& arguments,
                                   process_options& options, const std::filesystem::path& worker) {
  const std::string extension = std::filesystem::path(module).extension();
  const bool plugin = extension == ".so";
  if (plugin && options.policy)
    throw std::invalid_argument("fork " + module +
                                ": a plugin's policy is given by arguments, as those of `bulkhead node`");
  if (options.streams.empty()) options.streams = {stdio::null(), stdio::inherit(), stdio::inherit()};
  options.channel = channel_kind::node;
  std::vector<std::string> out = {module};
  if (extension == ".js" || extension == ".mjs" || extension == ".cjs") out.insert(out.begin(), "node");
  if (plugin) out.insert(out.begin(), {fork_server::command_program(worker).string(), "node"});
  out.insert(out.end(), arguments.begin(), arguments.end());
  return out;
}

// A child that the server has started, but that nobody could be given.
struct unless_kept {
  process::server_client& servers;
  int pidfd;
  pid_t pid;
  ~unless_kept() {
    if (pid > 0) servers.disown(pidfd, pid);
  }
};

}  // namespace

launcher_core::launcher_core(launcher_options options, std::optional<boost::asio::any_io_executor> executor)
    : servers(std::make_shared<process::server_client>(options.worker_path, options.worker_user)),
      options_(std::move(options)),
      external_(std::move(executor)),
      cgroups_(options_.cgroup) {}

boost::asio::any_io_executor launcher_core::executor() {
  if (external_) return *external_;
  std::lock_guard held(mutex_);
  if (!io_) {
    const auto io = std::make_shared<boost::asio::io_context>(1);
    auto work = boost::asio::make_work_guard(*io);
    if (!stopped_) {
      const signals_blocked guard;
      thread_ = std::thread([this, io] { run(*io); });
    }
    work_.emplace(std::move(work));
    io_ = io;  // not before it has its thread
  }
  return io_->get_executor();
}

void launcher_core::run(boost::asio::io_context& io) {
  for (;;) try {
      io.run();
      return;
    } catch (...) {
      if (!options_.on_exception) std::terminate();
      options_.on_exception(std::current_exception());
    }
}

child launcher_core::spawn(const std::string& file, const std::vector<std::string>& arguments,
                           const process_options& given, const boost::asio::any_io_executor& on,
                           std::shared_ptr<void> context) {
  process_options options = given;
  if (options.streams.empty()) options.streams.assign(3, stdio::pipe());
  unique_fd channel, theirs;
  try {
    if (options.channel == channel_kind::node) {
      int both[2];
      checked(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both), "socketpair");
      channel.reset(both[0]);
      theirs.reset(both[1]);
      options.add_env.push_back("NODE_CHANNEL_FD=" + std::to_string(options.streams.size()));
      options.add_env.emplace_back("NODE_CHANNEL_SERIALIZATION_MODE=json");
      options.streams.push_back(stdio::fd(theirs.get()));
    }
    process::spawn_request wanted = process::plan(file, arguments, options);
    std::vector<ends> streams;
    for (std::size_t i = 0; i < options.streams.size(); ++i) {
      streams.push_back(open_stream(options.streams[i], i));
      wanted.streams.push_back(streams.back().child());
    }
    std::pair<unique_fd, unique_fd> reports, end = make_pipe();
    if (options.policy) reports = make_pipe();
    wanted.reports = reports.second.get();
    wanted.end = end.second.get();
    std::string layers;
    std::unique_ptr<sandbox::cgroup> cgroup;
    std::vector<unique_fd> doors;
    const auto settle_cgroup = [&] {
      cgroup = make_cgroup(wanted.policy->granted(), options.detached, layers);
      if (cgroup) doors = cgroup->doors();
      for (const unique_fd& each : doors) wanted.cgroups.push_back(each.get());
      wanted.flags |= process::cgroup_settled;
    };
    if (wanted.policy && sandbox::cgroup_maker::wanted(wanted.policy->granted())) settle_cgroup();
    process::spawned_child made = servers->spawn(wanted);
    if (made.uncounted) {
      settle_cgroup();
      made = servers->spawn(wanted);
    }
    unless_kept guard{*servers, made.pidfd.get(), made.pid};
    made.layers += layers;
    auto core = std::make_shared<child_core>(servers, on, std::move(context), options, std::move(made),
                                             std::move(end.first), std::move(cgroup));
    for (std::size_t i = 0; i < streams.size(); ++i)
      if (streams[i].ours) core->add_stream(i, std::move(streams[i].ours), i != 0);
    if (channel) core->add_channel(std::move(channel), [closer = closer_](auto fds) { closer->take(std::move(fds)); });
    if (reports.first) core->watch_reports(std::move(reports.first));
    {
      std::lock_guard held(mutex_);
      if (children_.size() >= sweep_at_) {
        std::erase_if(children_, [](const auto& weak) { return weak.expired(); });
        sweep_at_ = children_.size() * 2 + 64;
      }
      children_.push_back(core);
    }
    core->start();
    guard.pid = -1;
    return child(std::move(core));
  } catch (const boost::system::system_error& e) {
    tell_failure(on, options.events, e.code(), e.what());
    throw;
  } catch (const std::system_error& e) {  // of our own: no descriptor is free
    const boost::system::system_error out(e.code().value(), boost::system::system_category(), "spawn " + file);
    tell_failure(on, options.events, out.code(), out.what());
    throw out;
  } catch (const std::runtime_error& e) {
    tell_failure(on, options.events, make_error_code(boost::system::errc::permission_denied), e.what());
    throw;
  }
}

child launcher_core::spawn(const std::string& file, const std::vector<std::string>& arguments,
                           const process_options& options) {
  const auto on = executor();
  return spawn(file, arguments, options, on, io_);
}

// For what only a cgroup can hold a policy to. Its layer's line is added to those of the sandbox.
std::unique_ptr<sandbox::cgroup> launcher_core::make_cgroup(const policy::values& granted, bool detached,
                                                            std::string& layers) {
  sandbox_layer layer{"cgroup", false, "not for a detached child, which may outlive who would remove it"};
  std::unique_ptr<sandbox::cgroup> made;
  if (!detached) made = cgroups_.make(granted, layer);
  if (!made && granted.milli_cpus > 0 && granted.required > sandbox_level::limited)
    throw std::runtime_error("cpus can't be limited here: " + layer.detail);
  layers = sandbox::to_line(layer);
  return made;
}

void launcher_core::start_spawn(std::string file, std::vector<std::string> arguments, process_options options,
                                detail::completion<boost::system::error_code, child> done) {
  std::lock_guard held(mutex_);
  if (!spawning_) {
    const signals_blocked guard;
    spawning_.emplace(1);
  }
  boost::asio::post(*spawning_, [self = shared_from_this(), file = std::move(file), arguments = std::move(arguments),
                                 options = std::move(options), done = std::move(done)] {
    try {
      done->complete({}, self->spawn(file, arguments, options));
    } catch (const boost::system::system_error& e) {
      done->complete(e.code(), {});
    } catch (const std::invalid_argument&) {
      done->complete(boost::asio::error::invalid_argument, {});
    } catch (const std::exception&) {
      done->complete(make_error_code(boost::system::errc::permission_denied), {});
    }
  });
}

void launcher_core::shutdown() {
  std::vector<std::weak_ptr<child_core>> children;
  {
    std::lock_guard held(mutex_);
    if (std::exchange(stopped_, true)) return;
    children.swap(children_);
  }
  if (spawning_) spawning_->join();
  servers->stop();  // has killed them all, whatever they are doing
  for (const auto& weak : children)
    if (const auto each = weak.lock()) each->end_now();
  if (!io_) return;
  work_.reset();
  io_->stop();
  if (thread_.joinable()) thread_.join();
  // What was in progress ends, so that nothing is left that holds a child.
  io_->restart();
  for (bool more = true; more;) try {
      io_->poll();
      more = false;
    } catch (...) {
      if (options_.on_exception) options_.on_exception(std::current_exception());
    }
}

launcher::launcher(launcher_options options)
    : core_(std::make_shared<launcher_core>(std::move(options), std::nullopt)) {}
launcher::launcher(boost::asio::any_io_executor executor, launcher_options options)
    : core_(std::make_shared<launcher_core>(std::move(options), std::move(executor))) {}
launcher::~launcher() { core_->shutdown(); }

child launcher::spawn(const std::string& file, const std::vector<std::string>& arguments, process_options options) {
  return core_->spawn(file, arguments, options);
}

child launcher::fork(const std::string& module, const std::vector<std::string>& arguments, process_options options) {
  const auto all = fork_plan(module, arguments, options, core_->servers->program());
  return spawn(all.front(), {all.begin() + 1, all.end()}, std::move(options));
}

void launcher::start_fork(const std::string& module, const std::vector<std::string>& arguments, process_options options,
                          detail::completion<boost::system::error_code, child> done) {
  try {
    const auto all = fork_plan(module, arguments, options, core_->servers->program());
    start_spawn(all.front(), {all.begin() + 1, all.end()}, std::move(options), std::move(done));
  } catch (const std::invalid_argument&) {
    done->complete(boost::asio::error::invalid_argument, {});
  }
}

void launcher::start_spawn(const std::string& file, const std::vector<std::string>& arguments, process_options options,
                           detail::completion<boost::system::error_code, child> done) {
  core_->start_spawn(file, arguments, std::move(options), std::move(done));
}

void launcher::shutdown() { core_->shutdown(); }
boost::asio::any_io_executor launcher::executor() { return core_->executor(); }
pid_t launcher::server_pid() const { return core_->servers->pid(); }

}  // namespace bulkhead
