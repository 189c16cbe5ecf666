// A loaded plugin: a handle to its pool of workers. Copyable; any thread may call on it at any time.
#pragma once

#include <bulkhead/call.hpp>
#include <bulkhead/policy.hpp>
#include <bulkhead/stream.hpp>

#include <chrono>
#include <filesystem>
#include <utility>  // before Asio: Boost 1.74 relies on them under g++ 12
#ifdef __cpp_impl_coroutine
#include <coroutine>
#endif
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/system_executor.hpp>

namespace BULKHEAD_PUBLIC bulkhead {

// A method as the plugin describes it.
struct method_info {
  std::string name;         // by which it is called
  std::string signature;    // "(bin image, int max_side) -> bin"; see bulkhead/plugin.h for the types
  std::string doc;          // one sentence
  bool idempotent = false;  // it may be run twice: a call of it is repeated when its worker dies
};

// What a plugin says of itself: its manifest and its methods. Text from a worker, sanitised; not to be trusted.
struct plugin_info {
  std::string id;                     // its unique name
  std::string name;                   // for people
  std::string version;                // as its author counts
  std::string license;                // "MIT"; may be empty
  std::string description;            // one sentence; may be empty
  unsigned abi = 0;                   // BULKHEAD_ABI_VERSION as it was built
  unsigned concurrency = 1;           // calls that one worker runs at once
  bool keeps_state = false;           // it can save and restore its state
  std::vector<std::string> requests;  // what it asks for, as in policy::add()
  std::vector<method_info> methods;   // in the order of their declaration
};

// One worker process of a plugin, as it is now.
struct worker_info {
  pid_t pid = -1;                                  // as the host sees it
  bulkhead::phase phase = bulkhead::phase::spawn;  // how far it has come
  unsigned outstanding = 0;                        // calls
  sandbox_report sandbox{};                        // what stands between it and the machine
  unsigned violations = 0;  // system calls that its sandbox has denied, as far as the worker says
  std::chrono::steady_clock::time_point started{};  // the epoch: not yet
  std::size_t resident_bytes = 0;                   // 0: not known
};

// How a plugin is as a whole.
struct plugin_status {
  // What it does with calls.
  enum class state {
    running,      // takes them
    half_open,    // was given up, and is tried with one worker
    gave_up,      // too many failures; calls fail
    quarantined,  // broke the protocol or its policy; calls fail
    ended,        // all its workers ended in a way that is not followed by a restart; calls fail
    stopped,      // with others of its group; calls wait until it is started again, or fail if there is a `reason`
    unloaded,     // by unload() or with its host; calls fail
  } state = state::running;   // which of them
  std::string reason{};       // why calls fail, if they do
  std::size_t serving = 0;    // workers that take calls
  std::size_t instances = 0;  // how many should
  std::size_t waiting = 0;    // calls without a worker yet
};
// Its name in words: "gave up".
std::string_view to_string(enum plugin_status::state value);

class plugin_pool;
struct plugin_metrics;  // bulkhead/metrics.hpp

// See the top of bulkhead/plugin.hpp.
class plugin {
 public:
  plugin() = default;

  // Calls a method and waits for its result. Throws call_error; see `outcome` for the ways it can fail. Blocks at most
  // until the deadline. R may be void to ignore the result.
  template <class R = void, class... A>
  R call(std::string_view method, const A&... arguments) const {
    return try_call(method, arguments...).template as<R>();
  }
  // The same without throwing for a failed call.
  template <class... A>
  reply try_call(std::string_view method, const A&... arguments) const {
    return call_packed(method, pack_arguments_for(blobs(), arguments...), {});
  }

  // This plugin under other options: image.with({.deadline = 2s}).call<bytes>("thumbnail", jpeg, 128).
  class bound;
  // With these options for the calls that are made by what it gives back.
  bound with(call_options options) const;

  // Calls a method; `token` says how to be told: a callback void(boost::system::error_code, R), asio::use_future,
  // asio::use_awaitable, or any other completion token. With R = reply, the handler gets texts and reports too; with
  // R = void only the error code. Arguments are packed before this returns. R must be default-constructible. The
  // handler runs on its associated executor, or else on the host's handler threads. Never blocks.
  template <class R = void, class... A, class Token>
  auto async_call(std::string_view method, const std::tuple<A...>& arguments, Token&& token,
                  call_options options = {}) const;

