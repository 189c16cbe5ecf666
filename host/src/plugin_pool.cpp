// See plugin_pool.hpp.
#include "plugin_pool.hpp"

#include "in_process.hpp"
#include "sandbox/violation_text.hpp"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr std::chrono::seconds drain_limit{5}, shutdown_limit{1};

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

}  // namespace

plugin_pool::plugin_pool(std::shared_ptr<host_core> core, std::string name, std::filesystem::path file,
                         std::vector<std::string> argv, load_options options)
    : core_(std::move(core)),
      name_(std::move(name)),
      file_(std::move(file)),
      settings_(std::make_shared<worker_settings>()) {
  if (options.instances == 0) throw std::invalid_argument("load_options::instances must be at least 1");
  settings_->name = name_;
  settings_->argv = std::move(argv);
  settings_->options = std::move(options);
  settings_->rules = effective_policy(settings_->options, !settings_->argv.empty());
  if (settings_->argv.empty()) settings_->plugin = open_plugin(*core_, file_, settings_->options.sha256, &sha256_);
  instances_.resize(settings_->options.isolation == isolation::none ? 1 : settings_->options.instances);
}

plugin_pool::~plugin_pool() = default;

std::shared_ptr<plugin_pool> plugin_pool::handle() {
  return {this, [self = shared_from_this()](plugin_pool*) { self->unload(); }};
}

std::shared_ptr<instance> plugin_pool::make_instance() {
  if (settings_->options.isolation == isolation::none)
    return std::make_shared<in_process_instance>(core_, name_, std::filesystem::absolute(file_).string(),
                                                 open_plugin(*core_, file_, settings_->options.sha256),
                                                 settings_->options, weak_from_this());
  return worker_process::spawn(core_, settings_, weak_from_this());
}

// What the manifest asks for narrows the policy. It is read by a worker that does nothing else, under strict.
void plugin_pool::heed_requests() {
  if (!settings_->plugin || settings_->options.isolation == isolation::none || !settings_->rules.granted().any() ||
      settings_->rules.granted().learn)
    return;
  const auto probe = [&] {
    auto alone = std::make_shared<worker_settings>();
    alone->name = name_;
    alone->plugin = detail::duplicate(settings_->plugin.get());
    alone->options.environment = {"BULKHEAD_PROBE=1"};
    alone->options.start_timeout = settings_->options.start_timeout;
    alone->rules.memory_limit(std::size_t{256} << 20).at_least(settings_->rules.granted().required);
    const auto worker = worker_process::spawn(core_, alone, {});
    try {
      worker->wait_ready();
    } catch (const call_error& e) {
      if (e.report() && e.report()->reason == exit_reason::signalled)
        throw sandbox::manifest_requests::died_of_it("plugin " + name_ +
                                                     ": reading its manifest killed a worker: " + e.message());
      throw;
    }
    const auto found = worker->description().requests;
    worker->ask_to_leave();
    worker->end(ipc::clock::now() + shutdown_limit);
    return found;
  };
  sandbox::manifest_requests::requests asked;
  try {
    asked = core_->requests.of(sha256_, probe);
  } catch (const sandbox::manifest_requests::died_of_it& e) {
    throw call_error(outcome::rejected, e.what());
  }
  if (asked.empty()) return;  // it says nothing of its needs: the application's word alone counts
  for (const std::string& each : settings_->rules.refused(asked))
    core_->log({log_level::warning, name_, -1, "asks for " + ipc::sanitised(each, 200) + ", which is not granted", 0});
  for (const std::string& each : settings_->rules.unasked(asked))
    core_->log({log_level::info, name_, -1, "does not ask for " + each + ", which is granted", 0});
  settings_->rules = settings_->rules.intersect(asked);
}

void plugin_pool::start() {
  heed_requests();
  std::vector<std::shared_ptr<instance>> started;
  for (std::size_t i = 0; i < instances_.size(); ++i) started.push_back(make_instance());
  if (!install([&] { instances_ = started; }, started)) throw call_error(outcome::unavailable, was_unloaded());
  for (const auto& each : started) each->wait_ready();
  std::lock_guard held(mutex_);
  info_ = started.front()->description();
}

