// See worker_process.hpp. Three parties act on a worker at once: callers (who read its channel themselves), the
// reactor, and the pool that owns it. Whoever first learns that the process has ended settles its account.
#include "worker_process.hpp"

#include "call_stream.hpp"
#include "report/recorded_stack.hpp"
#include "sandbox/refuse_descriptors.hpp"
#include "sandbox/report_text.hpp"
#include "sandbox/violation_text.hpp"
#include <bulkhead/ipc/lane_transport.hpp>

#include <csignal>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead {
namespace {

enum tag { channel_tag, look_tag, pidfd_tag, log_tag, reports_tag };

constexpr unsigned event_credit = 1024, credit_batch = 256;
constexpr unsigned host_calls_limit = 8;
constexpr std::chrono::milliseconds cancel_grace{1000};
constexpr std::chrono::milliseconds exit_after_close{100};  // between closing its channel and exiting
constexpr std::chrono::milliseconds log_pause{5};           // after each full read of a flooded log
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

bool readable_within(int fd, ipc::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - ipc::clock::now()).count();
    pollfd poll{fd, POLLIN, 0};
    const int n = ::poll(&poll, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1000)));
    if (n > 0) return true;
    if (n == 0 && left <= 0) return false;
  }
}

}  // namespace

// The black box as plain values, copied by pread(): the worker may scribble over it meanwhile.
struct worker_process::black_box_copy {
  phase reached = phase::spawn;
  bool in_call = false;
  std::uint64_t begun = 0;
  std::uint32_t call = 0;
  std::string method, message;
  bool recorded = false, out_of_memory = false;
  int signal = 0;
  std::uint64_t fault_address = 0;
  unsigned violations = 0;
  recorded_stack stack;

  explicit black_box_copy(int fd) {
    alignas(black_box) char page[sizeof(black_box)]{};
    if (::pread(fd, page, sizeof page, 0) != static_cast<ssize_t>(sizeof page)) return;
    const auto* box = reinterpret_cast<const black_box*>(page);
    const auto raw = box->phase.load();
    reached = raw <= static_cast<std::uint32_t>(phase::shutdown) ? static_cast<phase>(raw) : phase::ready;
    in_call = box->in_call > 0;
    begun = box->begun;
    message = ipc::sanitised({box->message, ::strnlen(box->message, sizeof box->message)});
    recorded = box->recorded == 2 && box->signal > 0 && box->signal < NSIG;
    signal = recorded ? box->signal : 0;
    const bool knows_call = recorded && box->crashed_method[0] != 0;
    call = knows_call ? box->crashed_call : box->call.load();
    const auto& name = knows_call ? box->crashed_method : box->method;
    method = ipc::sanitised({name, ::strnlen(name, sizeof name)});
    out_of_memory = recorded && box->out_of_memory;
    fault_address = box->fault_address;
    violations = box->violations + box->supervised_violations;
    if (recorded) stack = read_stack(*box);
  }
};

// An asynchronous call inside the channel: keeps the worker, and turns the completion into a reply.
class worker_process::carried_call final : public ipc::async_completion {
 public:
  carried_call(std::shared_ptr<worker_process> worker, std::unique_ptr<reply_handler> handler)
      : worker_(std::move(worker)), handler_(std::move(handler)) {}

  void complete(ipc::completion&& result) override {
    stop_.reset();
    std::shared_ptr<const crash_report> report;
    if (result.code != outcome::ok) {
      std::lock_guard held(worker_->mutex_);
      report = worker_->report_;
    }
    if (id_) worker_->forget_call(*id_, result.code);
    if (id_ && !result.given_up) worker_->on_late_answer(*id_);
    handler_->complete(reply(std::move(result), std::move(report)));
  }

  struct stopper {
    std::weak_ptr<worker_process> worker;
    std::shared_ptr<std::atomic<std::int64_t>> id;
    void operator()() const {
      if (const auto alive = worker.lock(); alive && *id >= 0)
        alive->channel_.abandon(static_cast<std::uint32_t>(id->load()), outcome::cancelled, "cancelled by the caller");
    }
  };

  std::unique_ptr<reply_handler> handler() { return std::move(handler_); }
  std::optional<std::uint32_t> id_;  // when something is kept for the call
  std::optional<std::stop_callback<stopper>> stop_;