  // Calls a method that streams: see streaming_call. Whatever goes wrong is told by that. Throws std::invalid_argument for
  // a window out of range. Does not block; options by with(), as for call().
  template <class... A>
  streaming_call open(std::string_view method, const A&... arguments) const {
    return open_packed(method, pack_arguments_for(blobs(), arguments...), {});
  }

  // Memory for `size` bytes of arguments that this plugin's workers will see without a copy; see blob.hpp. Reuses what is
  // there; the first use of fresh memory costs about as long as copying it does. Throws call_error: `rejected` when it is
  // more than load_options::blobs.memory, `overloaded` when other blobs have that much of it. Any thread.
  shared_blob make_blob(std::size_t size) const;
  // For pack_arguments_for().
  std::shared_ptr<blob_source> blobs() const;

  // The untyped form that all others use. `arguments` is one MessagePack array.
  reply call_packed(std::string_view method, packed_arguments arguments, const call_options& options) const;
  // The same without waiting: `handler` gets the reply, once.
  void async_call_packed(std::string_view method, packed_arguments arguments, const call_options& options,
                         std::unique_ptr<reply_handler> handler) const;
  // The same for a method that streams.
  streaming_call open_packed(std::string_view method, packed_arguments arguments, const call_options& options) const;

  // Called for each event that the plugin emits, on the host's handler threads, one at a time per worker. Replaces the
  // handler set before. Events that come while there is none are dropped.
  void on_event(std::function<void(const std::string& name, const msgpack::object& value)> handler) const;

  // The same with the descriptors that came with the event, by the index that stands for them in its value, from a plugin
  // whose policy grants handles: expect any kind of file, one that never gets ready and one whose last close blocks. What
  // the handler leaves in there is closed by a thread that may block.
  void on_event_with_handles(
      std::function<void(const std::string& name, const msgpack::object& value, std::vector<unique_fd>& handles)>
          handler) const;

  // What it says of itself. Asks a worker the first time; throws call_error.
  plugin_info describe() const;
  // Its workers as they are now, spares and those that end included.
  std::vector<worker_info> workers() const;

  // How it is as a whole.
  plugin_status status() const;
  // What has been counted since it was loaded; goes on counting over reloads. Costs microseconds and a look at /proc for
  // each worker.
  plugin_metrics metrics() const;
  // Forgets all failures: a plugin that was given up or quarantined is started again, and calls that were refused as
  // poison are admitted. Throws call_error when it has been unloaded. Does not wait.
  void reset() const;
  // Each worker (or the one with this pid) is replaced by a fresh one, one after the other: the new one starts, then the
  // old one finishes its calls and ends. False when there is none. Does not wait.
  bool recycle(std::optional<pid_t> pid = {}) const;
  // Replaces the plugin by the version in `file` (which may be the same file, changed): starts as many workers of it,
  // and when all are ready gives calls to them; the old ones finish theirs and end. When that fails it throws
  // call_error and the old version goes on. Blocks until the new version serves. With load_options::state.keep the old
  // version finishes its calls first, and the new one starts from its state; calls wait meanwhile.
  void reload(const std::filesystem::path& file) const;
  // The plugin's state, as it is now: bytes that load_options::state.initial takes. While no worker serves, the state
  // saved last. Blocks until the worker has given it, load_options::deadline at most. Throws call_error: `rejected` when
  // the plugin keeps none, `plugin_error` when it can't save it, and as calls do.
  std::vector<std::uint8_t> save_state() const;

  // Ends its workers in good order: calls in progress may finish for 5 s, then 1 s for the plugin to clean up. Later
  // calls fail with `unavailable`. Blocks. The last handle that goes away does the same. In this process
  // (isolation::none) it waits for the call that runs, however long that takes, and throws call_error `rejected` in a
  // function that the plugin has called.
  void unload() const;

  // Whether it is a plugin at all: not when made by default, or moved from.
  explicit operator bool() const { return pool_ != nullptr; }
  // Where handlers run that have no executor of their own. What it is given to execute never runs before that returns.
  boost::asio::any_io_executor handler_executor() const;

 private:
  friend class plugin_pool;
  explicit plugin(std::shared_ptr<plugin_pool> pool) : pool_(std::move(pool)) {}
  plugin_pool& pool() const;

