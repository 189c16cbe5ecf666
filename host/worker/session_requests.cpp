// What the host asks of a worker itself: a sign of life, its description, its state, that it has nothing to do. See session.hpp.
#include "session.hpp"
#include <bulkhead/error.hpp>

#include <cstring>

namespace bulkhead {

void session::take_up_reserved(const queued& request) {
  ipc::buffer result;
  ipc::packer packer(result);
  if (request.method == "$/ping") {
    packer.pack_nil();
  } else if (request.method == "$/describe") {
    runtime_.pack_description(packer, concurrency_);
  } else if (request.method == "$/drain") {
    std::lock_guard held(mutex_);
    if (!calls_.empty()) return drains_.push_back(request.id);
    packer.pack_nil();
  } else if (request.method == "$/save_state") {
    return save_state(request.id);
  } else if (request.method == "$/restore_state") {
    restore_state(request.params);
    packer.pack_nil();
  } else {
    channel_.send(
        ipc::make_error_response(request.id, {outcome::rejected, "no such request: " + std::string(request.method), {}})
            .take());
    return;
  }
  channel_.send(ipc::make_response(request.id, result.view()).take());
}

void session::save_state(std::uint32_t id) {
  const auto refuse = [&](outcome code, const std::string& why) {
    channel_.send(ipc::make_error_response(id, {code, why, {}}).take());
  };
  try {
    const std::vector<std::uint8_t> state = runtime_.save_state();
    if (state.size() + message_overhead > frame_limit_)
      return refuse(outcome::plugin_error, too_large("the state", state.size()));
    ipc::buffer result;
    ipc::packer(result)
        .pack_bin(static_cast<std::uint32_t>(state.size()))
        .pack_bin_body(reinterpret_cast<const char*>(state.data()), static_cast<std::uint32_t>(state.size()));
    channel_.send(ipc::make_response(id, result.view()).take());
  } catch (const std::exception& e) {
    refuse(outcome::plugin_error, e.what());
  }
}

// A worker without the state that it should have is of no use: it ends, and its report says why.
void session::restore_state(ipc::byte_span params) {
  try {
    const msgpack::object_handle handle = ipc::unpack(params);
    const auto state = handle.get().as<std::vector<msgpack::object>>().at(0).via.bin;
    runtime_.restore_state({reinterpret_cast<const std::uint8_t*>(state.ptr), state.size});
  } catch (const std::exception& e) {
    const std::string why = std::string("could not restore its state: ") + e.what();
    if (box_) std::strncpy(box_->message, why.c_str(), sizeof box_->message - 1);
    ::_exit(1);
  }
}

}  // namespace bulkhead
