// Child processes: four ways to start one.
//
//   bulkhead::launcher launch;
//   auto child = launch.spawn("sort", {"-n"});                                // streams, signals, events
//   auto [status, out, err] = launch.exec("ls | wc -l");                      // a shell command, its output collected
//   auto found = launch.exec_file("git", {"status"}, {.process = {.timeout = 5s}});
//   auto worker = launch.fork("worker.js", {}, {.events = {.on_message = …}});  // a channel for messages and handles
//
// Children are started by a small process of the launcher's own, so it costs the same in an application of any size. That
// is also their parent, so the application's wait() and SIGCHLD never see them. None is left behind as a zombie, and neither
// a child nor what it has started outlives the application, unless it is detached. A policy makes any of them a sandboxed
// one.
#pragma once

#include <bulkhead/child.hpp>

namespace BULKHEAD_PUBLIC bulkhead {

// How exec() and exec_file() fail, beside errors of the system. Category "bulkhead process".
enum class process_error {
  failed = 1,    // it ended with another status than 0, or by a signal
  timed_out,     // and was killed
  output_limit,  // it wrote more than max_output, and was killed
  aborted,       // a stop was requested, and it was killed
};
// Category "bulkhead process".
const boost::system::error_category& process_category() noexcept;
// For boost::system: a process_error is an error code.
inline boost::system::error_code make_error_code(process_error value) noexcept {
  return {static_cast<int>(value), process_category()};
}

// What a launcher is made with. All of it is optional.
struct launcher_options {
  std::filesystem::path worker_path{};  // of bulkhead-worker; see host_options
  unsigned worker_user = 65534;         // whom sandboxed children run as when the application is root
  std::filesystem::path cgroup{};       // where cgroups for limits of policies are made; see host_options
  // What a handler on the launcher's own thread has thrown. Unset: std::terminate, as in any thread.
  std::function<void(std::exception_ptr)> on_exception{};
};

// How a program is run whose output is collected.
struct exec_options {
  process_options process{};                      // how it is started
  std::string input{};                            // for its standard input
  std::size_t max_output = std::size_t{1} << 20;  // bytes of its output, and of its errors
};

// What came of it.
struct exec_result {
  exit_status status{};                 // how it ended
  std::string out{};                    // what was read of its output, whatever the error
  std::string err{};                    // and of its errors
  std::vector<violation> violations{};  // what its sandbox denied
};

class launcher_core;

// Thread-safe. Functions without a completion token block: those that start a child for about half a millisecond, exec()
// and exec_file() until it has ended. With one they return at once. What is in progress is cancelled by
// process_options::stop; a cancellation slot that the token's handler may have is not looked at.
class launcher {
 public:
  // Starts no process yet. Handlers run on a thread of its own.
  explicit launcher(launcher_options options = {});
  // Events and handlers run on the embedder's executor instead of a thread of the launcher's own.
  explicit launcher(boost::asio::any_io_executor executor, launcher_options options = {});
  // As shutdown().
  ~launcher();
  launcher(const launcher&) = delete;
  launcher& operator=(const launcher&) = delete;

  // Starts a program; a name without '/' is looked up in the child's PATH. There is no shell. Throws
  // boost::system::system_error with the errno of what failed, named in what(): ENOENT for a file that is not there,
  // EACCES, E2BIG, ENOEXEC for one that is no program and has no #! line, and so on; std::runtime_error when the policy's
  // sandbox can't be had; std::invalid_argument for options that don't go together.
  child spawn(const std::string& file, const std::vector<std::string>& arguments = {}, process_options options = {});
  // void(boost::system::error_code, child)
  template <class Token>
  auto async_spawn(const std::string& file, const std::vector<std::string>& arguments, process_options options,
                   Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, child)>(
        [this](auto handler, const std::string& what, const std::vector<std::string>& with, process_options&& how) {
          start_spawn(what, with, std::move(how),
                      detail::erase<boost::system::error_code, child>(std::move(handler), executor()));
        },
        token, file, arguments, std::move(options));
  }

  // Runs a command with /bin/sh -c and collects what it writes. Throws boost::system::system_error when it could not be
  // started; a process_error is in `error`.
  struct outcome : exec_result {
    boost::system::error_code error{};  // none, or a process_error
  };
  // Runs it and waits for its end.
  outcome exec(const std::string& command, exec_options options = {});
  // The same without a shell.
  outcome exec_file(const std::string& file, const std::vector<std::string>& arguments = {}, exec_options options = {});
  // void(boost::system::error_code, exec_result)
  template <class Token>
  auto exec(const std::string& command, exec_options options, Token&& token) {
    return exec_file("/bin/sh", {"-c", command}, std::move(options), std::forward<Token>(token));
  }
  // The same without a shell. void(boost::system::error_code, exec_result)
  template <class Token>
  auto exec_file(const std::string& file, const std::vector<std::string>& arguments, exec_options options,
                 Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, exec_result)>(
        [this](auto handler, const std::string& what, const std::vector<std::string>& with, exec_options&& how) {
          start_exec(what, with, std::move(how),
                     detail::erase<boost::system::error_code, exec_result>(std::move(handler), executor()));
        },
        token, file, arguments, std::move(options));
  }

  // Starts a program with a channel for messages and handles, as Node's fork(): a JavaScript file runs in node, a plugin
  // (NAME.so) in `bulkhead node`, whose options the arguments are then, anything else must be a program that speaks on
  // NODE_CHANNEL_FD itself (see node_channel.hpp). A program that speaks bulkhead's protocol is host::launch()'s. Otherwise
  // as spawn().
  child fork(const std::string& module, const std::vector<std::string>& arguments = {}, process_options options = {});

  // void(boost::system::error_code, child)
  template <class Token>
  auto async_fork(const std::string& module, const std::vector<std::string>& arguments, process_options options,
                  Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, child)>(
        [this](auto handler, const std::string& what, const std::vector<std::string>& with, process_options&& how) {
          start_fork(what, with, std::move(how),
                     detail::erase<boost::system::error_code, child>(std::move(handler), executor()));
        },
        token, module, arguments, std::move(options));
  }

  // Kills all children that are not detached and waits until they have ended, for a second at most. Operations in
  // progress end. Idempotent.
  void shutdown();

  // Where handlers run that have no executor of their own.
  boost::asio::any_io_executor executor();
  // Of the process that starts children; -1 before the first of that kind.
  pid_t server_pid() const;

 private:
  void start_spawn(const std::string& file, const std::vector<std::string>& arguments, process_options options,
                   detail::completion<boost::system::error_code, child> done);
  void start_fork(const std::string& module, const std::vector<std::string>& arguments, process_options options,
                  detail::completion<boost::system::error_code, child> done);
  void start_exec(const std::string& file, const std::vector<std::string>& arguments, exec_options options,
                  detail::completion<boost::system::error_code, exec_result> done);
  std::shared_ptr<launcher_core> core_;
};

}  // namespace bulkhead

template <>
struct boost::system::is_error_code_enum<bulkhead::process_error> : std::true_type {};
