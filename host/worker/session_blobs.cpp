// The worker's side of blobs on the channel: arenas that come and go, references in arguments and results. See session.hpp
// and arenas.hpp.
#include "session.hpp"

#include <cstring>

namespace bulkhead {

namespace {

constexpr std::chrono::milliseconds announced_patience{500};  // less than a call that was given up has to end

struct sent_arena {
  std::uint32_t id;
  std::size_t size;
};

sent_arena read_arena(const msgpack::object& value) {
  const auto fields = value.as<std::vector<msgpack::object>>();
  return {fields.at(0).as<std::uint32_t>(), fields.at(1).as<std::size_t>()};
}

}  // namespace

bool session::tell_arenas(const std::string_view method, const msgpack::object& params,
                          std::vector<unique_fd>& handles) {
  if (method == "$/arena") {
    const sent_arena sent = read_arena(params);
    if (!handles.empty()) arenas_.add(sent.id, sent.size, std::move(handles.front()));
    channel_.wake();  // a call may be waiting for it
  } else if (method == "$/drop") {
    arenas_.drop(params.as<std::vector<std::uint32_t>>().at(0));
  } else if (method == "$/release") {
    for (const auto& [arena, offset] : params.as<std::vector<std::pair<std::uint32_t, std::uint64_t>>>())
      arenas_.released(arena, offset);
  } else if (method == "$/published") {
    take_published(params, handles);
  } else if (method == "$/unpublished") {
    forget_published(params);
  } else {
    return false;
  }
  return true;
}

// --- what the application has published -----------------------------------------------------------------------------

void session::take_published(const msgpack::object& params, std::vector<unique_fd>& handles) {
  const auto [name, version, size, handle] =
      params.as<std::tuple<std::string, std::uint64_t, std::size_t, msgpack::object>>();
  if (handle.is_nil()) {  // it comes when the host has heard that we took the one before
    std::lock_guard held(mutex_);
    ++published_count_;
    announced_[name] = version;
    return;
  }
  ipc::snapshot added{nullptr, size, version}, old;
  try {
    added.memory = std::make_shared<const ipc::shared_memory>(
        ipc::shared_memory::map(handles.at(0).get(), std::max<std::size_t>(size, 1), false));
  } catch (const std::exception& e) {
    try {
      log(BULKHEAD_LOG_ERROR,
          "'" + name + "' was published, but can't be read (load_options::memory_limit): " + e.what());
    } catch (const std::bad_alloc&) {  // what follows counts more
    }
  }
  handles.clear();
  {
    std::lock_guard held(mutex_);
    ++published_count_;
    ipc::snapshot& current = published_[name];
    if (current.version < version) old = std::exchange(current, std::move(added));
    if (const auto found = announced_.find(name); found != announced_.end() && found->second <= version)
      announced_.erase(found);
  }
  notify("$/took",
         [&, &name = name, &version = version](ipc::packer& packer) { packer.pack_array(2).pack(name).pack(version); });
  channel_.wake();  // who looks it up may be waiting for it
}

void session::forget_published(const msgpack::object& params) {
  const auto [name, version] = params.as<std::tuple<std::string, std::uint64_t>>();
  ipc::snapshot old;
  {
    std::lock_guard held(mutex_);
    const auto found = published_.find(name);
    if (found != published_.end() && found->second.version > version) return;
    ++published_count_;
    announced_.erase(name);
    if (found != published_.end()) {
      old = std::move(found->second);
      published_.erase(found);
    }
  }
  channel_.wake();
}

// A version that is announced is on its way: it is waited for, unless the host is short of descriptors to send it.
std::optional<ipc::snapshot> session::published(const std::string& name) {
  channel_.poll();  // while the plugin is busy, nobody else reads
  for (const ipc::time_point limit = ipc::clock::now() + announced_patience;;) {
    const unsigned count = published_count_;
    {
      std::lock_guard held(mutex_);
      const auto announced = announced_.find(name);
      const bool waits = announced != announced_.end() && ipc::clock::now() < limit;
      if (!waits) {
        if (announced != announced_.end())
          announced_.clear();  // nor is any other waited for: it takes no longer in all
        const auto found = published_.find(name);
        return found == published_.end() ? std::nullopt : std::optional(found->second);
      }
    }
    channel_.run([&] { return published_count_ != count; }, limit);
  }
}

// --- blobs ----------------------------------------------------------------------------------------------------------

// An arena is sent before the first call that refers to it, but may come another way than that.
std::optional<ipc::byte_span> session::open_blob(bulkhead_call& call, const ipc::blob_reference& reference) {
  if (!arenas_.known(reference.arena))
    channel_.run([&] { return arenas_.known(reference.arena) || call.cancelled; }, call.deadline);
  return arenas_.find(reference);
}

bool session::create_blob(std::size_t size, bulkhead_blob_t& blob) {
  if (blob_threshold_ == 0 || size > ipc::blob_reference::most) return false;
  if (arenas_.take(size, blob)) return true;
  if (arenas_.any()) {
    channel_.poll();  // the host may have released some meanwhile
    if (arenas_.take(size, blob)) return true;
  }
  ipc::buffer arguments;
  ipc::packer(arguments).pack_array(1).pack(size);
  ipc::completion answer = call_host(nullptr, "$/arena", arguments.view(), {});
  if (answer.code != outcome::ok || answer.handles.empty()) return false;
  try {
    const msgpack::object_handle result = ipc::unpack(answer.result());
    const sent_arena sent = read_arena(result.get());
    arenas_.adopt(sent.id, sent.size, std::move(answer.handles.front()));
    notify("$/mapped", [&](ipc::packer& packer) { packer.pack_array(1).pack(sent.id); });
  } catch (const std::exception& e) {
    log(BULKHEAD_LOG_WARNING, std::string("no shared memory for results: ") + e.what());
    return false;
  }
  return arenas_.take(size, blob);
}

// Puts what is long in a result into blobs, and counts those that it refers to: `made` has the result if it is another
// one than before. False when it refers to one that does not exist.
bool session::place_blobs(ipc::byte_span result, std::vector<std::uint8_t>& made) {
  if (!arenas_.any() && result.size() < blob_threshold()) return true;
  ipc::buffer out;
  const std::uint8_t* copied = result.data();
  std::vector<ipc::blob_reference> references;
  std::vector<bulkhead_blob_t> blobs;
  bool fine = true;
  ipc::byte_span rest = result;
  while (const auto found = ipc::next_bytes(rest)) {
    if (found->kind == ipc::packed_bytes::kind::ext) {
      if (found->type != ipc::ext_blob) continue;
      const auto reference = ipc::reference_in(*found);
      fine = fine && reference && arenas_.valid(*reference);
      if (fine) references.push_back(*reference);
    } else if (bulkhead_blob_t blob{};
               found->contents.size() >= blob_threshold() && create_blob(found->contents.size(), blob)) {
      std::memcpy(blob.data, found->contents.data(), found->contents.size());
      blobs.push_back(blob);
      auto reference = *ipc::blob_reference::read({blob.reference, blob.reference_size});
      reference.text = found->kind == ipc::packed_bytes::kind::text;
      out.append({copied, found->whole.data()});
      ipc::append_reference(out, reference);
      copied = found->whole.data() + found->whole.size();
      references.push_back(reference);
    }
  }
  if (fine)
    for (const auto& each : references) arenas_.sent(each);
  for (const auto& each : blobs) arenas_.release(each);
  if (fine && !blobs.empty()) {
    out.append({copied, result.data() + result.size()});
    made = out.take();
  }
  return fine;
}

}  // namespace bulkhead
