// The life of a loaded plugin: its file and policy, its versions, its end. See plugin_pool.hpp.
#include "pool_queue.hpp"
#include "sandbox/violation_text.hpp"
#include "usable_cpus.hpp"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr std::chrono::seconds probe_end_limit{1};
constexpr unsigned sent_ahead_alone = 63;  // with a single instance no other worker could take them

// A sealed copy of its file, as it is now.
unique_fd open_plugin(host_core& core, const std::filesystem::path& file, const std::string& expected,
                      std::string* sha256 = nullptr) {
  try {
    const auto opened = core.files.open(file);
    if (!expected.empty() && expected != opened->sha256)
      throw std::runtime_error(file.string() + " has the SHA-256 " + opened->sha256 + ", expected " + expected);
    if (sha256) *sha256 = opened->sha256;
    return detail::duplicate(opened->copy.get());
  } catch (const std::runtime_error& e) {
    throw call_error(outcome::rejected, std::string("plugin ") + e.what());
  }
}

policy effective_policy(const load_options& options, bool program) {
  policy rules = options.policy.value_or(program ? policy::program() : policy::strict());
  return rules.granted().memory == 0 ? rules.default_memory_limit(options.memory_limit) : rules;
}

load_options checked_options(load_options options) {
  if (options.instances == one_per_cpu) options.instances = usable_cpus();
  if (options.dispatch.kind == dispatch::kind::custom && !options.dispatch.choose)
    throw std::invalid_argument("load_options::dispatch: custom dispatch takes a function, `choose`");
  if (options.state.keep && (options.instances != 1 || options.supervision.spares != 0))
    throw std::invalid_argument("load_options::state: a plugin keeps its state with one instance and no spares only");
  if (!options.state.keep && !options.state.initial.empty())
    throw std::invalid_argument("load_options::state: an initial state takes `keep`");
  return options;
}

std::shared_ptr<kept_state> state_of(const load_options& options) {
  if (!options.state.keep) return nullptr;
  auto made = std::make_shared<kept_state>();
  if (!options.state.initial.empty()) made->bytes = options.state.initial;
  return made;
}

void check_state(const std::string& name, const plugin_info& info) {
  if (!info.keeps_state)
    throw call_error(outcome::rejected, "plugin " + name + " is to keep its state (load_options::state), but it " +
                                            "neither saves nor restores one");
}

}  // namespace

plugin_pool::plugin_pool(std::shared_ptr<host_core> core, std::string name, std::filesystem::path file,
                         std::vector<std::string> argv, load_options options, std::shared_ptr<group_core> group,
                         std::shared_ptr<worker_watcher> watcher)
    : core_(std::move(core)),
      name_(options.name.empty() ? std::move(name) : options.name),
      options_(checked_options(std::move(options))),
      state_(state_of(options_)),
      arguments_(std::make_shared<argument_blobs>(core_->reactor, argument_blobs::checked(options_.blobs))),
      watcher_(std::move(watcher)),
      sent_ahead_(options_.sent_ahead.value_or(options_.instances == 1 ? sent_ahead_alone : 1)),
      group_(group && group->coupled() ? std::move(group) : nullptr),
      mutex_(group_ ? group_->mutex : std::make_shared<std::mutex>()) {
  if (group_ && options_.isolation == isolation::none)
    throw std::invalid_argument("plugin_group: a plugin in this process can't be restarted with its group");
  if (options_.isolation == isolation::process) {
    first_ = make_settings(file, std::move(argv), options_);
  } else {
    file_ = std::filesystem::absolute(file).string();
  }
}

plugin_pool::~plugin_pool() = default;

plugin plugin_pool::load(const std::shared_ptr<host_core>& core, const std::filesystem::path& file,
                         std::vector<std::string> argv, load_options options, const std::shared_ptr<group_core>& group,
                         std::shared_ptr<worker_watcher> watcher) {
  const auto name = argv.empty() ? file.stem() : file.filename();
  const auto pool = std::make_shared<plugin_pool>(core, name.string(), file, std::move(argv), std::move(options), group,
                                                  std::move(watcher));
  auto handle = pool->handle();
  core->add(pool);
  pool->start();
  if (group && !group->coupled()) group->add_alone(pool);
  return plugin(std::move(handle));
}

plugin plugin_pool::launch(const std::shared_ptr<host_core>& core, const std::vector<std::string>& argv,
                           load_options options, const std::shared_ptr<group_core>& group) {
  if (argv.empty()) throw std::invalid_argument("launch: argv[0] must name a program");
  if (options.isolation == isolation::none) throw std::invalid_argument("launch: a program can't run in-process");
  return load(core, argv.front(), argv, std::move(options), group);
}

std::shared_ptr<plugin_pool> plugin_pool::handle() {
  return {this, [self = shared_from_this()](plugin_pool*) {
            const bool waits =
                !self->core_->reactor->in_turn() && !(self->local_ && self->local_->on_dispatch_thread());
            if (waits) self->unload();
            else boost::asio::post(self->core_->handlers(), [self] { self->unload(); });
          }};
}

