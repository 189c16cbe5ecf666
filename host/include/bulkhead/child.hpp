// A child process: how it is started, its streams, its messages, its end. Made by a launcher, see process.hpp.
#pragma once

#include <bulkhead/node_channel.hpp>
#include <bulkhead/policy.hpp>

#include <nlohmann/json.hpp>

#include <functional>
#include <optional>
#include <stop_token>

namespace BULKHEAD_PUBLIC bulkhead {

// How a process has ended.
struct exit_status {
  // Of exit(); -1 when a signal ended it, or when nobody knows (its process server has died). In the on_close of one that
  // could not be started: its error, negative.
  int code = -1;
  int signal = 0;              // that ended it
  bool core_dumped = false;    // and left a core file
  bool out_of_memory = false;  // and that was the kernel's: its policy's memory_limit(), counted by a cgroup
  std::chrono::microseconds user_time{0};    // CPU time of its own
  std::chrono::microseconds system_time{0};  // and of the kernel for it
  std::size_t max_resident = 0;              // bytes
  // Whether it ended well.
  explicit operator bool() const { return code == 0; }
};
// "exited with status 3", "was killed by SIGKILL"
std::string to_string(const exit_status& status);

// Where one of a child's descriptors leads.
class stdio {
 public:
  static stdio pipe() { return stdio(kind::pipe, -1); }  // to the application: child::in(), out(), err(), stream()
  static stdio null() { return stdio(kind::null, -1); }  // /dev/null
  static stdio inherit() { return stdio(kind::inherit, -1); }         // the application's own of the same number
  static stdio fd(int number) { return stdio(kind::given, number); }  // borrowed until the child has been started

  // Which of them.
  enum class kind {
    pipe,     // made for the child; the application has the other end
    null,     // /dev/null
    inherit,  // the application's own
    given,    // a descriptor of the application's: `number`
  };
  kind what;   // it is
  int number;  // of a given one

 private:
  constexpr stdio(kind k, int n) : what(k), number(n) {}
};

// What kill_tree() reaches.
enum class kill_scope {
  child,          // the child alone, which stays in the application's process group: terminals' signals reach it
  group,          // a process group of its own: what it starts, unless that leaves the group
  pid_namespace,  // all it ever starts; takes CAP_SYS_ADMIN, or a policy, which implies it where the kernel permits that
                  // (its layer "pid", see child::sandbox()) and means `group` elsewhere, unless `child` was asked for
};

// How messages go between the application and a child.
enum class channel_kind {
  none,  // they do not
  node,  // Node's, with json serialization, announced in NODE_CHANNEL_FD
};

// Called one at a time, in Node's order: spawn, then messages, disconnect, exit, close. Of a child that could not be
// started there are error and close only. On the launcher's thread or executor: they must not block it. What they throw
// comes out of the executor's run(), or goes to launcher_options::on_exception; the child goes on.
struct child_events {
  std::function<void()> on_spawn{};  // it runs
  // A message, perhaps with a handle.
  std::function<void(const nlohmann::json& message, passed_handle handle)> on_message{};
  // Node's own messages, such as those of its cluster.
  std::function<void(const nlohmann::json& message, passed_handle handle)> on_internal{};
  std::function<void()> on_disconnect{};              // the channel has ended
  std::function<void(const exit_status&)> on_exit{};  // it has ended
  // After exit, and once its output has ended: each pipe that it wrote to has been read to its end or closed, or is empty
  // and nobody can write to it any more.
  std::function<void(const exit_status&)> on_close{};
  // It could not be started, killed, or sent a message that nobody else is told of (async_send()'s token is).
  std::function<void(boost::system::error_code, const std::string& text)> on_error{};
};

// How a child is started. All of it is optional.
struct process_options {
  std::string argv0{};                            // empty: the file's name as given
  std::filesystem::path directory{};              // to run in; empty: the application's (with a policy: /)
  std::optional<std::vector<std::string>> env{};  // "NAME=value", all of it; unset: the application's
  std::vector<std::string> add_env{};             // on top of it, replacing what has the same name
  std::optional<unsigned> uid{};                  // whom it runs as: needs the right to; not with a policy
  std::optional<unsigned> gid{};                  // the same
  bool detached = false;                          // a session of its own; outlives the application
  // 0, 1, 2, …; up to 64. Empty: three pipes, or with fork() nothing to read, and the application's output.
  std::vector<stdio> streams{};
  kill_scope scope = kill_scope::group;  // what child::kill_tree() reaches
  // Unset: no sandbox. What it starts with is granted besides: to execute its own file (and a script's interpreter), and
  // to start others among what it may read. Of a detached child neither memory nor CPUs are counted by a cgroup: nobody
  // would be left to remove it.
  std::optional<bulkhead::policy> policy{};
  // When it passes, or `stop` is requested, the child and what its scope reaches get `kill_signal`, and SIGKILL after the
  // grace.
  std::chrono::nanoseconds timeout{0};                            // 0: none
  std::stop_token stop{};                                         // see timeout
  int kill_signal = SIGTERM;                                      // see timeout
  std::chrono::nanoseconds kill_grace = std::chrono::seconds(1);  // see timeout
  channel_kind channel = channel_kind::none;                      // whether there are messages
  // Files, memfds and the like may be sent as handles, too: the child is not Node, which would abort, or take none after.
  bool any_handle = false;
  child_events events{};  // who is told what happens
};

class child_core;

// A handle to a child; copies are the same child. Dropping all of them leaves the child running. Thread-safe but for its
// streams, of which each is for one thread at a time.
class child {
 public:
  child() = default;
  // Whether it is a child at all.
  explicit operator bool() const { return static_cast<bool>(core_); }