// The living instance with the least to do; a dead one is replaced when all others are busy.
std::shared_ptr<instance> plugin_pool::choose() {
  auto best_of = [this](std::size_t& vacant) {
    std::shared_ptr<instance> best;
    vacant = instances_.size();
    for (std::size_t i = 0; i < instances_.size(); ++i) {
      if (!instances_[i] || !instances_[i]->alive()) vacant = i;
      else if (!best || instances_[i]->outstanding() < best->outstanding()) best = instances_[i];
    }
    return best;
  };
  std::size_t vacant = 0;
  {
    std::lock_guard held(mutex_);
    if (unloaded_) throw call_error(outcome::unavailable, was_unloaded());
    auto best = best_of(vacant);
    if (best && (best->outstanding() == 0 || vacant == instances_.size())) return best;
  }
  std::lock_guard spawning(spawning_);
  {
    std::lock_guard held(mutex_);
    if (unloaded_) throw call_error(outcome::unavailable, was_unloaded());
    auto best = best_of(vacant);  // another thread may have started one meanwhile
    if (best && (best->outstanding() == 0 || vacant == instances_.size())) return best;
  }
  auto fresh = make_instance();
  if (!install([&] { replace(instances_[vacant], fresh); }, {fresh}))
    throw call_error(outcome::unavailable, was_unloaded());
  return fresh;
}

// One that is dying is kept until its process has been reaped.
void plugin_pool::replace(std::shared_ptr<instance>& place, std::shared_ptr<instance> fresh) {
  std::erase_if(dying_, [](const auto& each) { return each->ended(); });
  if (place && !place->ended()) dying_.push_back(std::move(place));
  place = std::move(fresh);
}

// Takes new instances in, unless the plugin has been unloaded while they were being made: then they end here.
bool plugin_pool::install(const std::function<void()>& take_in, const std::vector<std::shared_ptr<instance>>& fresh) {
  {
    std::lock_guard held(mutex_);
    if (!unloaded_) {
      take_in();
      return true;
    }
  }
  for (const auto& each : fresh) each->ask_to_leave();
  for (const auto& each : fresh) each->end(ipc::clock::now() + shutdown_limit);
  return false;
}

std::string plugin_pool::was_unloaded() const { return "plugin " + name_ + " has been unloaded"; }

call_request plugin_pool::make_request(std::string_view method, packed_arguments arguments,
                                       const call_options& options) const {
  if (method.starts_with("$/")) throw std::invalid_argument("methods that begin with $/ are reserved");
  call_request request;
  request.method = method;
  request.arguments = std::move(arguments);
  const auto limit = options.deadline.value_or(settings_->options.deadline);
  request.default_deadline = limit == settings_->options.deadline;
  const auto now = ipc::clock::now();
  request.deadline = limit >= ipc::never - now ? ipc::never : now + limit;
  request.stop = options.stop;
  request.on_progress = options.on_progress;
  return request;
}

reply plugin_pool::call(std::string_view method, packed_arguments arguments, const call_options& options) {
  call_request request = make_request(method, std::move(arguments), options);
  try {
    for (int attempt = 0;; ++attempt) {
      reply result = choose()->call(request);
      // Not sent, or sent and provably not begun: it goes to another worker, once.
      if (result.outcome() != outcome::not_sent || attempt > 0) return result;
    }
  } catch (const call_error& error) {
    return reply(ipc::completion::failed(error.outcome(), error.message()), error.report());
  }
}

// Sends a call that was not begun to another worker, once.
class plugin_pool::retrying_call final : public reply_handler {
 public:
  retrying_call(std::weak_ptr<plugin_pool> pool, call_request request, std::unique_ptr<reply_handler> handler)
      : pool_(std::move(pool)), request_(std::move(request)), handler_(std::move(handler)) {}
  void complete(reply&& result) override {
    const auto pool = result.outcome() == outcome::not_sent ? pool_.lock() : nullptr;
    if (!pool) return handler_->complete(std::move(result));
    pool->launch(std::move(request_), std::move(handler_), false);
  }
  std::unique_ptr<reply_handler> handler() { return std::move(handler_); }
  call_request& request() { return request_; }

