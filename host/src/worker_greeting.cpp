// What a worker is told before anything else, and what is published to it. See worker_process.hpp.
#include "worker_process.hpp"
#include "worker_watcher.hpp"
#include <bulkhead/ipc/lane_transport.hpp>

namespace bulkhead {
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
  for (const auto& [name, value] : values) send_published(name, value);
}

void worker_process::on_published(const std::string& name, const ipc::snapshot& value) noexcept {
  if (send_published(name, value)) tell_watcher();
}

bool worker_process::send_published(const std::string& name, const ipc::snapshot& value) noexcept {
  if (!may_read(settings_->options.published, name)) return false;
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
    if (channel_.send(frame.take(), std::move(handles)) || channel_.closed()) return true;
  } catch (const std::exception&) {  // no descriptors left
  }
  kill(exit_reason::hung, "it did not read what was published");
  return false;
}

void worker_process::on_unpublished(const std::string& name, std::uint64_t version) noexcept {
  if (!may_read(settings_->options.published, name)) return;
  ipc::buffer frame = ipc::begin_notification("$/unpublished");
  ipc::packer(frame).pack_array(2).pack(name).pack(version);
  tell(frame.view());
  tell_watcher();
}

void worker_process::tell_watcher() noexcept {
  if (settings_->watcher) settings_->watcher->on_published();
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
    const msgpack::object_handle handle = ipc::unpack(answer.result(), 1024);
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

}  // namespace bulkhead
