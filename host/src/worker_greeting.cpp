// What a worker is told before anything else, and what is published to it. See worker_process.hpp.
#include "worker_process.hpp"
#include "worker_watcher.hpp"
#include <bulkhead/ipc/lane_transport.hpp>

#include <linux/sockios.h>
#include <sys/ioctl.h>

namespace bulkhead {
namespace {

constexpr std::chrono::milliseconds retry_published{50};
constexpr int most_unread = 16 << 10;  // bytes of the kernel's memory in the socket: some 20 small messages

}  // namespace

// Our own worker has to know what is published before its plugin runs: it is told how much will follow.
void worker_process::say_hello() {
  if (settings_->internal || !settings_->argv.empty() || !settings_->arguments) return greet(0);
  core_->published.add(as_reader(), [&](const published_state::values& values) {
    const auto count = std::count_if(values.begin(), values.end(), [&](const auto& each) {
      return may_read(settings_->options.published, each.first);
    });
    acknowledges_ = true;
    greet(static_cast<std::uint32_t>(count));
    for (const auto& [name, value] : values) tell_published(name, value);
  });
}

std::weak_ptr<published_state::reader> worker_process::as_reader() {
  const auto self = shared_from_this();
  return std::shared_ptr<published_state::reader>(self, this);
}

// --- what is published ----------------------------------------------------------------------------------------------

// A memfd that a worker has not read yet holds its memory. So of each name there is one on its way: of what is newer a
// worker that is busy gets word, in its place among the calls, and when it has taken the one before, the newest. What can't
// be said now, for the worker does not read or this process has no descriptor free, is said later.
void worker_process::tell_published(const std::string& name, const ipc::snapshot& value) noexcept {
  if (!may_read(settings_->options.published, name)) return;
  try {
    told& known = told_[name];
    if (known.version >= value.version) return;
    if (!known.on_its_way) {
      if (send_published(name, value, true)) {
        known = {.version = value.version, .on_its_way = acknowledges_, .announced = false, .there = true};
        return;
      }
      owe_published();
    }
    if (!acknowledges_ || known.announced) return;
    if (send_published(name, value, false)) known.announced = known.there = true;
    else owe_published();
  } catch (const std::exception&) {  // no memory
    owe_published();
  }
}

bool worker_process::send_published(const std::string& name, const ipc::snapshot& value, bool with_memory) {
  std::vector<unique_fd> handles;
  if (with_memory) {
    // Each that it has not read holds memory, whatever it says that it took; and a descriptor while it waits here.
    int unread = 0;
    if (ready_ && ::ioctl(socket_, SIOCOUTQ, &unread) == 0 && (unread > most_unread || channel_.unsent() > 0))
      return false;
    try {
      handles.push_back(detail::duplicate(value.memory->fd()));
    } catch (const std::system_error&) {  // no descriptors left
      return false;
    }
  }
  ipc::buffer frame = ipc::begin_notification("$/published");
  const char index = 0;
  ipc::packer pack(frame);
  pack.pack_array(4).pack(name).pack(value.version).pack(value.size);
  if (with_memory) pack.pack_ext(1, ipc::ext_handle).pack_ext_body(&index, 1);
  else pack.pack_nil();
  return channel_.send(frame.take(), std::move(handles));
}

void worker_process::tell_unpublished(const std::string& name, told& known) noexcept {
  if (!known.there) return;
  try {
    ipc::buffer frame = ipc::begin_notification("$/unpublished");
    ipc::packer(frame).pack_array(2).pack(name).pack(known.version);
    if (channel_.send(frame.take())) known.announced = known.there = false;
    else owe_published();
  } catch (const std::exception&) {  // no memory
    owe_published();
  }
}

void worker_process::owe_published() noexcept {
  if (channel_.closed()) return;
  owes_published_ = true;
  try {
    schedule(ipc::clock::now() + retry_published);
  } catch (const std::exception&) {  // then with whatever comes next
  }
}

void worker_process::on_published(const std::string& name, const ipc::snapshot& value) noexcept {
  tell_published(name, value);
  if (may_read(settings_->options.published, name)) tell_watcher();
}

void worker_process::on_unpublished(const std::string& name, std::uint64_t) noexcept {
  const auto found = told_.find(name);
  if (found == told_.end()) return;
  tell_unpublished(name, found->second);
  if (!found->second.there && !found->second.on_its_way) told_.erase(found);
  tell_watcher();
}

// The worker has read what was on its way.
void worker_process::took_published(const std::string& name, std::uint64_t version) {
  core_->published.look([&](const published_state::values& values) {
    const auto found = told_.find(name);
    if (found == told_.end() || !found->second.on_its_way || found->second.version != version) return;
    told& known = found->second;
    known.on_its_way = false;
    const auto newest = values.find(name);
    if (newest == values.end()) {
      if (!known.there) told_.erase(found);
    } else if (known.version != newest->second.version) {
      known.announced = false;
      tell_published(name, newest->second);
      tell_watcher();
    }
  });
}

void worker_process::tell_what_is_owed() noexcept {
  if (!owes_published_.exchange(false)) return;
  core_->published.look([&](const published_state::values& values) {
    for (auto& [name, known] : told_)
      if (!values.contains(name)) tell_unpublished(name, known);
    std::erase_if(told_, [](const auto& each) { return !each.second.there && !each.second.on_its_way; });
    for (const auto& [name, value] : values) tell_published(name, value);
    tell_watcher();
  });
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
  bool blobs = false, published = false, acknowledges = false, lanes = false;
  try {
    const msgpack::object_handle handle = ipc::unpack(answer.result(), 1024);
    const auto said = handle.get().as<std::map<std::string, msgpack::object>>();
    const auto says = [&said](const char* what) {
      const auto found = said.find(what);
      return found != said.end() && found->second.as<bool>();
    };
    blobs = says("blobs");
    published = says("published");
    acknowledges = says("takes_published");
    lanes = says("lanes");
  } catch (const std::exception&) {
    // It says nothing of what it can do.
  }
  if (blobs) blobs_->enable();
  if (published && !settings_->argv.empty())  // our own has been told
    core_->published.add(as_reader(), [&](const published_state::values& values) {
      acknowledges_ = acknowledges;
      for (const auto& [name, value] : values) tell_published(name, value);
    });
  if (!lane_to_) return;
  if (lanes && !ipc::lane_memory::sealed(lane_from_.get()))
    return kill(exit_reason::protocol, "it wants lanes without having sealed its own");
  lane_to_.reset();
  lane_from_.reset();
  channel_.release(lanes);
}

}  // namespace bulkhead