  std::shared_ptr<plugin_pool> pool_;
};

// A plugin with options for its calls: see plugin::with().
class plugin::bound {
 public:
  // As plugin::call().
  template <class R = void, class... A>
  R call(std::string_view method, const A&... arguments) const {
    return try_call(method, arguments...).template as<R>();
  }
  // As plugin::try_call().
  template <class... A>
  reply try_call(std::string_view method, const A&... arguments) const {
    return target_.call_packed(method, pack_arguments_for(target_.blobs(), arguments...), options_);
  }
  // As plugin::open().
  template <class... A>
  streaming_call open(std::string_view method, const A&... arguments) const {
    return target_.open_packed(method, pack_arguments_for(target_.blobs(), arguments...), options_);
  }

 private:
  friend class plugin;
  bound(plugin target, call_options options) : target_(std::move(target)), options_(std::move(options)) {}
  plugin target_;
  call_options options_;
};

inline plugin::bound plugin::with(call_options options) const { return {*this, std::move(options)}; }

namespace detail {

template <class R>
struct call_signature {
  using type = void(boost::system::error_code, R);
};
template <>
struct call_signature<void> {
  using type = void(boost::system::error_code);
};

// Whether handlers of that type have an executor of their own: else its kind is that of whatever is proposed.
template <class Handler>
inline constexpr bool has_executor =
    std::is_same_v<boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>,
                   boost::asio::associated_executor_t<Handler, boost::asio::system_executor>>;

// Where a handler goes that has an executor of its own; keeps that executor's context alive meanwhile.
template <class Handler, bool = has_executor<Handler>>
class handler_home {
 public:
  handler_home(const Handler& handler, const boost::asio::any_io_executor& fallback)
      : work_(boost::asio::get_associated_executor(handler, fallback)) {}
  template <class F>
  void post(F&& run) const {
    boost::asio::post(work_.get_executor(), std::forward<F>(run));
  }

 private:
  boost::asio::executor_work_guard<boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>> work_;
};

// The same for one that has none: plugin::handler_executor() needs no more than to be told that there is work.
template <class Handler>
class handler_home<Handler, false> {
 public:
  handler_home(const Handler&, const boost::asio::any_io_executor& fallback)
      : executor_(boost::asio::prefer(fallback, boost::asio::execution::outstanding_work.tracked)) {}
  template <class F>
  void post(F&& run) const {
    executor_.execute(std::forward<F>(run));
  }

 private:
  boost::asio::any_io_executor executor_;
};

// Carries a completion handler of any type to its executor.
template <class R, class Handler>
class handler_carrier final : public reply_handler {
 public:
  // `fallback`: as plugin::handler_executor() gives it.
  handler_carrier(Handler handler, const boost::asio::any_io_executor& fallback)
      : handler_(std::move(handler)), home_(handler_, fallback) {}

  void complete(reply&& result) override {
    const auto home = std::move(home_);
    home.post([handler = std::move(handler_), result = std::move(result)]() mutable {
      boost::system::error_code code = make_error_code(result.outcome());
      if constexpr (std::is_void_v<R>) {
        std::move(handler)(code);
      } else if constexpr (std::is_same_v<R, reply>) {
        std::move(handler)(code, std::move(result));
      } else {
        R value{};
        if (!code) {
          try {
            value = result.template as<R>();
          } catch (const std::exception&) {
            code = make_error_code(outcome::plugin_error);
          }
        }
        std::move(handler)(code, std::move(value));
      }
    });
  }

 private:
  Handler handler_;
  handler_home<Handler> home_;
};

}  // namespace detail

template <class R, class... A, class Token>
auto plugin::async_call(std::string_view method, const std::tuple<A...>& arguments, Token&& token,
                        call_options options) const {
  packed_arguments packed =
      std::apply([this](const A&... each) { return pack_arguments_for(blobs(), each...); }, arguments);
  auto start = [self = *this](auto handler, const std::string& name, packed_arguments&& args,
                              const call_options& with) {
    using carrier = detail::handler_carrier<R, decltype(handler)>;
    self.async_call_packed(name, std::move(args), with,
                           std::make_unique<carrier>(std::move(handler), self.handler_executor()));
  };
  return boost::asio::async_initiate<Token, typename detail::call_signature<R>::type>(
      std::move(start), token, std::string(method), std::move(packed), std::move(options));
}

}  // namespace bulkhead