 private:
  std::shared_ptr<worker_process> worker_;
  std::unique_ptr<reply_handler> handler_;
};

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
  if (pidfd_ && !is_settled_) {  // its birth failed half-way
    ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    siginfo_t ignored{};
    ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &ignored, WEXITED | __WALL);
  }
  if (pidfd_) core_->forks.forget(pidfd_.get());
}

void worker_process::start() {
  blobs_ = std::make_shared<worker_blobs>(
      settings_->arguments, core_->reactor,
      [me = weak_from_this()](std::vector<std::uint8_t> frame, std::vector<unique_fd> handles) {
        const auto alive = me.lock();
        return alive && alive->channel_.send(std::move(frame), std::move(handles));
      });
  try {
    spawn();
  } catch (const std::exception& e) {
    throw call_error(outcome::unavailable, std::string("no worker could be started: ") + e.what());
  }
}

void worker_process::spawn() {
  if (!settings_->rules.granted().handles) sandbox::refuse_descriptors(socket_);
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
  if (!cgroup_) say_hello();
  std::vector<int> fds = {worker_end_.get(), log_end.get(), black_box_.get(), reports_end.get()};
  if (image_) fds.push_back(image_->get());
  if (lane_to_) fds.insert(fds.end(), {lane_to_.get(), lane_from_.get()});
  unique_fd end_end;
  if (!settings_->argv.empty()) {
    make_pipe(end_pipe_, end_end, O_CLOEXEC | O_NONBLOCK);
    fds.push_back(end_end.get());
  }
  auto spawned = core_->forks.spawn(fds, settings_->argv, settings_->options.environment, settings_->rules);
  worker_end_.reset();
  log_end.reset();
  reports_end.reset();
  end_end.reset();
  sandbox_ = std::move(spawned.layers);
  if (counted) sandbox_ += sandbox::to_line(layer);
  {
    std::lock_guard held(mutex_);
    pidfd_ = std::move(spawned.pidfd);
    started_ = ipc::clock::now();
    pid_ = spawned.pid;
    if (condemned_ != exit_reason::unknown) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  }
  if (cgroup_) {
    cgroup_->add(pid_);
    say_hello();
  }
  if (const auto owner = owner_.lock()) owner->on_started(id_, pid_);

  const auto self = weak_from_this();
  core_->reactor->add(socket_watch_, socket_, self, channel_tag, 0);
  core_->reactor->add(pidfd_watch_, end_pipe_ ? end_pipe_.get() : pidfd_.get(), self, pidfd_tag, EPOLLIN);
  core_->reactor->add(log_watch_, log_pipe_.get(), self, log_tag, EPOLLIN);
  core_->reactor->add(reports_watch_, reports_pipe_.get(), self, reports_tag, EPOLLIN);
  channel_.open();
  schedule(start_deadline_);
}

// Our own worker has to know what is published before its plugin runs: it is told how much will follow.
void worker_process::say_hello() {
  if (settings_->internal || !settings_->argv.empty() || !settings_->arguments) return greet(0);
  core_->published.add(as_reader(), [&](const published_state::values& values) {
    const auto count = std::count_if(values.begin(), values.end(), [&](const auto& each) {
      return may_read(settings_->options.published, each.first);
    });
    greet(static_cast<std::uint32_t>(count));
    tell_published(values);
  });
}

std::weak_ptr<published_state::reader> worker_process::as_reader() {
  const auto self = shared_from_this();
  return std::shared_ptr<published_state::reader>(self, this);
}

void worker_process::tell_published(const published_state::values& values) {
  for (const auto& [name, value] : values) on_published(name, value);
}

void worker_process::on_published(const std::string& name, const ipc::snapshot& value) noexcept {
  if (!may_read(settings_->options.published, name)) return;
  ipc::buffer frame = ipc::begin_notification("$/published");
  const char index = 0;
  ipc::packer pack(frame);
  pack.pack_array(4)
      .pack(name)
      .pack(value.version)
      .pack(value.size)
      .pack_ext(1, ipc::ext_handle)
      .pack_ext_body(&index, 1);
  try {
    std::vector<unique_fd> handles;
    handles.push_back(detail::duplicate(value.memory->fd()));
    if (channel_.send(frame.take(), std::move(handles)) || channel_.closed()) return;
  } catch (const std::exception&) {  // no descriptors left
  }
  kill(exit_reason::hung, "it did not read what was published");
}

