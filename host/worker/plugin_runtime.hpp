// Runs a plugin: loads its library, serves the C ABI's host functions, keeps the account of calls in progress. How
// answers and events leave is the business of its `link`: a channel in a worker, a direct hand-over in-process.
#pragma once

#include "instrument.hpp"
#include "manifest.hpp"
#include <bulkhead/ipc/blob.hpp>
#include <bulkhead/ipc/limits.hpp>
#include <bulkhead/ipc/message.hpp>
#include <bulkhead/ipc/stream.hpp>
#include <bulkhead/ipc/system.hpp>
#include <bulkhead/plugin.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace bulkhead {

class plugin_runtime;

}  // namespace bulkhead

// A call in progress: what the plugin holds a pointer to. Lives until it has been answered and invoke() has returned.
struct bulkhead_call {
  bulkhead::plugin_runtime* runtime = nullptr;
  std::uint64_t tag = 0;  // of the link: which call this is
  const bulkhead_method_t* method = nullptr;
  bulkhead::ipc::reused_bytes storage;  // keeps `arguments` alive
  bulkhead::ipc::byte_span arguments;
  std::vector<bulkhead::unique_fd> handles;
  std::vector<bulkhead::unique_fd> attached;  // to go with the answer
  std::mutex attaching;
  unsigned blobs = 0;                             // references in the arguments
  bulkhead::ipc::held_blobs held;                 // in-process: what they refer to
  std::shared_ptr<bulkhead::ipc::stream> stream;  // when its caller opened one
  bulkhead::ipc::time_point deadline = bulkhead::ipc::never;
  std::atomic<bool> cancelled{false};
  std::atomic<bool> answered{false};
  std::atomic<int> references{2};          // the answer, invoke()
  std::vector<std::uint32_t> host_calls;   // of the link, with its lock: calls to the host in progress on its behalf
  std::atomic<std::int64_t> next_poll{0};  // when to look for a cancellation again

  // The memory of one that is gone is kept for the thread's next.
  static void* operator new(std::size_t size);
  static void operator delete(void* memory) noexcept;
};

namespace bulkhead {

class plugin_runtime {
 public:
  // All any-thread.
  class link {
   public:
    virtual ~link() = default;
    virtual void answer(bulkhead_call& call, ipc::byte_span result) = 0;
    virtual bool may_send_handles() const { return false; }  // whether descriptors may go to the host
    virtual void fail(bulkhead_call& call, ipc::call_failure failure) = 0;
    virtual void progress(bulkhead_call& call, ipc::byte_span value) = 0;
    virtual void log(int level, std::string_view text) = 0;
    virtual bool emit(std::string_view name, ipc::byte_span value, std::vector<unique_fd> handles) = 0;
    // Looks for a cancellation that has arrived but was not yet read.
    virtual void poll(bulkhead_call& call) = 0;
    virtual void leave(std::string_view) {}
    // Shared memory. Results of so many bytes go by blob on their own:
    virtual std::size_t blob_threshold() const { return SIZE_MAX; }
    // An argument's bytes; nothing when there is no such blob.
    virtual std::optional<ipc::byte_span> open_blob(bulkhead_call&, const ipc::blob_reference&) { return std::nullopt; }
    // False: there is none left, or none at all.
    virtual bool create_blob(std::size_t, bulkhead_blob_t&) { return false; }
    virtual void release_blob(const bulkhead_blob_t&) {}
    // The latest version of what the application has published; nothing when there is none.
    virtual std::optional<ipc::snapshot> published(const std::string&) { return std::nullopt; }
    virtual ipc::completion call_host(bulkhead_call* on_behalf_of, std::string_view function, ipc::byte_span arguments,
                                      std::vector<unique_fd> handles) = 0;
  };

  explicit plugin_runtime(link& link);
  ~plugin_runtime();

  // What BULKHEAD_INSTRUMENT says, before load(): watched from then on. Throws std::invalid_argument.
  void watch(std::string_view instructions);

  // The steps of getting ready; each throws std::runtime_error saying what failed. Dispatch thread.
  void check(int fd);                  // manifest and ABI, without running any of the plugin's code
  void load(const std::string& path);  // runs its constructors
  void init();
  void destroy();  // may be left out
  bool keeps_state() const { return state_ != nullptr; }
  std::vector<std::uint8_t> save_state();  // these two throw std::runtime_error. Dispatch thread
  void restore_state(ipc::byte_span state);

  // Takes up a call; it ends through the link, later or before this returns. `call` needs everything but `runtime` and
  // `method`. Unknown methods fail with `rejected`. Dispatch thread; several at once if the plugin is thread-safe.
  void invoke(std::unique_ptr<bulkhead_call> call, std::string_view method);

  // Called before a method runs, and after it has returned with no name. `tag` is the call's.
  std::function<void(const char* method, std::uint64_t tag)> on_method;

  // For $/ready and $/describe: one MessagePack map. `concurrency`: how many calls run at once.
  void pack_description(ipc::packer& packer, unsigned concurrency = 1) const;
  const manifest& read() const { return manifest_; }

 private:
  struct functions;  // of the C ABI, which the plugin calls
  static bulkhead_host_t functions_for(link& link);
  static void release(bulkhead_call* call);
  bool end(bulkhead_call* call);
  bool find_blobs(bulkhead_call& call);

  link& link_;
  bulkhead_host_t host_;
  std::unique_ptr<instrument> instrument_;  // when it is watched
  manifest manifest_;
  struct library;
  std::unique_ptr<library> library_;
  const bulkhead_plugin_t* plugin_ = nullptr;
  const bulkhead_state_t* state_ = nullptr;
  bool reads_blobs_ = false;  // wherever in arguments bytes may be
};

}  // namespace bulkhead
