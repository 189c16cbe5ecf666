// A worker's life after its birth: answers the host's messages and runs the plugin's methods, one at a time, on the
// main thread, which is the dispatch thread; those of a thread-safe plugin also on some threads more.
#pragma once

#include "arenas.hpp"
#include "plugin_runtime.hpp"
#include "report/black_box.hpp"
#include <bulkhead/ipc/channel.hpp>
#include <bulkhead/ipc/lane_transport.hpp>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace bulkhead {

// A queue in one piece of memory, which it keeps.
template <class T>
class fifo {
 public:
  bool empty() const { return first_ == items_.size(); }
  T& front() { return items_[first_]; }
  auto begin() { return items_.begin() + static_cast<std::ptrdiff_t>(first_); }
  auto end() { return items_.end(); }
  void push(T&& item) { items_.push_back(std::move(item)); }
  T pop() {
    T taken = std::move(items_[first_++]);
    if (2 * first_ >= items_.size()) {
      items_.erase(items_.begin(), begin());
      first_ = 0;
    }
    return taken;
  }

 private:
  std::vector<T> items_;
  std::size_t first_ = 0;  // those before it are gone
};

class session final : ipc::channel::receiver, plugin_runtime::link {
 public:
  // Memory for lanes, see ipc/lane.hpp; none: all goes by the socket.
  struct lane_descriptors {
    unique_fd in, out;
  };
  session(unique_fd socket, black_box* box, bool may_send_handles, lane_descriptors lanes);

  // Waits for the host's $/hello and answers it. False when the host has gone away.
  bool say_hello();
  // Steps that may fail; on failure tells the host and exits.
  void start_plugin(int fd, const std::string& path, const std::function<void()>& seal);
  // Serves until the host says $/shutdown (then true) or goes away.
  bool serve();
  plugin_runtime& runtime() { return runtime_; }
  void enter(std::uint32_t phase);

 private:
  static constexpr std::size_t message_overhead = 64;  // of a message around a value, at most
  static constexpr const char* cancelled_with_call = "the call it was made for was cancelled";
  static ipc::limits worker_limits();

  struct queued {
    std::uint32_t id = 0;
    std::vector<std::uint8_t> bytes;  // of these two
    std::string_view method;
    ipc::byte_span params;
    std::vector<unique_fd> handles;
    ipc::time_point deadline = ipc::never;
    std::shared_ptr<ipc::stream> stream;
    bool cancelled = false;
    unsigned blobs = 0;
  };

  // ipc::channel::receiver
  void on_request(const ipc::message& request, std::vector<unique_fd> handles) override;
  void on_notification(const ipc::message& notification, std::vector<unique_fd> handles) override;
  void on_closed(const std::string& violation) override;
  // plugin_runtime::link
  void answer(bulkhead_call& call, ipc::byte_span result) override;
  bool may_send_handles() const override { return may_send_handles_; }
  void fail(bulkhead_call& call, ipc::call_failure failure) override;
  void progress(bulkhead_call& call, ipc::byte_span value) override;
  void log(int level, std::string_view text) override;
  bool emit(std::string_view name, ipc::byte_span value, std::vector<unique_fd> handles) override;
  void poll(bulkhead_call& call) override;
  void leave(std::string_view why) override;
  std::size_t blob_threshold() const override { return blob_threshold_ ? blob_threshold_ : SIZE_MAX; }
  std::optional<ipc::byte_span> open_blob(bulkhead_call& call, const ipc::blob_reference& reference) override;
  bool create_blob(std::size_t size, bulkhead_blob_t& blob) override;
  void release_blob(const bulkhead_blob_t& blob) override { arenas_.release(blob); }
  std::optional<ipc::snapshot> published(const std::string& name) override;
  ipc::completion call_host(bulkhead_call* on_behalf_of, std::string_view function, ipc::byte_span arguments,
                            std::vector<unique_fd> handles) override;

  bool dispatch();
  void take_up(std::unique_lock<std::mutex>& held, queued request);
  void take_up_reserved(const queued& request);
  void save_state(std::uint32_t id);
  void restore_state(ipc::byte_span params);
  void cancel(std::uint32_t id);
  void expect_deadline(std::uint32_t id, std::chrono::milliseconds limit);
  std::shared_ptr<ipc::stream> open_stream(std::uint32_t id, ipc::time_point deadline);
  void tell_stream(const ipc::message& notification);
  void forget_stream(std::uint32_t id);
  bool tell_arenas(std::string_view method, const msgpack::object& params, std::vector<unique_fd>& handles);
  void take_published(const msgpack::object& params, std::vector<unique_fd>& handles);
  void forget_published(const msgpack::object& params);
  bool place_blobs(ipc::byte_span result, std::vector<std::uint8_t>& made);
  void end(bulkhead_call& call);
  std::string too_large(std::string_view what, std::size_t bytes) const;
  bool send_event(ipc::buffer& message, std::size_t value_bytes, std::vector<unique_fd> handles);
  std::unique_ptr<ipc::transport> make_transport(unique_fd socket, lane_descriptors lanes);
  void notify(std::string_view method, const std::function<void(ipc::packer&)>& params);

  black_box* const box_;
  const bool may_send_handles_;
  plugin_runtime runtime_;
  ipc::lane_transport* lanes_ = nullptr;  // the channel's, if it has some
  arenas arenas_{
      [this](std::uint32_t id) { notify("$/dropped", [id](ipc::packer& packer) { packer.pack_array(1).pack(id); }); }};
  std::map<std::string, ipc::snapshot, std::less<>> published_;  // with mutex_
  std::map<std::string, std::uint64_t> announced_;               // newer ones that are to come
  std::atomic<unsigned> published_count_{0};                     // messages about any of them
  std::size_t blob_threshold_ = 0;                               // 0: the host takes no blobs
  ipc::channel channel_;
  const std::thread::id dispatch_thread_;

  std::mutex mutex_;
  fifo<queued> queue_;
  std::vector<bulkhead_call*> calls_;  // begun, not answered: few, so a list is fastest
  std::vector<std::pair<std::uint32_t, ipc::time_point>> next_deadlines_;  // of requests yet to come, by id
  std::map<std::uint32_t, std::size_t> next_windows_;                      // of streams, likewise
  std::map<std::uint32_t, std::shared_ptr<ipc::stream>> streams_;          // of calls that are not answered
  std::vector<std::uint32_t> drains_;  // $/drain requests to answer when all calls are done
  std::chrono::milliseconds default_deadline_{0};
  unsigned concurrency_ = 1;  // calls that may run at once
  std::atomic<bool> left_{false};
  std::size_t frame_limit_ = ipc::limits{}.frame;
  std::atomic<bool> work_{false};  // something in queue_
  std::atomic<bool> shutdown_{false};
  std::mutex emitting_;               // events leave in the order in which they are acknowledged
  fifo<std::size_t> unacknowledged_;  // the bytes of each, with emitting_, as are these three
  std::size_t unacknowledged_bytes_ = 0;
  std::int64_t events_sent_ = 0, events_acknowledged_ = 0;
  std::int64_t first_credit_ = 1024;
  std::atomic<std::int64_t> more_credit_{0};  // that came since, for what was acknowledged
};

}  // namespace bulkhead