void worker_process::on_unpublished(const std::string& name, std::uint64_t version) noexcept {
  if (!may_read(settings_->options.published, name)) return;
  ipc::buffer frame = ipc::begin_notification("$/unpublished");
  ipc::packer(frame).pack_array(2).pack(name).pack(version);
  channel_.send(frame.take());
}

void worker_process::greet(std::uint32_t published) {
  const auto& options = settings_->options;
  const bool limited = options.deadline != no_deadline;
  ipc::buffer hello = ipc::begin_request("$/hello");
  ipc::packer packer(hello);
  packer.pack_array(1)
      .pack_map(6u + (published > 0 ? 1u : 0u) + (lane_to_ ? 1u : 0u))
      .pack("protocol")
      .pack(ipc::protocol_version);
  packer.pack("deadline_ms").pack(limited ? std::chrono::ceil<std::chrono::milliseconds>(options.deadline).count() : 0);
  packer.pack("event_credit").pack(event_credit).pack("frame_limit").pack(options.limits.frame);
  packer.pack("concurrency").pack(options.concurrency).pack("blob_threshold").pack(blobs_->threshold());
  if (published > 0) packer.pack("published").pack(published);
  if (lane_to_) {
    packer.pack("lanes").pack_map(2).pack("spin_us").pack(
        std::chrono::duration<double, std::micro>(options.lanes.spin).count());
    packer.pack("cpu_budget").pack(options.lanes.cpu_budget);
  }

  struct hello_answer final : ipc::async_completion {
    std::weak_ptr<worker_process> worker;
    void complete(ipc::completion&& result) override {
      if (const auto alive = worker.lock(); alive && !alive->dead_) alive->greeted(result);
    }
  };
  auto handler = std::make_unique<hello_answer>();
  handler->worker = weak_from_this();
  std::unique_ptr<ipc::async_completion> async = std::move(handler);
  channel_.start(hello.take(), {}, ipc::never, nullptr, &async);
  if (lane_to_) channel_.hold();
}

void worker_process::greeted(const ipc::completion& answer) {
  if (answer.code != outcome::ok)
    return kill(exit_reason::protocol, "it refused the host's greeting: " + answer.failure.message);
  bool blobs = false, published = false, lanes = false;
  try {
    const msgpack::object_handle handle = ipc::unpack(answer.result());
    const auto said = handle.get().as<std::map<std::string, msgpack::object>>();
    const auto says = [&said](const char* what) {
      const auto found = said.find(what);
      return found != said.end() && found->second.as<bool>();
    };
    blobs = says("blobs");
    published = says("published");
    lanes = says("lanes");
  } catch (const std::exception&) {
    // It says nothing of what it can do.
  }
  if (blobs) blobs_->enable();
  if (published && !settings_->argv.empty())  // our own has been told
    core_->published.add(as_reader(), [&](const published_state::values& values) { tell_published(values); });
  if (!lane_to_) return;
  if (lanes && !ipc::lane_memory::sealed(lane_from_.get()))
    return kill(exit_reason::protocol, "it wants lanes without having sealed its own");
  lane_to_.reset();
  lane_from_.reset();
  channel_.release(lanes);
}

// --- calls ----------------------------------------------------------------------------------------------------------

