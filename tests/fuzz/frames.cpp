// A channel whose peer sends what it likes, in pieces: no input makes it crash, hang, or hand over anything but whole
// messages; how the bytes are cut up changes nothing.
#include <bulkhead/ipc/channel.hpp>

#include <cstdlib>

namespace {

using namespace bulkhead;

// Bytes in memory, read in pieces of a given size. The first one is asked of the peer's answers.
class pieces final : public ipc::transport {
 public:
  pieces(std::span<const std::uint8_t> bytes, std::size_t piece) : bytes_(bytes), piece_(piece) {}
  io_result read(std::span<std::uint8_t> into, std::vector<unique_fd>&, bool) noexcept override {
    if (bytes_.empty()) return {io::closed, 0};
    const std::size_t taken = std::min({piece_, bytes_.size(), into.size()});
    std::copy_n(bytes_.begin(), taken, into.begin());
    bytes_ = bytes_.subspan(taken);
    return {io::ok, taken};
  }
  io_result write(bytes first, bytes second, std::span<const int>) noexcept override {
    return {io::ok, first.size() + second.size()};
  }
  bool wait(bool, bool, ipc::time_point) noexcept override { return true; }
  void wake() noexcept override {}
  void shutdown() noexcept override {}
  int native_handle() const noexcept override { return -1; }

 private:
  std::span<const std::uint8_t> bytes_;
  const std::size_t piece_;
};

struct counting final : ipc::channel::receiver {
  std::size_t hash = 0, closed = 0;
  void add(std::string_view text) { hash = hash * 31 + std::hash<std::string_view>{}(text); }
  void add(const ipc::message& message) {
    if (message.params.empty()) std::abort();
    add(message.method);
    add({reinterpret_cast<const char*>(message.params.data()), message.params.size()});
  }
  void on_request(const ipc::message& message, std::vector<unique_fd>) override { add(message); }
  void on_notification(const ipc::message& message, std::vector<unique_fd>) override { add(message); }
  void on_closed(const std::string& why) override {
    ++closed;
    add(why);
  }
};

std::size_t run(std::span<const std::uint8_t> bytes, std::size_t piece) {
  counting seen;
  ipc::limits limits;
  limits.frame = 4096;
  ipc::channel channel(std::make_unique<pieces>(bytes, piece), limits, seen, nullptr);
  ipc::waiter waiters[4];
  for (ipc::waiter& each : waiters)  // ids 0 to 3
    channel.start(ipc::begin_request("m").take(), {}, ipc::never, &each, nullptr);
  channel.run([] { return false; });
  if (seen.closed != 1 || !channel.closed()) std::abort();
  channel.fail_all([](const auto&) { return ipc::completion::failed(outcome::worker_lost, ""); });
  for (const ipc::waiter& each : waiters) {
    seen.add(each.result.failure.message);
    seen.add({reinterpret_cast<const char*>(each.result.result().data()), each.result.result().size()});
  }
  return seen.hash;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::span<const std::uint8_t> bytes(data + 1, size - 1);
  if (run(bytes, 1 + data[0] % 64) != run(bytes, 1 << 16)) std::abort();
  return 0;
}