// What the manifest asks for narrows the policy. It is read by a worker that does nothing else, under strict.
void plugin_pool::heed_requests(worker_settings& settings, const std::string& sha256) {
  policy& rules = settings.rules;
  if (!settings.plugin || !rules.granted().any() || rules.granted().learn) return;
  const auto probe = [&] {
    auto alone = std::make_shared<worker_settings>();
    alone->name = name_;
    alone->plugin = settings.plugin;
    alone->options.environment = {"BULKHEAD_PROBE=1"};
    alone->options.start_timeout = options_.start_timeout;
    alone->options.lanes.enabled = false;
    alone->rules.memory_limit(std::size_t{256} << 20).at_least(rules.granted().required);
    const auto worker = std::make_shared<worker_process>(core_, alone, std::weak_ptr<worker_owner>(), 0);
    ++counters_->probes;
    worker->start();
    try {
      worker->wait_ready();
    } catch (const call_error& e) {
      // All but an end that is the worker's own decision: that is a file it would not have.
      if (const auto report = e.report(); report && report->reason != exit_reason::exited &&
                                          report->reason != exit_reason::shut_down &&
                                          report->reason != exit_reason::unknown)
        throw sandbox::manifest_requests::died_of_it("plugin " + name_ +
                                                     ": reading its manifest killed a worker: " + e.message());
      throw;
    }
    const auto found = worker->description().requests;
    worker->ask_to_leave();
    worker->end(ipc::clock::now() + probe_end_limit);
    return found;
  };
  sandbox::manifest_requests::requests asked;
  try {
    asked = core_->requests.of(sha256, probe);
  } catch (const sandbox::manifest_requests::died_of_it& e) {
    throw call_error(outcome::rejected, e.what());
  }
  if (asked.empty()) return;  // it says nothing of its needs: the application's word alone counts
  for (const std::string& each : rules.refused(asked))
    core_->log({log_level::warning, name_, -1, "asks for " + ipc::sanitised(each, 200) + ", which is not granted", 0});
  for (const std::string& each : rules.unasked(asked))
    core_->log({log_level::info, name_, -1, "does not ask for " + each + ", which is granted", 0});
  rules = rules.intersect(asked);
}

std::shared_ptr<worker_settings> plugin_pool::make_settings(const std::filesystem::path& file,
                                                            std::vector<std::string> argv,
                                                            const load_options& options) {
  auto settings = std::make_shared<worker_settings>();
  settings->name = name_;
  settings->counters = counters_;
  settings->state = state_;
  settings->arguments = arguments_;
  settings->watcher = watcher_;
  settings->argv = std::move(argv);
  settings->options = options;
  settings->rules = effective_policy(options, !settings->argv.empty());
  settings->file = std::filesystem::absolute(file).string();
  if (settings->argv.empty())
    settings->plugin = std::make_shared<const unique_fd>(open_plugin(*core_, file, options.sha256, &settings->sha256));
  heed_requests(*settings, settings->sha256);
  if (!may_spin(core_->cpu_quota, settings->rules.granted().milli_cpus))
    settings->options.lanes.spin = std::chrono::nanoseconds(0);
  return settings;
}

void plugin_pool::start() {
  if (options_.isolation == isolation::none) {
    auto made = std::make_shared<in_process_instance>(core_, name_, file_, open_plugin(*core_, file_, options_.sha256),
                                                      options_, weak_from_this());
    {
      std::lock_guard held(*mutex_);
      local_ = std::move(made);  // it is ended with the handle, if not here
      if (unloaded_) throw call_error(outcome::unavailable, "the host has been shut down");
    }
    meter_.describe(local_->description().methods);
    if (!state_) return;
    check_state(name_, local_->description());
    if (state_->bytes) local_->restore_state(*state_->bytes);
    return;
  }
  std::unique_lock held(*mutex_);
  if (unloaded_) throw call_error(outcome::unavailable, "the host has been shut down");
  current_ = std::make_shared<worker_set>(core_, std::move(first_), mutex_, weak_from_this(), group_);
  current_->start(held);
  if (state_) check_state(name_, current_->description());
  if (group_) current_->join(group_->add(name_, weak_from_this()));
  meter_.describe(current_->description().methods);
  if (!watcher_) return;
  const auto workers = current_->processes();
  held.unlock();
  watcher_->await_serving(workers);
}