ipc::channel::started worker_process::begin(call_request& request, ipc::waiter* sync,
                                            std::unique_ptr<ipc::async_completion>* async,
                                            std::optional<std::uint32_t>* known_id) {
  ipc::buffer head = ipc::begin_request(request.method);
  ipc::held_blobs& blobs = request.arguments.blobs;
  if (!blobs.empty() && !blobs_->enabled()) {  // a worker that takes none gets their bytes
    request.arguments.params.bytes() = request.arguments.plain();
    blobs.clear();
  }
  if (!blobs_->prepare(blobs)) return {channel_.closed() ? outcome::not_sent : outcome::overloaded, 0};
  std::vector<unique_fd> handles;
  try {
    for (const unique_fd& handle : request.arguments.handles) handles.push_back(detail::duplicate(handle.get()));
  } catch (const std::system_error&) {
    return {outcome::overloaded, 0};
  }
  std::function<ipc::buffer(std::uint32_t)> before;
  const auto watch = [&](std::uint32_t id) {  // before the first report can come
    watch_progress(id, request);
    if (!blobs.empty()) blobs_->hold(id, blobs);
    if (kept_.wanted()) keep_request(id, request);
    if (known_id) *known_id = id;
    return request.stream ? bind_stream(id, request.stream) : ipc::buffer();
  };
  if (request.default_deadline && (request.on_progress || kept_.wanted() || request.stream || !blobs.empty())) {
    before = std::ref(watch);
  } else if (!request.default_deadline) {
    const auto left =
        request.deadline == ipc::never
            ? std::chrono::milliseconds(0)
            : std::max(std::chrono::milliseconds(1),
                       std::chrono::ceil<std::chrono::milliseconds>(request.deadline - ipc::clock::now()));
    before = [&, left](std::uint32_t id) {
      ipc::buffer ahead = watch(id);
      ipc::buffer deadline = ipc::begin_notification("$/deadline");
      ipc::packer(deadline).pack_array(2).pack(id).pack(left.count());
      ahead.append(deadline.view());
      return ahead;
    };
  }
  return channel_.start(head.bytes(), request.arguments.params.view(), std::move(handles), request.deadline, sync,
                        async, before);
}

std::string worker_process::not_started(outcome code, const call_request& request, const ipc::limits& limits) {
  switch (code) {
    case outcome::rejected:
      return "the call of '" + request.method + "' has " + std::to_string(request.arguments.params.view().size()) +
             " bytes of arguments and " + std::to_string(request.arguments.handles.size()) +
             " handles; the limits are " + std::to_string(limits.frame) + " bytes and " +
             std::to_string(limits.handles);
    case outcome::overloaded:
      return "too many calls or bytes wait for this worker, or no descriptor is free; try again later";
    default: return "the worker was gone before the call could be sent";
  }
}

reply worker_process::call(call_request& request) {
  ipc::waiter waiter;
  waiter.interruptible = request.stop.stop_possible();
  const auto started = begin(request, &waiter, nullptr, nullptr);
  if (started.code != outcome::ok)
    return reply(ipc::completion::failed(started.code, not_started(started.code, request, settings_->options.limits)));
  {
    std::stop_callback on_stop(request.stop,
                               [&] { channel_.abandon(started.id, outcome::cancelled, "cancelled by the caller"); });
    auto result = channel_.wait(waiter, request.deadline);
    if (result == ipc::channel::wait_result::closed) {
      await_exit(request.deadline);
      if (!channel_.wait_closed(waiter, request.deadline)) result = ipc::channel::wait_result::deadline;
    }
    if (result == ipc::channel::wait_result::deadline)
      channel_.abandon(started.id, outcome::timeout, "no answer before the deadline");
  }
  if (kept_.wanted() || request.on_progress) forget_call(started.id, waiter.result.code);
  if (!request.arguments.blobs.empty() && !waiter.result.given_up) blobs_->forget(started.id);
  std::shared_ptr<const crash_report> report;
  if (waiter.result.code != outcome::ok && dead_) {
    std::lock_guard held(mutex_);
    report = report_;
  }
  return reply(std::move(waiter.result), std::move(report));
}

outcome worker_process::async_call(const std::shared_ptr<call_request>& request,
                                   std::unique_ptr<reply_handler>& handler) {
  auto carried = std::make_unique<carried_call>(shared_from_this(), std::move(handler));
  carried_call* const raw = carried.get();
  // The id is known only after the call may have ended already; the stop callback looks it up when it runs.
  std::shared_ptr<std::atomic<std::int64_t>> id;
  if (request->stop.stop_possible()) {
    id = std::make_shared<std::atomic<std::int64_t>>(-1);
    raw->stop_.emplace(request->stop, carried_call::stopper{weak_from_this(), id});
  }
  std::unique_ptr<ipc::async_completion> async = std::move(carried);
  const auto started = begin(*request, nullptr, &async, &raw->id_);
  if (started.code != outcome::ok) {
    handler = static_cast<carried_call&>(*async).handler();
    return started.code;
  }
  if (id) *id = started.id;
  if (request->stream) request->stream->catch_up();
  if (request->stop.stop_requested()) channel_.abandon(started.id, outcome::cancelled, "cancelled by the caller");
  return outcome::ok;
}

