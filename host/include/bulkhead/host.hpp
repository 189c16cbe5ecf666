// The embedder's library: a host starts a fork server and loads plugins, each into worker processes of its own.
//
//   bulkhead::host host;
//   auto image = host.load("image.so", {.instances = 2, .memory_limit = 256 << 20});
//   auto thumb = image.call<bulkhead::bytes>("thumbnail", jpeg, 128);   // throws bulkhead::call_error
//
// A host leaves the application's process as it is: no signal handler, no wait(), no global state, no change of the
// environment. Several hosts may live in one process. All functions are thread-safe.
//
// The fork server and the workers are children of the application: SIGCHLD tells of their ends, and a wait() for any child
// that is quicker than the host takes their status. The host goes on without it: a report may say exit_reason::unknown.
#pragma once

#include <bulkhead/functions.hpp>
#include <bulkhead/ipc/lane_options.hpp>
#include <bulkhead/ipc/limits.hpp>
#include <bulkhead/plugin.hpp>
#include <bulkhead/policy.hpp>
#include <bulkhead/supervision.hpp>

#include <filesystem>

namespace BULKHEAD_PUBLIC bulkhead {

// Where a plugin runs.
enum class isolation {
  process,  // a worker process per instance
  none,     // in this process, on the caller's thread: for debugging and for trusted code. A crash is the host's crash,
            // deadlines and cancellation are only as good as the plugin's own checks, limits do not apply. One call at
            // a time: a function lent to the plugin that uses the plugin itself is `rejected`.
};

// How much a line matters.
enum class log_level {
  debug = 0,  // for who looks for a fault
  info,       // what happens in the ordinary course
  warning,    // unusual, and it goes on
  error,      // something has failed
};

// A line from a worker: written with the log functions, or to its stdout or stderr. Text is sanitised UTF-8.
struct log_record {
  log_level level = log_level::info;  // as the plugin says; info for its output
  std::string plugin;                 // its name
  pid_t pid = -1;                     // of the worker
  std::string text;                   // one line, without its end
  std::uint64_t dropped = 0;          // lines lost just before this one: a worker may write 64 KiB/s
};

// What happens to a plugin's workers, and to the plugin as a whole. None is ever dropped; while the application has more
// than 1,024 yet to be told, no worker is started again or recycled.
struct lifecycle_event {
  // What has happened.
  enum class kind {
    started,      // a worker has been spawned
    ready,        // it takes calls, or waits as a spare
    exited,       // it has ended: `report` says how
    undead,       // it was killed, and the kernel does not report its end: it is waited for no longer
    restarting,   // another will be spawned after `delay`; `text`: what became of the last
    degraded,     // only `serving` of `instances` serve
    recovered,    // all of them do again
    gave_up,      // too many failures: `text` says which limit, `last_exits` how. plugin::reset() starts it again
    quarantined,  // a worker broke the protocol or its policy, see `report`. Only plugin::reset() starts it again
    poisoned,     // a call has killed so many workers that it is refused from now on; `text` names its method
    reloaded,     // a new version of the plugin serves
    regrouped,    // it stops because a plugin of its group failed: `text` says why, if it won't be started again
    // Of no plugin: `pid` and `text` are the fork server's. Living workers go on.
    fork_server_died,      // another is started
    fork_server_gave_up,   // for the third time within a minute: no worker is started until host::reset()
  } kind = kind::started;  // which of them
  std::string plugin{};    // its name; empty for the fork server's
  pid_t pid = -1;          // of the worker, where there is one
  std::shared_ptr<const crash_report> report{};                   // how a worker ended, where one did
  std::chrono::nanoseconds delay{0};                              // until it is spawned again
  std::string text{};                                             // more, for people
  std::size_t serving = 0;                                        // workers that take calls
  std::size_t instances = 0;                                      // how many should
  std::vector<std::shared_ptr<const crash_report>> last_exits{};  // up to five, the latest last
};
// Its name in words: "gave up".
std::string_view to_string(enum lifecycle_event::kind kind);

// What a host is made with. All of it is optional.
struct host_options {
  // The bulkhead-worker program. Empty: beside the application's executable, then where bulkhead was built or
  // installed.
  std::filesystem::path worker_path{};
  // Called on the handler threads; one at a time. What the application's callbacks throw, and handlers on the host's own
  // threads, is logged as an error; what this one throws is dropped.
  std::function<void(const log_record&)> on_log{};
  // The same, for what happens to workers and plugins.
  std::function<void(const lifecycle_event&)> on_lifecycle{};
  // A system call or file access that a plugin's sandbox has denied; each is in the log as a warning, too. A worker
  // reports up to 100 a second; beyond 1,024 that this has not been called for yet, they are dropped.
  std::function<void(const violation&)> on_violation{};
  // How many threads run callbacks, completion handlers without an executor, and the functions lent to plugins.
  // Started when first needed. Not used when the host runs on the embedder's executor.
  unsigned handler_threads = 4;
  // Where a report of each crash is written, its stack symbolized; empty: nowhere. See write_crash_report(). Worker
  // deaths that the host brought about in good order are no crashes. Written by a thread of its own, which shutdown()
  // waits for, for some seconds; when crashes come faster than it writes, some have no file, and the log says so.
  std::filesystem::path crash_dir{};
  std::size_t crash_files = 100;  // reports kept there; the oldest are removed
  // A version 2 cgroup that is delegated to the host and holds no processes: where cgroups for workers are made. Empty:
  // below the host's own, if that can be.
  std::filesystem::path cgroup{};
  spawn_limits spawns{};  // how fast workers are started, of all plugins together
  // Whom workers run as when the host is root; by default nobody. The owner of as few files as can be.
  unsigned worker_user = 65534;
};

// A worker that a call could go to.
struct candidate {
  std::size_t place;  // 0 … instances-1; kept by the worker that takes another's place
  pid_t pid;          // of the worker
  unsigned calls;     // in progress
};

// Which worker gets a call.
struct dispatch {
  // The rule.
  enum class kind {
    least_loaded,  // the one with the fewest calls
    round_robin,   // one after the other
    sticky,  // by call_options::key: equal keys go to the same worker while it lives, and wait for it when it is busy
    custom,  // as `choose` says
  } kind = kind::least_loaded;  // which of them
  // custom: the index of the one to take, or a larger number to wait until a worker is free or has started. Called on
  // any thread, under a lock: it must be quick and must not use the plugin. Not called when there is none to choose. When
  // it throws, the log says so and the call waits.
  std::function<std::size_t(const std::vector<candidate>& free, std::string_view method, call_key key)> choose{};
};

// State that a plugin hands to its successor: to the new version on reload(), to a fresh worker on recycle() or when it
// leaves, both as it was after the last call; after a crash, as it was saved last. A worker that can't restore it counts
// as one that can't start; once plugin::reset() is called after that, the state is dropped. Needs a plugin that saves
// and restores (`plugin.state()` in the SDK, BULKHEAD_STATE in the C ABI), one instance and no spares.
struct state_options {
  bool keep = false;  // whether any is kept
  // How long after the end of a call the state may wait to be saved: a crash loses so much. 0: it is saved after each
  // call.
  std::chrono::nanoseconds every = std::chrono::seconds(1);
  // What the first worker starts from: the bytes that plugin::save_state() gave. Empty: from nothing.
  std::vector<std::uint8_t> initial{};
};

// For load_options::instances: a worker for each CPU that the host may run on when the plugin is loaded.
inline constexpr unsigned one_per_cpu = 0;

// How a plugin is loaded and run. All of it is optional.
struct load_options {
  // What it is called in logs, events, reports and metrics. Empty: its file's name without the extension.
  std::string name{};
  unsigned instances = 1;                                        // worker processes; or one_per_cpu
  std::size_t memory_limit = std::size_t{1} << 30;               // address space of a worker, in bytes; 0: no limit
  std::chrono::nanoseconds deadline = std::chrono::seconds(30);  // of calls that name none
  std::chrono::nanoseconds start_timeout = std::chrono::seconds(10);  // from spawn to ready
  enum isolation isolation = isolation::process;                      // in a worker, or in this process
  bulkhead::functions functions{};                                    // what the plugin may call in the application
  std::vector<std::string> environment{};                             // "NAME=value"; workers get nothing else
  ipc::limits limits{};                                               // of the channel
  blob_options blobs{};                                               // bytes in bulk
  // Which of the values that host::publish() publishes the plugin may read. Unset: all.
  std::optional<std::vector<std::string>> published{};
  // Memory shared with each worker that calls go through instead of a socket, and how long one waits there without
  // sleeping. Programs of host::launch() do without.
  ipc::lane_options lanes{};
  supervision_options supervision{};  // how its workers are kept running
  state_options state{};              // what one worker hands to the next
  bulkhead::dispatch dispatch{};      // which worker gets a call
  // Calls that one worker runs at once, if its plugin says that it is thread-safe; others run one. At most 64.
  unsigned concurrency = 4;
  // Calls that wait for a worker; one more is refused with `overloaded`. So is one that would have more than four times
  // limits.queued_bytes of arguments wait, other than in blobs.
  unsigned queue_limit = 1024;
  // Calls sent ahead to a worker that is busy, so that it need not wait for the next one; they may wait there while
  // another worker has nothing to do. Unset: 1, or with a single instance as many as its channel takes.
  std::optional<unsigned> sent_ahead{};
  // A call that has killed so many workers, be it by hanging, is refused (`rejected`) when it comes again, for 10
  // minutes; 0: never. The same call: of the same method with the same arguments.
  unsigned poison_limit = 3;
  // Copies the arguments of calls, so that a crash report has those of the call its worker died in: up to so many bytes
  // for a worker's calls together; a call with more than that is not copied. 0: none are. Arguments may be confidential.
  std::size_t keep_requests = 0;
  // What its sandbox lets it do. Unset: policy::strict(), or policy::program() for launch(). Its memory limit is
  // memory_limit above unless it names another.
  std::optional<bulkhead::policy> policy{};
  // The plugin's file must have this SHA-256 (64 hexadecimal digits, lower case); empty: any. What runs is the copy that was
  // hashed. With isolation::none and no hash it is the file itself, as it is then, so that debuggers find it.
  std::string sha256{};
};

// What a group is made with.
struct group_options {
  restart_strategy strategy = restart_strategy::one_for_all;  // how far a failure reaches
  // Of all its plugins together, but with one_for_one: then each has that of its own options.
  restart_intensity intensity{};
};

// Plugins that depend on each other, in the order in which they are loaded. When a worker of one fails, and would be
// restarted, the whole plugin and those that depend on it (restart_strategy says which) are stopped in good order, the
// last loaded first, and started again, one after the other, each when the one before takes calls; calls to them wait
// meanwhile. When one is given up or quarantined, or can't be started again, those that depend on it are stopped, and
// calls to them fail with `unavailable`, until reset(). Recycling and reloading one plugin leaves the others alone, and
// so does the end of one that its restart_kind does not restart. Copies are the same group. Thread-safe.
class plugin_group {
 public:
  // As host::load() and host::launch(). Throws std::invalid_argument for a plugin in this process, unless the strategy
  // is one_for_one.
  plugin load(const std::filesystem::path& file, load_options options = {});
  // As host::launch().
  plugin launch(const std::vector<std::string>& argv, load_options options = {});
  // Forgets all failures; what was given up, quarantined or stopped with another is started again, in order.
  // plugin::reset() of any of them does the same, but with one_for_one. Does not wait; calls to them wait.
  void reset();
  // plugin::unload() of each, the last loaded first. Blocks.
  void unload();