  // As the application sees it.
  pid_t pid() const;
  // Its ends of pipes that the application holds. Throw std::logic_error when that stream is no pipe.
  child_stream& in() const { return stream(0); }
  // As in(), for its standard output.
  child_stream& out() const { return stream(1); }
  // As in(), for its standard error.
  child_stream& err() const { return stream(2); }
  // As in(), by number.
  child_stream& stream(std::size_t number) const;

  // False when it has ended already. Through its pidfd: never reaches another process. Throws std::system_error when it
  // may not be signalled, or there is no such signal.
  bool kill(int signal = SIGTERM) const;
  // The same for all that kill_scope says. In a PID namespace a signal other than SIGKILL reaches all who may be sent it by
  // the program's user. SIGKILL to a `group` reaches those that have left it, too, if the child has a cgroup.
  bool kill_tree(int signal = SIGKILL) const;

  // Waits for its end; any number of times. Works while nobody runs the executor.
  exit_status wait() const;
  // The same for a limited time; nothing when that has passed.
  std::optional<exit_status> wait_for(std::chrono::nanoseconds limit) const;
  // void(boost::system::error_code, exit_status)
  template <class Token>
  auto async_wait(Token&& token) const {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, exit_status)>(
        [self = *this](auto handler) {
          self.start_wait(detail::erase<boost::system::error_code, exit_status>(std::move(handler), self.executor()));
        },
        token);
  }
  // Whether it was ended for its timeout, or because a stop was requested.
  bool timed_out() const;
  // Whether it was ended because a stop was requested.
  bool stopped() const;

  // Over its channel: see node_channel. Throw std::logic_error when it has none. Handles come from a child with a policy
  // only if that grants it (policy::allow_handles).
  bool send(const nlohmann::json& message, passed_handle handle = {}) const {
    return channel().send(message, std::move(handle));
  }
  // As node_channel::async_send().
  template <class Token>
  auto async_send(const nlohmann::json& message, passed_handle handle, Token&& token) const {
    return channel().async_send(message, std::move(handle), std::forward<Token>(token));
  }
  // As node_channel::disconnect(): the child sees the end of its channel once what is queued is written.
  void disconnect() const { channel().disconnect(); }
  // As node_channel::connected().
  bool connected() const { return channel().connected(); }
  // The channel itself; lives as long as the child object does.
  node_channel& channel() const;

  // What its sandbox has denied so far (with a policy, which must not be the learning one), and what that is made of.
  std::vector<violation> violations() const;
  // What stands between it and the machine, if it has a policy.
  sandbox_report sandbox() const;

  // Where its events come.
  boost::asio::any_io_executor executor() const;

 private:
  friend class launcher_core;
  explicit child(std::shared_ptr<child_core> core) : core_(std::move(core)) {}
  void start_wait(detail::completion<boost::system::error_code, exit_status> done) const;
  std::shared_ptr<child_core> core_;
};

}  // namespace bulkhead