bool worker_process::ask(std::string_view request, std::function<void(ipc::completion&&)> answered,
                         ipc::time_point deadline, std::optional<ipc::byte_span> parameter) {
  struct asked final : ipc::async_completion {
    std::function<void(ipc::completion&&)> answered;
    void complete(ipc::completion&& result) override { answered(std::move(result)); }
  };
  auto handler = std::make_unique<asked>();
  handler->answered = std::move(answered);
  std::unique_ptr<ipc::async_completion> async = std::move(handler);
  ipc::buffer frame = ipc::begin_request(request);
  ipc::packer packer(frame);
  packer.pack_array(parameter ? 1 : 0);
  if (parameter)
    packer.pack_bin(static_cast<std::uint32_t>(parameter->size()))
        .pack_bin_body(reinterpret_cast<const char*>(parameter->data()), static_cast<std::uint32_t>(parameter->size()));
  return channel_.start(frame.take(), {}, deadline, nullptr, &async).code == outcome::ok;
}

void worker_process::watch_progress(std::uint32_t id, call_request& request) {
  if (!request.on_progress) return;
  std::lock_guard held(mutex_);
  progress_[id] = std::make_shared<std::function<void(const msgpack::object&)>>(request.on_progress);
}

void worker_process::keep_request(std::uint32_t id, const call_request& request) {
  if (request.arguments.blobs.empty()) return kept_.keep(id, request.method, request.arguments.params.view());
  if (request.arguments.size() <= settings_->options.keep_requests)
    kept_.keep(id, request.method, request.arguments.plain());
}

// One that was given up may still be what the worker hangs in.
void worker_process::forget_call(std::uint32_t id, outcome code) {
  if (kept_.wanted() && code != outcome::timeout && code != outcome::cancelled) kept_.forget(id);
  forget_progress(id);
}

void worker_process::forget_progress(std::uint32_t id) {
  std::lock_guard held(mutex_);
  progress_.erase(id);
}

// --- what arrives ---------------------------------------------------------------------------------------------------

void worker_process::discard(std::vector<unique_fd> handles) { core_->closer.take(std::move(handles)); }

// Descriptors from a worker, until somebody takes them: the last close of what is left may block.
struct worker_process::untaken {
  untaken(std::shared_ptr<worker_process> worker, std::vector<unique_fd>&& came)
      : from(std::move(worker)), handles(std::move(came)) {}
  untaken(const untaken&) = delete;
  ~untaken() { from->discard(std::move(handles)); }

  const std::shared_ptr<worker_process> from;
  std::vector<unique_fd> handles;
};

void worker_process::on_request(const ipc::message& request, std::vector<unique_fd> handles) {
  auto came = std::make_shared<untaken>(shared_from_this(), std::move(handles));
  const std::uint32_t id = request.id;
  if (request.method == "$/arena") {
    const char* wrong = blobs_->on_request(request);
    return wrong ? kill(exit_reason::protocol, std::string("$/arena: ") + wrong) : void();
  }
  const ipc::time_point deadline = next_deadline_.first == id ? next_deadline_.second : ipc::never;
  next_deadline_ = {};
  if (host_calls_.fetch_add(1) >= host_calls_limit) {
    --host_calls_;
    channel_.send(
        ipc::make_error_response(id, {outcome::overloaded, "at most 8 calls to the host at a time", {}}).take());
    return;
  }
  std::vector<std::uint8_t> params(request.params.begin(), request.params.end());
  boost::asio::post(core_->handlers(), [self = shared_from_this(), id, deadline, name = std::string(request.method),
                                        params = std::move(params), came = std::move(came)] {
    ipc::completion result = run_function(self->settings_->options.functions, name, params, came->handles, deadline);
    --self->host_calls_;
    self->channel_.send(result.code == outcome::ok ? ipc::make_response(id, result.result()).take()
                                                   : ipc::make_error_response(id, result.failure).take(),
                        std::move(result.handles));
  });
}

