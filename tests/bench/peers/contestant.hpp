// A peer's program, as the driver sees it: a process that is asked by a line and answers by one (see peer.cpp), and that
// can be put on CPUs together with its worker.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

inline std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<int> all;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(static_cast<std::size_t>(i), &set)) all.push_back(i);
  return all;
}

class contestant {
 public:
  explicit contestant(std::vector<std::string> argv) {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    to_ = in[1];
    from_ = out[0];
    std::vector<char*> arguments;
    for (auto& each : argv) arguments.push_back(each.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    const int failed = ::posix_spawnp(&pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(in[0]);
    ::close(out[1]);
    if (failed != 0) {
      close_pipes();
      throw std::runtime_error(argv[0] + " can't be started");
    }
    try {
      const std::string hello = line();
      const auto tab = hello.find('\t');
      if (!hello.starts_with("ready ") || tab == std::string::npos)
        throw std::runtime_error(argv.back() + " said '" + hello + "'");
      name_ = hello.substr(6, tab - 6);
      version_ = hello.substr(tab + 1);
    } catch (...) {
      end();
      throw;
    }
  }
  ~contestant() { end(); }
  contestant(const contestant&) = delete;
  contestant& operator=(const contestant&) = delete;

  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }

  // Nothing when it can't do that. Throws std::runtime_error when it has failed, or does not answer in time.
  std::optional<std::vector<double>> ask(const std::string& what) {
    const std::string text = what + '\n';
    if (::write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      throw std::runtime_error("it has ended");
    const std::string answer = line();
    if (answer == "none") return {};
    if (!answer.starts_with("ok")) throw std::runtime_error(answer);
    std::istringstream words(answer.substr(2));
    std::vector<double> values;
    for (double value = 0; words >> value;) values.push_back(value);
    if (values.empty()) throw std::runtime_error("an answer without values");
    return values;
  }

  // All threads of it on one CPU, all of its worker's on one; unset: wherever they may run.
  void place(std::optional<int> cpu, std::optional<pid_t> worker, std::optional<int> worker_cpu = {}) const {
    pin(pid_, cpu);
    if (worker && *worker != pid_) pin(*worker, worker_cpu);
  }

 private:
  static constexpr int patience = 120'000;  // milliseconds

  static void pin(pid_t process, std::optional<int> cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int each : cpu ? std::vector{*cpu} : allowed_cpus()) CPU_SET(static_cast<std::size_t>(each), &set);
    std::error_code gone;
    for (const auto& thread : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process), gone))
      ::sched_setaffinity(std::stoi(thread.path().filename()), sizeof set, &set);
  }

  std::string line() {
    for (;;) {
      if (const auto end = buffer_.find('\n'); end != std::string::npos) {
        std::string found = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return found;
      }
      pollfd ready{from_, POLLIN, 0};
      if (::poll(&ready, 1, patience) == 0) throw std::runtime_error("it does not answer");
      char part[65536];
      const ssize_t n = ::read(from_, part, sizeof part);
      if (n <= 0) throw std::runtime_error("it has ended");
      buffer_.append(part, static_cast<std::size_t>(n));
    }
  }

  void close_pipes() {
    ::close(to_);
    ::close(from_);
  }

  // At the end of its input it ends its workers and itself. It gets some time to do so.
  void end() {
    ::close(to_);
    pollfd gone{from_, 0, 0};
    if (::poll(&gone, 1, 10'000) == 0) ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(from_);
  }

  int to_ = -1, from_ = -1;
  pid_t pid_ = -1;
  std::string name_, version_, buffer_;
};

}  // namespace bench
