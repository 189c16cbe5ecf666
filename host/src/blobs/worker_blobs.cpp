// See worker_blobs.hpp.
#include "blobs/worker_blobs.hpp"

#include <bulkhead/call.hpp>

#include <algorithm>

namespace bulkhead {
namespace {

constexpr std::size_t most_arenas = 64;    // of one worker's results
constexpr std::size_t most_unusable = 4;   // that it has been sent and has not mapped yet
constexpr std::size_t most_releases = 64;  // that wait for a message to go along with
constexpr std::size_t least_result_arena = std::size_t{1} << 20;

std::optional<std::uint32_t> one_number(ipc::byte_span params) {
  if (ipc::take_array(params) != 1) return std::nullopt;
  const auto number = ipc::take_unsigned(params);
  return params.empty() ? number : std::nullopt;
}

// An arena as it is sent, its descriptor attached.
void pack_arena(ipc::buffer& to, std::uint32_t id, std::size_t size) {
  const char index = 0;
  ipc::packer(to).pack_array(3).pack(id).pack(size).pack_ext(1, ipc::ext_handle).pack_ext_body(&index, 1);
}

}  // namespace

result_arena::result_arena(std::weak_ptr<worker_blobs> owner, std::size_t size)
    : id_(next_arena_id()),
      owner_(std::move(owner)),
      memory_(ipc::shared_memory::make("bulkhead-results", size, false)) {}

void result_arena::give_back(std::size_t offset) noexcept {
  if (const auto alive = owner_.lock()) alive->gave_back(*this, offset);
}

worker_blobs::worker_blobs(std::shared_ptr<argument_blobs> arguments, std::shared_ptr<bulkhead::reactor> reactor,
                           sender send)
    : arguments_(std::move(arguments)), reactor_(std::move(reactor)), send_(std::move(send)) {}

worker_blobs::~worker_blobs() = default;

std::size_t worker_blobs::threshold() const {
  return arguments_ && arguments_->options().memory > 0 ? arguments_->options().threshold : 0;
}

void worker_blobs::enable() {
  if (threshold() == 0 || enabled_.exchange(true)) return;
  arguments_->add(weak_from_this());
  arguments_->use(true);
}

// --- arguments ------------------------------------------------------------------------------------------------------

bool worker_blobs::prepare(const ipc::held_blobs& blobs) {
  if (any_releases_) send_releases();
  for (const auto& blob : blobs) {
    const auto* arena = static_cast<const argument_arena*>(blob->arena().get());  // the pool has looked
    std::lock_guard one_at_a_time(announcing_);
    if (std::any_of(sent_.begin(), sent_.end(), [&](const auto& each) { return each.id == arena->id; })) continue;
    send_drops();
    sent_.reserve(sent_.size() + 1);  // so that what has gone is known to have
    ipc::buffer frame = ipc::begin_notification("$/arena");
    pack_arena(frame, arena->id, arena->memory.size());
    std::vector<unique_fd> handles;
    try {
      handles.push_back(detail::duplicate(arena->memory.fd()));
    } catch (const std::system_error&) {  // no descriptor is free
      return false;
    }
    if (!send_(frame.take(), std::move(handles))) return false;
    sent_.push_back({arena->id});
  }
  return true;
}

void worker_blobs::hold(std::uint32_t call, const ipc::held_blobs& blobs) {
  std::lock_guard held(mutex_);
  if (!ended_) held_[call] = blobs;
}

void worker_blobs::forget(std::uint32_t call) {
  ipc::held_blobs last;
  std::lock_guard held(mutex_);
  if (const auto found = held_.find(call); found != held_.end()) {
    last = std::move(found->second);
    held_.erase(found);
  }
}

void worker_blobs::on_dropped(std::uint32_t arena) noexcept {
  std::lock_guard one_at_a_time(announcing_);
  for (sent_arena& each : sent_) each.dropped = each.dropped || each.id == arena;
  send_drops();
}

// Where there is no memory for it, the worker is told the next time. (announcing)
void worker_blobs::send_drops() noexcept {
  const auto next = [this] {
    return std::find_if(sent_.begin(), sent_.end(), [](const sent_arena& each) { return each.dropped; });
  };
  try {
    for (auto each = next(); each != sent_.end(); each = next()) {
      ipc::buffer frame = ipc::begin_notification("$/drop");
      ipc::packer(frame).pack_array(1).pack(each->id);
      send_(frame.take(), {});
      sent_.erase(each);
    }
  } catch (const std::bad_alloc&) {
  }
}

// --- results --------------------------------------------------------------------------------------------------------

bool worker_blobs::is_about_blobs(std::string_view method) { return method == "$/mapped" || method == "$/dropped"; }

// A new arena and the descriptor for its worker, or why there is none. (locked)
std::shared_ptr<result_arena> worker_blobs::make_arena(std::size_t wanted, unique_fd& to_send, std::string& refusal) {
  constexpr std::size_t unit = ipc::range_allocator::unit;
  const std::size_t memory = arguments_->options().memory, left = memory - mapped_;
  const std::size_t least = std::min(std::max(least_result_arena, memory / most_arenas / unit * unit), left);
  const std::size_t size = std::max((wanted + unit - 1) / unit * unit, least);
  const auto unusable =
      std::count_if(results_.begin(), results_.end(), [](const auto& e) { return !e.second->usable_; });
  if (ended_ || size == 0 || size > left)
    refusal = "no room: " + std::to_string(left) + " bytes are left of " + std::to_string(memory) + " for results";
  else if (unusable >= static_cast<long>(most_unusable) || results_.size() >= most_arenas)
    refusal = "too many arenas at once";
  if (!refusal.empty()) return nullptr;
  try {
    auto made = std::make_shared<result_arena>(weak_from_this(), size);
    to_send = detail::duplicate(made->memory_.fd());
    results_.emplace(made->id_, made);
    mapped_ += size;
    set_timer();
    return made;
  } catch (const std::exception&) {
    refusal = "the machine has no more memory, or no descriptor is free";
    return nullptr;
  }
}

// A worker wants another arena: `[size]`.
const char* worker_blobs::on_request(const ipc::message& request) {
  const auto wanted = one_number(request.params);
  if (!wanted || !enabled_) return "not as it should be";
  send_releases();
  std::string refusal;
  unique_fd to_send;
  std::shared_ptr<result_arena> made;
  {
    std::lock_guard held(mutex_);
    made = make_arena(*wanted, to_send, refusal);
  }
  if (!made) {
    send_(ipc::make_error_response(request.id, {outcome::overloaded, refusal, {}}).take(), {});
    return nullptr;
  }
  ipc::buffer result;
  pack_arena(result, made->id_, made->memory_.size());
  std::vector<unique_fd> handles;
  handles.push_back(std::move(to_send));
  send_(ipc::make_response(request.id, result.view()).take(), std::move(handles));
  return nullptr;
}

const char* worker_blobs::on_notification(const ipc::message& notification) {
  const auto id = one_number(notification.params);
  if (!id) return "not as it should be";
  std::shared_ptr<result_arena> gone;
  std::lock_guard held(mutex_);
  const auto found = results_.find(*id);
  if (found == results_.end()) return "about an arena that it does not have";
  result_arena& arena = *found->second;
  if (notification.method == "$/mapped") {
    if (arena.usable_) return "said twice";
    try {
      arena.memory_.seal();
    } catch (const std::exception&) {
      return "about an arena that can't be sealed";
    }
    if (!arena.memory_.filled()) return "about an arena that it has not touched all of";
    arena.memory_.close_fd();
    arena.usable_ = true;
    return nullptr;
  }
  if (arena.held_ > 0) return "about an arena that is in use";
  gone = std::move(found->second);
  mapped_ -= gone->memory_.size();
  results_.erase(found);
  return nullptr;
}

const char* worker_blobs::hold_results(ipc::byte_span result, ipc::held_blobs& into) {
  ipc::byte_span rest = result;
  std::size_t left =
      threshold() == 0 ? 0 : arguments_->options().memory;  // whoever wants the bytes copies each of them
  while (const auto found = ipc::next_bytes(rest)) {
    if (found->kind != ipc::packed_bytes::kind::ext || found->type != ipc::ext_blob) continue;
    const auto reference = ipc::reference_in(*found);
    if (!reference) return "a result with a reference to a blob that can't be one";
    std::lock_guard held(mutex_);
    const auto arena = results_.find(reference->arena);
    if (arena == results_.end() || !arena->second->usable_)
      return "a result with a reference to a blob in an arena that is not there";
    result_arena& in = *arena->second;
    if (!reference->within(in.memory_.size())) return "a result with a reference to a blob beyond its arena";
    if (reference->length > left) return "a result with references to more bytes than there is memory for blobs";
    left -= reference->length;
    if (releases_.capacity() - releases_.size() <= held_parts_)
      releases_.reserve(2 * (releases_.size() + held_parts_) + most_releases);
    auto& place = into.emplace_back();  // first: a blob that ends here would want the lock
    ++in.held_;
    ++held_parts_;
    in.asked_ = false;
    place = std::make_shared<ipc::held_blob>(
        arena->second, *reference, std::span<std::uint8_t>(in.memory_.data() + reference->offset, reference->length),
        false);
  }
  return nullptr;
}

void worker_blobs::gave_back(result_arena& arena, std::size_t offset) noexcept {
  bool many = false;
  {
    std::lock_guard held(mutex_);
    --arena.held_;
    --held_parts_;
    arena.used_ = ipc::clock::now();
    if (ended_) return;
    releases_.emplace_back(arena.id_, offset);
    any_releases_ = true;
    set_timer();
    many = releases_.size() >= most_releases;
  }
  if (many) send_releases();
}

std::vector<std::uint8_t> worker_blobs::pack_releases() const {
  ipc::buffer frame = ipc::begin_notification("$/release");
  ipc::packer pack(frame);
  pack.pack_array(static_cast<std::uint32_t>(releases_.size()));
  for (const auto& [arena, offset] : releases_) pack.pack_array(2).pack(arena).pack(offset);
  return frame.take();
}

// Where there is no memory for it, they wait for the next time.
void worker_blobs::send_releases() noexcept {
  std::vector<std::uint8_t> frame;
  std::size_t told = 0;
  try {
    std::lock_guard held(mutex_);
    if (releases_.empty() || telling_) return;
    frame = pack_releases();
    told = releases_.size();
    telling_ = true;
  } catch (const std::bad_alloc&) {
    return;
  }
  try {
    send_(std::move(frame), {});
  } catch (const std::bad_alloc&) {  // then nothing was sent
    told = 0;
  }
  std::lock_guard held(mutex_);
  telling_ = false;
  if (ended_) return;  // which has forgotten them
  releases_.erase(releases_.begin(), releases_.begin() + static_cast<std::ptrdiff_t>(told));
  any_releases_ = !releases_.empty();
}

// --- giving memory back ---------------------------------------------------------------------------------------------

// Where there is no memory for a timer, the next result that is let go of sets it.
void worker_blobs::set_timer() noexcept {
  if (timer_set_) return;
  try {
    reactor_->schedule(ipc::clock::now() + arguments_->options().idle, weak_from_this());
    timer_set_ = true;
  } catch (const std::bad_alloc&) {
  }
}

// The worker knows best whether there is something in an arena that it has not sent yet: it is asked.
void worker_blobs::on_timer() {
  send_releases();
  std::vector<std::uint32_t> unused;
  {
    std::lock_guard held(mutex_);
    timer_set_ = false;
    if (ended_) return;
    const auto since = ipc::clock::now() - arguments_->options().idle;
    bool more = false;
    for (const auto& [id, arena] : results_) {
      if (arena->held_ > 0 || arena->asked_ || !arena->usable_) continue;
      if (arena->used_ > since) {
        more = true;
        continue;
      }
      arena->asked_ = true;
      unused.push_back(id);
    }
    if (more) set_timer();
  }
  for (const std::uint32_t id : unused) {
    ipc::buffer frame = ipc::begin_notification("$/drop");
    ipc::packer(frame).pack_array(1).pack(id);
    send_(frame.take(), {});
  }
}

void worker_blobs::end() {
  std::map<std::uint32_t, ipc::held_blobs> held_by_calls;
  std::map<std::uint32_t, std::shared_ptr<result_arena>> results;
  std::lock_guard held(mutex_);
  ended_ = true;
  held_by_calls.swap(held_);
  results.swap(results_);
  releases_.clear();
  any_releases_ = false;
}

}  // namespace bulkhead