void worker_process::on_notification(const ipc::message& notification, std::vector<unique_fd> handles) {
  std::shared_ptr<untaken> came;
  if (!handles.empty()) came = std::make_shared<untaken>(shared_from_this(), std::move(handles));
  if (ipc::is_about_stream(notification.method)) {
    const char* wrong = tell_stream(notification);
    return wrong ? kill(exit_reason::protocol, std::string(notification.method) + ": " + wrong) : void();
  }
  if (worker_blobs::is_about_blobs(notification.method)) {
    const char* wrong = blobs_->on_notification(notification);
    return wrong ? kill(exit_reason::protocol, std::string(notification.method) + ": " + wrong) : void();
  }
  try {
    const msgpack::object_handle handle = ipc::unpack(notification.params);
    const auto params = handle.get().as<std::vector<msgpack::object>>();
    if (notification.method == "$/ready") {
      if (ready_) throw std::runtime_error("$/ready came twice");
      auto description = read_description(params.at(0));
      {
        std::lock_guard held(mutex_);
        description_ = std::move(description);
      }
      ready_ = true;
      channel_.wake();  // wait_ready() may be following another reader
      if (const auto owner = owner_.lock()) owner->on_ready(id_);
    } else if (notification.method == "$/leaving") {
      ipc::buffer error;
      ipc::packer(error).pack(params.at(0));
      const ipc::call_failure why = ipc::parse_failure(error.view());
      {
        std::lock_guard held(mutex_);
        why_ = why.message;
        no_plugin_ = why.code == outcome::rejected && !ready_;
      }
      if (const auto owner = owner_.lock(); owner && ready_) owner->on_leaving(id_);
    } else if (notification.method == "$/deadline") {
      const auto left = std::chrono::milliseconds(params.at(1).as<std::uint32_t>());
      next_deadline_ = {params.at(0).as<std::uint32_t>(), left.count() > 0 ? ipc::clock::now() + left : ipc::never};
    } else if (notification.method == "$/log") {
      const auto level = std::clamp(params.at(0).as<int>(), 0, 3);
      log_->record(static_cast<log_level>(level), params.at(1).as<std::string_view>(), ipc::clock::now());
    } else if (notification.method == "$/event" || notification.method == "$/progress") {
      if (!spend_event_credit()) throw std::runtime_error("more events than it had credit for");
      const bool event = notification.method == "$/event";
      const std::string name = event ? ipc::sanitised(params.at(0).as<std::string_view>(), 256) : "";
      const std::uint32_t id = event ? 0 : params.at(0).as<std::uint32_t>();
      auto copy = std::make_shared<msgpack::object_handle>(msgpack::clone(params.at(1)));
      std::shared_ptr<std::function<void(const msgpack::object&)>> progress;
      {
        std::lock_guard held(mutex_);
        if (!strand_) strand_.emplace(boost::asio::make_strand(core_->handlers()));
        if (const auto found = progress_.find(id); !event && found != progress_.end()) progress = found->second;
      }
      boost::asio::post(*strand_, [self = shared_from_this(), event, name, copy, progress, came] {
        std::vector<unique_fd> none;
        try {
          if (progress) (*progress)(copy->get());
          else if (const auto owner = self->owner_.lock(); owner && event)
            owner->on_event(name, copy->get(), came ? came->handles : none);
        } catch (const std::exception& e) {
          self->log_->record(log_level::error, std::string("a handler in the application threw: ") + e.what(),
                             ipc::clock::now());
        }
        self->return_event_credit();
      });
    }
  } catch (const std::exception& e) {
    kill(exit_reason::protocol, "notification " + ipc::sanitised(notification.method, 64) + ": " + e.what());
  }
}

bool worker_process::spend_event_credit() { return events_.fetch_add(1) < event_credit; }

void worker_process::return_event_credit() {
  --events_;
  if (events_to_credit_.fetch_add(1) + 1 < credit_batch) return;
  events_to_credit_ -= credit_batch;
  ipc::buffer credit = ipc::begin_notification("$/credit");
  ipc::packer(credit).pack_array(1).pack(credit_batch);
  channel_.send(credit.take());
}

