// A call that streams: arguments sent and results taken one by one while the method runs.
//
//   auto call = text.open("matches", document, "[A-Z]+");
//   while (auto match = call.next<found>()) show(*match);
//
// Neither side keeps more than a window of items that the other has not taken yet: whoever is ahead waits. So a single
// thread that sends without ever taking results may wait for a method that waits for it; send and take on two threads,
// or in turns that suit the method.
#pragma once

#include <bulkhead/call.hpp>

namespace BULKHEAD_PUBLIC bulkhead {

class call_stream;
class plugin_pool;

// Movable. Any thread may use it, also several at once: one sends and closes, one takes results, any cancels; several that
// send, or several that take, get their turns in no particular order. Destroying it cancels the call if it goes on, and
// lets go of the plugin: no other thread may use it then.
class streaming_call {
 public:
  streaming_call() = default;
  // Movable; what was moved from is no call.
  streaming_call(streaming_call&&) noexcept = default;
  // A call that it was before is cancelled.
  streaming_call& operator=(streaming_call&& other) noexcept;
  ~streaming_call();

  // Sends an item of the stream of arguments. Blocks while the plugin is its window (1 MiB) behind. False when the call
  // has ended or finish() was called: the method wants no more, and finish() says what came of it. Throws call_error
  // `rejected` for an item that is larger than the plugin's window: the call goes on. Throws std::logic_error after
  // close().
  template <class T>
  bool send(const T& value) {
    static_assert(!std::is_same_v<T, pass_fd>, "descriptors go with the arguments of a call, not with items");
    packed_arguments out;
    ipc::packer packer(out.params);
    detail::pack_argument(out, packer, value);
    return send_packed(out.params.view());
  }
  // The untyped form: one MessagePack value.
  bool send_packed(ipc::byte_span value);
  // No more arguments will come. Does not block.
  void close();

  // The next result. Nothing when there are no more; the call may still go on, and finish() gives its own result. Blocks
  // until there is one, or the call ends: at the latest at its deadline. Results that came before the call failed are
  // given out first; then it throws call_error. A result that is no T is a call_error `plugin_error`, and is lost.
  template <class T>
  std::optional<T> next() {
    const auto item = next_packed();
    if (!item) return std::nullopt;
    const msgpack::object_handle unpacked = ipc::unpack(*item);
    try {
      return typed::convert<T>(unpacked.get());
    } catch (const type_mismatch& mismatch) {
      throw call_error(outcome::plugin_error, "item " + std::to_string(taken()) + ": " + mismatch.what());
    }
  }
  // The untyped form: one MessagePack value.
  std::optional<std::vector<std::uint8_t>> next_packed();

  // Closes, drops the results not taken, and waits for the method's own result. Blocks until then: at the latest until
  // the deadline. May be called again.
  reply finish();
  // Ends the call with `cancelled`, and wakes all who wait. A plugin that has not answered after the grace (1 s) is killed.
  // Nothing happens when it has ended. Does not block.
  void cancel();

  // Whether it is a call at all.
  explicit operator bool() const { return stream_ != nullptr; }

 private:
  friend class plugin;
  streaming_call(std::shared_ptr<plugin_pool> plugin, std::shared_ptr<call_stream> stream)
      : plugin_(std::move(plugin)), stream_(std::move(stream)) {}
  call_stream& stream() const;
  std::uint64_t taken() const;

  std::shared_ptr<plugin_pool> plugin_;  // keeps it loaded
  std::shared_ptr<call_stream> stream_;
};

}  // namespace bulkhead