 private:
  friend class host;
  explicit plugin_group(std::shared_ptr<class group_core> core) : core_(std::move(core)) {}
  std::shared_ptr<class group_core> core_;
};

// Loads plugins and runs them in workers; see the top of bulkhead/host.hpp.
class host {
 public:
  // Starts the fork server, and one I/O thread. Throws std::runtime_error naming what is missing.
  explicit host(host_options options = {});
  // Runs on the embedder's executor instead: I/O and handlers alike. Synchronous calls work even while nobody runs it;
  // everything else needs it to be run. Its context must outlive the host; a plugin handle may outlive both, but then no
  // asynchronous call can be made with it. What completion handlers throw comes out of the context's run().
  explicit host(boost::asio::any_io_executor executor, host_options options = {});
  // As shutdown(). Not to be called from a handler that runs on the host's own threads.
  ~host();
  host(const host&) = delete;
  host& operator=(const host&) = delete;

  // Loads a plugin and waits until its workers are ready. Throws call_error: `unavailable` with the phase that failed,
  // `rejected` when the file can't be a plugin, or may not: a symbolic link, or a file or directory that other users
  // could write to.
  plugin load(const std::filesystem::path& file, load_options options = {});

  // Starts a program of any kind that follows docs/protocol.md as worker; argv[0] names its file. It is not bulkhead's
  // own worker: no crash handler, so signals are as the kernel reports them.
  plugin launch(const std::vector<std::string>& argv, load_options options = {});