void worker_process::on_closed(const std::string& violation) {
  if (!violation.empty()) return kill(exit_reason::protocol, violation);
  // Most likely it is exiting: let it, so that its own status is what gets reported.
  kill_at_ = ipc::clock::now() + exit_after_close;
  // If its exit was noticed while another thread was still reading what it left behind, the account is still open.
  schedule(exited_ ? ipc::clock::now() : kill_at_.load());
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
    if (next_timer_.compare_exchange_weak(current, when)) return core_->reactor->schedule(when, weak_from_this());
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
  const auto tick = channel_.tick(now, cancel_grace);
  next = tick.next;
  if (tick.overdue) kill(exit_reason::hung);
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
      if (condemned_ == exit_reason::unknown) condemned_ = exit_reason::violation;
    }
    if (const auto owner = owner_.lock()) owner->on_violation(std::move(*denied));
  }
  partial_report_.erase(0, begin);
  if (!to_the_end && n != 0) core_->reactor->arm(reports_pipe_.get(), reports_watch_, EPOLLIN);
}

// --- the end --------------------------------------------------------------------------------------------------------

void worker_process::kill(exit_reason reason, const std::string& why) {
  {
    std::lock_guard held(mutex_);
    const bool first = condemned_ == exit_reason::unknown;
    if (first) condemned_ = reason;
    if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    if (first && !why.empty()) why_ = why;
  }
}

// For a caller's own thread: waits for the process to end, helping it along, and settles. True when that is done.
bool worker_process::await_exit(ipc::time_point deadline) {
  const ipc::time_point patience = std::min(deadline, ipc::clock::now() + exit_after_close);
  if (!has_ended(patience)) {
    if (ipc::clock::now() >= deadline) return false;
    kill(exit_reason::closed);
    if (!has_ended(deadline)) return false;
  }
  settle();
  std::unique_lock held(mutex_);
  const auto done = [this] { return is_settled_; };
  if (deadline == ipc::never) settled_.wait(held, done);
  else settled_.wait_until(held, deadline, done);
  return is_settled_;
}

// Waits until then for its end to be told: by the kernel, or of a program by its parent, the fork server.
bool worker_process::has_ended(ipc::time_point deadline) {
  if (end_pipe_) {
    if (!readable_within(end_pipe_.get(), deadline)) return false;
    int told = 0;
    ::ioctl(end_pipe_.get(), FIONREAD, &told);
    if (told > 0) return true;  // else the fork server has died, and nobody will tell
  }
  return readable_within(pidfd_.get(), deadline);
}

void worker_process::settle() {
  // All that it sent before it died counts. If another thread is reading, on_closed() sees to it that this goes on.
  exited_ = true;
  channel_.shutdown();
  for (int i = 0; i < 64 && !channel_.closed(); ++i) channel_.poll();
  {
    std::lock_guard held(mutex_);
    if (!channel_.closed() || settling_) return;
    settling_ = true;
  }
  const black_box_copy box(black_box_.get());
  read_log(true);
  read_reports(true);
  auto report = std::make_shared<const crash_report>(make_report(box));
  bool rejected = false;
  {
    std::lock_guard held(mutex_);
    report_ = report;
    rejected = no_plugin_;
  }
  if (!settings_->internal && !rejected) core_->crashes.take(core_, report);
  dead_ = true;
  bool calls_pending = false;
  channel_.fail_all([&](const ipc::channel::open_call& call) {
    calls_pending = calls_pending || call.sequence > 0;
    return verdict(call, *report, box.begun);
  });
  blobs_->end();
  stop_watching();
  {
    std::lock_guard held(mutex_);
    is_settled_ = true;
  }
  if (const auto owner = owner_.lock()) owner->on_exited(id_, {report, rejected, calls_pending});
  settled_.notify_all();
}

struct worker_process::ending_status {
  bool known = false, exited = false;
  int status = 0;  // or the signal
  std::chrono::microseconds cpu_time{0};
  std::uint64_t peak_memory = 0;
};

worker_process::ending_status worker_process::status_of_end() {
  ending_status out;
  if (end_pipe_) {
    fork_server::end how;
    if (::read(end_pipe_.get(), &how, sizeof how) != static_cast<ssize_t>(sizeof how)) return out;
    out.known = true;
    out.exited = WIFEXITED(how.status);
    out.status = out.exited ? WEXITSTATUS(how.status) : WTERMSIG(how.status);
    out.cpu_time = std::chrono::microseconds(how.cpu_us);
    out.peak_memory = static_cast<std::uint64_t>(how.max_resident);
    return out;
  }
  siginfo_t info{};
  rusage used{};  // which the C library's waitid() leaves out
  out.known =
      ::syscall(SYS_waitid, P_PIDFD, pidfd_.get(), &info, WEXITED | __WALL | WNOHANG, &used) == 0 && info.si_pid;
  out.exited = info.si_code == CLD_EXITED;
  out.status = info.si_status;
  for (const timeval& each : {used.ru_utime, used.ru_stime})
    out.cpu_time += std::chrono::seconds(each.tv_sec) + std::chrono::microseconds(each.tv_usec);
  out.peak_memory = static_cast<std::uint64_t>(used.ru_maxrss) << 10;
  return out;
}