void plugin_pool::reload(const std::filesystem::path& file) {
  std::lock_guard one_at_a_time(reloading_);
  if (local_) throw call_error(outcome::rejected, "a plugin in this process can't be reloaded: unload it first");
  std::vector<std::string> argv;
  load_options options = options_;
  {
    std::lock_guard held(*mutex_);
    argv = current_->settings().argv;
  }
  if (!argv.empty()) argv.front() = file.string();
  options.sha256.clear();  // it was the old version's
  const auto settings = make_settings(file, std::move(argv), options);
  auto fresh = std::make_shared<worker_set>(core_, settings, mutex_, weak_from_this(), group_);
  std::unique_lock held(*mutex_);
  if (unloaded_) throw call_error(outcome::unavailable, "plugin " + name_ + " has been unloaded");
  retiring_.push_back(fresh);  // so that unload() ends it, too
  if (state_) fresh->hold_calls();
  try {
    fresh->start(held);
    if (watcher_) await_serving(*fresh, held);
    if (state_) check_state(name_, fresh->description());
    meter_.describe(fresh->description().methods);
    if (state_) {
      current_->hand_over(held);
      fresh->admit_calls(held);
    }
  } catch (...) {
    if (!held.owns_lock()) held.lock();
    fresh->stop("it has not taken over");
    if (state_) current_->resume_calls();
    held.unlock();
    on_change();
    throw;
  }
  std::erase(retiring_, fresh);  // there is room then
  retiring_.push_back(std::exchange(current_, fresh));
  if (group_) {
    current_->join(*retiring_.back()->leave());
    group_->replaced(*current_->membership());
  }
  suspects_.clear();
  retiring_.back()->stop("a new version has taken its place");
  core_->lifecycle({.kind = lifecycle_event::kind::reloaded, .plugin = name_});
  held.unlock();
  on_change();
}

// Otherwise the old version goes on.
void plugin_pool::await_serving(worker_set& fresh, std::unique_lock<std::mutex>& held) {
  auto workers = fresh.processes();
  held.unlock();
  watcher_->await_serving(workers);
  workers.clear();  // without the lock, which the last who looks at one takes
  held.lock();
  if (unloaded_) throw call_error(outcome::unavailable, "plugin " + name_ + " has been unloaded");
}

std::vector<std::uint8_t> plugin_pool::save_state() {
  if (!state_) throw call_error(outcome::rejected, "plugin " + name_ + " keeps no state (load_options::state)");
  if (local_) return local_->save_state();
  std::unique_lock held(*mutex_);
  if (unloaded_) throw call_error(outcome::unavailable, "plugin " + name_ + " has been unloaded");
  return current_->save_state(held);
}

void plugin_pool::reset() {
  if (local_) return;
  {
    std::lock_guard held(*mutex_);
    if (unloaded_) throw call_error(outcome::unavailable, "plugin " + name_ + " has been unloaded: load it again");
    suspects_.clear();
    if (group_) group_->reset();
    else current_->reset();
  }
  if (group_) group_->announce();
  else on_change();
}

void plugin_pool::stop_with_group(bool calls_wait, const std::string& reason) {
  core_->lifecycle({.kind = lifecycle_event::kind::regrouped, .plugin = name_, .text = reason});
  current_->pause(reason + " (plugin_group::reset() starts it again)", calls_wait);
}

void plugin_pool::start_with_group() { current_->start_again(); }

void plugin_pool::reset_with_group() {
  suspects_.clear();
  current_->reset(false);
}

bool plugin_pool::recycle(std::optional<pid_t> pid) {
  if (local_) return false;
  std::lock_guard held(*mutex_);
  return current_->recycle(pid);
}

void plugin_pool::unload() {
  std::unique_lock held(*mutex_);
  if (local_) local_->refuse_reentry();
  unloaded_ = true;
  if (local_) {
    held.unlock();
    return local_->end(supervision::after(ipc::clock::now(), options_.supervision.drain.calls));
  }
  if (!current_) return;  // it never started
  std::vector<std::shared_ptr<worker_set>> sets = retiring_;
  sets.push_back(current_);
  const auto member = current_->leave();
  for (const auto& each : sets) each->stop("it has been unloaded");
  if (member) group_->removed(*member);
  held.unlock();
  on_change();
  held.lock();
  for (const auto& each : sets) each->wait_stopped(held);
}

void plugin_pool::on_event(event_handler handler) {
  std::lock_guard held(*mutex_);
  event_handler_ = std::move(handler);
}

void plugin_pool::on_event(const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles) {
  std::unique_lock held(*mutex_);
  const auto handler = event_handler_;
  held.unlock();
  if (handler) handler(name, value, handles);
}

void plugin_pool::on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) {
  auto denied = sandbox::parse_violation(text);
  if (!denied) return core_->log({level, name_, pid, std::move(text), dropped});
  denied->pid = pid;
  tell(std::move(*denied), dropped);
}

void plugin_pool::tell(violation what, std::uint64_t dropped) {
  what.plugin = name_;
  // Plugins look for files that are nowhere all the time.
  const bool usual = what.result == "allowed" || what.result == "ENOENT";
  const auto level = usual ? log_level::info : log_level::warning;
  core_->log({level, name_, what.pid, sandbox::describe(what), dropped});
  core_->violation(std::move(what));
}

}  // namespace bulkhead