  // An empty group. Its plugins live as long as their own handles, like others.
  plugin_group group(group_options options = {});

  // What would stand between a worker with this policy and the machine, without starting one. Throws
  // std::runtime_error. Blocks for some milliseconds.
  sandbox_report examine(const policy& rules = {}) const;

  // The report with functions, source files and lines in its stack, inlined functions as frames of their own. Files are
  // read, debug information included, by a worker under policy::strict(), for they are as hostile as the plugin; frames
  // for which it finds nothing stay as they are, as do the plugin's when the report has no `image`, and all of them once
  // the host has been shut down. Takes some milliseconds, with large files more; blocks for 10 s at most.
  crash_report symbolized(crash_report report) const;

  // Publishes a value under a name: one copy of it in memory, which all workers that may read it (load_options::published)
  // map, and nobody can change. Publishing another under the same name is a new version; plugins find it when they look
  // the name up again, and keep the version that they have until they let go of it. Workers that are started later have
  // the latest one before they are ready. What is published when a worker starts comes on top of its address space
  // (load_options::memory_limit); what is published later, new versions too, counts towards that: a plugin that can't map
  // it does not find it. Then the limit has to leave room, or publishing comes before loading, or plugin::recycle() after.
  // Returns the version. Throws std::system_error when there is no memory. Any thread; blocks for as long as copying takes.
  std::uint64_t publish(const std::string& name, bytes_view value);
  // The same of `size` bytes, which `fill` writes where they will lie.
  std::uint64_t publish(const std::string& name, std::size_t size,
                        const std::function<void(std::span<std::uint8_t>)>& fill);
  // The same of any value that can be packed: its MessagePack.
  template <class T>
  std::uint64_t publish(const std::string& name,
                        const T& value) requires(!std::is_convertible_v<const T&, bytes_view>) {
    ipc::buffer packed;
    ipc::packer(packed).pack(value);
    return publish(name, packed.view());
  }
  // Plugins no longer find it. False when there is none.
  bool unpublish(const std::string& name);

  // Unloads all plugins and ends the fork server. Calls after it fail with `unavailable`; completion handlers without an
  // executor then run on Asio's system executor. Blocks for some seconds at most. Idempotent.
  void shutdown();

  // Lets workers be started again after the fork server had died too often. Plugins that gave up meanwhile come back by
  // plugin::reset(). Any thread.
  void reset();

  // Of each plugin that is loaded, in the order in which they were; several may have the same name.
  std::vector<plugin_metrics> metrics() const;

  // Of the fork server.
  pid_t fork_server_pid() const;

 private:
  friend class cluster;
  std::shared_ptr<class host_core> core_;
};

}  // namespace bulkhead