 private:
  std::weak_ptr<plugin_pool> pool_;
  call_request request_;
  std::unique_ptr<reply_handler> handler_;
};

void plugin_pool::launch(call_request request, std::unique_ptr<reply_handler> handler, bool may_retry) {
  try {
    const auto chosen = choose();
    outcome started = outcome::ok;
    std::string method = request.method;
    if (may_retry && request.arguments.handles.empty()) {
      call_request copy;
      copy.method = request.method;
      copy.arguments.params.append(request.arguments.params.view());
      copy.deadline = request.deadline;
      copy.default_deadline = false;
      copy.stop = request.stop;
      copy.on_progress = request.on_progress;
      std::unique_ptr<reply_handler> retrying =
          std::make_unique<retrying_call>(weak_from_this(), std::move(copy), std::move(handler));
      started = chosen->async_call(request, retrying);
      if (started != outcome::ok) handler = static_cast<retrying_call&>(*retrying).handler();
      if (started == outcome::not_sent) return launch(std::move(request), std::move(handler), false);
    } else {
      started = chosen->async_call(request, handler);
    }
    if (started != outcome::ok)
      handler->complete(reply(ipc::completion::failed(started, "the call of '" + method + "' could not be started")));
  } catch (const call_error& error) {
    if (handler) handler->complete(reply(ipc::completion::failed(error.outcome(), error.message()), error.report()));
  }
}

void plugin_pool::async_call(std::string_view method, packed_arguments arguments, const call_options& options,
                             std::unique_ptr<reply_handler> handler) {
  launch(make_request(method, std::move(arguments), options), std::move(handler), true);
}

plugin_info plugin_pool::describe() {
  std::shared_ptr<instance> any;
  {
    std::lock_guard held(mutex_);
    if (info_) return *info_;
  }
  any = choose();
  any->wait_ready();
  std::lock_guard held(mutex_);
  info_ = any->description();
  return *info_;
}

std::vector<worker_info> plugin_pool::workers() const {
  std::lock_guard held(mutex_);
  std::vector<worker_info> list;
  for (const auto& each : instances_)
    if (each && each->alive()) list.push_back(each->info());
  return list;
}

void plugin_pool::unload() {
  std::vector<std::shared_ptr<instance>> leaving;
  {
    std::lock_guard held(mutex_);
    if (std::exchange(unloaded_, true)) return;
    leaving.swap(instances_);
    leaving.insert(leaving.end(), dying_.begin(), dying_.end());
    dying_.clear();
  }
  std::reverse(leaving.begin(), leaving.end());
  std::erase_if(leaving, [](const auto& each) { return !each || each->ended(); });
  const auto drained = ipc::clock::now() + drain_limit;
  for (const auto& each : leaving) each->drain(drained);
  for (const auto& each : leaving) each->ask_to_leave();
  const auto ended = ipc::clock::now() + shutdown_limit;
  for (const auto& each : leaving) each->end(ended);
}

void plugin_pool::on_event(std::function<void(const std::string&, const msgpack::object&)> handler) {
  std::lock_guard held(mutex_);
  event_handler_ = std::move(handler);
}

void plugin_pool::on_event(const std::string& name, const msgpack::object& value) {
  std::unique_lock held(mutex_);
  const auto handler = event_handler_;
  held.unlock();
  if (handler) handler(name, value);
}

void plugin_pool::on_log(log_level level, pid_t pid, std::string text, std::uint64_t dropped) {
  auto denied = sandbox::parse_violation(text);
  if (!denied) return core_->log({level, name_, pid, std::move(text), dropped});
  denied->pid = pid;
  tell(std::move(*denied), dropped);
}

void plugin_pool::tell(violation what, std::uint64_t dropped) {
  what.plugin = name_;
  const auto level = what.result == "allowed" ? log_level::info : log_level::warning;
  core_->log({level, name_, what.pid, sandbox::describe(what), dropped});
  core_->violation(std::move(what));
}

void plugin_pool::on_lifecycle(enum lifecycle_event::kind kind, pid_t pid, std::shared_ptr<const crash_report> report) {
  core_->lifecycle({kind, name_, pid, std::move(report)});
}

}  // namespace bulkhead