crash_report worker_process::make_report(const black_box_copy& box) {
  crash_report report;
  report.plugin = settings_->name;
  report.file = settings_->file;
  report.sha256 = settings_->sha256;
  report.policy = settings_->rules.to_text();
  report.time = std::chrono::system_clock::now();
  report.pid = pid_;
  report.phase = settings_->argv.empty() ? box.reached : ready_ ? phase::ready : phase::hello;
  if (box.in_call) {
    report.phase = phase::call;
    report.method = box.method;
    if (auto kept = kept_.find(box.call); !kept.method.empty()) {
      report.method = std::move(kept.method);
      report.request = std::move(kept.arguments);
    }
  }
  report.log_tail = log_->tail();
  const auto [known, exited, status, cpu_time, peak_memory] = status_of_end();
  report.cpu_time = cpu_time;
  report.peak_memory = peak_memory;
  const bool killed_by_kill = known && !exited && status == SIGKILL;

  std::lock_guard held(mutex_);
  report.message = !why_.empty() ? why_ : box.message;
  if (box.recorded && !(condemned_ == exit_reason::protocol)) {
    report.reason = box.out_of_memory ? exit_reason::out_of_memory : exit_reason::signalled;
    report.signal = box.signal;
    report.fault_address = box.fault_address;
    report.stack = box.stack.frames;
    report.frames_omitted = box.stack.omitted;
    report.instruction_pointer = box.stack.instruction_pointer;
    report.stack_pointer = box.stack.stack_pointer;
    report.image = image_;
    for (stack_frame& each : report.stack) {
      if (each.origin == code_origin::plugin) each.module = settings_->file;
      if (each.origin == code_origin::worker) each.module = core_->forks.program();
    }
  } else if (condemned_ != exit_reason::unknown && (killed_by_kill || !known || condemned_ == exit_reason::protocol)) {
    report.reason = condemned_;
    report.signal = SIGKILL;
  } else if (!known) {
    report.reason = exit_reason::unknown;
  } else if (exited) {
    report.reason = leaving_ && status == 0 ? exit_reason::shut_down : exit_reason::exited;
    report.exit_code = status;
  } else {
    report.reason = exit_reason::signalled;
    report.signal = status;
  }
  if (report.signal == SIGKILL && report.reason == exit_reason::signalled && cgroup_ && cgroup_->ran_out_of_memory())
    report.reason = exit_reason::out_of_memory;
  if (report.reason == exit_reason::signalled && report.signal == SIGSYS) report.reason = exit_reason::violation;
  return report;
}

ipc::completion worker_process::verdict(const ipc::channel::open_call& call, const crash_report& report,
                                        std::uint64_t begun) const {
  const std::string what = "plugin " + settings_->name + ": the worker " + report.summary();
  if (report.reason == exit_reason::protocol) return ipc::completion::failed(outcome::protocol, what);
  if (!ready_) return ipc::completion::failed(outcome::unavailable, what);
  // The worker counts the calls it takes up, in the order in which they were sent. A call past that count has not begun.
  if (!call.written || (settings_->argv.empty() && call.sequence > begun))
    return ipc::completion::failed(outcome::not_sent, what);
  return ipc::completion::failed(outcome::worker_lost, what);
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

void worker_process::ask_to_leave() {
  leaving_ = true;
  ipc::buffer shutdown = ipc::begin_notification("$/shutdown");
  ipc::packer(shutdown).pack_array(0);
  channel_.send(shutdown.take());
}

void worker_process::end(ipc::time_point deadline) {
  if (!has_ended(deadline)) kill(exit_reason::shut_down, "it did not exit in time");
  await_exit(ipc::clock::now() + std::chrono::seconds(5));
}

}  // namespace bulkhead
