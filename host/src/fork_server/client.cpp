// See client.hpp.
#include "fork_server/client.hpp"

#include "control_message.hpp"
#include "fork_server/server_process.hpp"
#include <bulkhead/crash_report.hpp>

#include <array>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace bulkhead::fork_server {
namespace {

constexpr int answer_timeout_ms = 5000, end_timeout_ms = 1000, dying_ms = 100;

}  // namespace

client::client(const std::filesystem::path& configured, unsigned user)
    : program_(find_worker_program(configured)), user_(user) {
  start(isolated_);
}

client::~client() { stop(); }

void client::observe(observer to) {
  std::lock_guard held(mutex_);
  observer_ = std::move(to);
  for (const server* which : {&isolated_, &networked_})
    if (which->pidfd) observer_.started(which->network, which->pidfd.get());
}

// A fork server that knows of all workers there are.
void client::start(server& which) {
  launch(which);
  adopt_all(which);
  if (observer_.started) observer_.started(which.network, which.pidfd.get());
}

// It has died, or does not answer. Workers need it for nothing but their births, and to be killed with the host.
void client::bury(server& which) {
  death end{.pid = which.pid, .how = "did not answer and was killed"};
  const server_end how = end_server(which.pidfd.get(), dying_ms);  // its socket is closed a moment before
  if (how.by_itself && how.signal) end.how = "was killed by " + signal_name(*how.signal);
  else if (how.by_itself && how.code) end.how = "exited with status " + std::to_string(*how.code);
  else if (how.by_itself) end.how = "ended";
  which.control.reset();
  if (!which.restarts.admit(std::chrono::steady_clock::now())) {
    which.gave_up = "the fork server died 3 times within a minute, and " + end.how +
                    " at last: no worker is started until host::reset()";
    end.gave_up = which.gave_up;
  }
  if (observer_.ended) observer_.ended(which.network, which.pidfd.get(), &end);
  which.pidfd.reset();
  if (which.gave_up.empty()) start(which);
}

void client::revive(bool network) {
  std::lock_guard held(mutex_);
  server& which = network ? networked_ : isolated_;
  if (!stopped_ && which.pidfd && has_ended(which.pidfd.get(), 0)) bury(which);
}

void client::reset() {
  std::lock_guard held(mutex_);
  for (server* which : {&isolated_, &networked_}) {
    which->restarts.clear();
    which->gave_up.clear();
  }
}

client::server& client::server_for(const policy& rules) {
  if (stopped_) throw std::runtime_error("the host has been shut down");
  server& which = rules.granted().needs_network() || rules.granted().learn ? networked_ : isolated_;
  if (!which.gave_up.empty()) throw std::runtime_error(which.gave_up);
  if (!which.control) start(which);
  return which;
}

void client::launch(server& which) {
  std::vector<std::string> environment = {"BULKHEAD_WORKER_USER=" + std::to_string(user_)};
  if (which.network) environment.emplace_back("BULKHEAD_WORKER_NETWORK=1");
  server_process started = start_server(program_, "BULKHEAD_FORK_SERVER_FD", std::move(environment));
  which.control = std::move(started.control);
  which.pid = started.pid;
  which.pidfd = std::move(started.pidfd);
}

spawned client::spawn(const std::vector<int>& fds, const std::vector<std::string>& arguments,
                      std::vector<std::string> environment, const policy& rules) {
  for (const std::string& each : rules.granted().environment) environment.push_back(each);  // that of the policy counts
  request head;
  head.kind = arguments.empty() ? request_kind::spawn_plugin : request_kind::spawn_program;
  head.arguments = static_cast<std::uint32_t>(arguments.size());
  head.strings = static_cast<std::uint32_t>(1 + arguments.size() + environment.size());
  std::string strings = rules.text_without_environment();
  strings.push_back(0);
  for (const auto* list : {&arguments, &std::as_const(environment)})
    for (const std::string& each : *list) strings.append(each.c_str(), std::strlen(each.c_str()) + 1);
  if (strings.size() > strings_limit)
    throw std::runtime_error("policy, arguments and environment of a worker are limited to 64 KiB together");
  head.strings_size = static_cast<std::uint32_t>(strings.size());

  std::lock_guard held(mutex_);
  for (;;) {
    server& which = server_for(rules);
    answer out;
    std::string text;
    unique_fd pidfd;
    if (exchange(which, head, strings, fds, out, text, pidfd)) {
      if (out.refused) throw std::runtime_error(text);
      if (out.error)
        throw std::system_error(out.error, std::generic_category(), "the fork server could not clone a worker");
      {
        std::lock_guard also_held(living_mutex_);
        which.living[pidfd.get()] = out.pid;
      }
      return {std::move(pidfd), out.pid, std::move(text)};
    }
    bury(which);
  }
}

std::string client::examine(const policy& rules) {
  request head;
  head.kind = request_kind::examine;
  head.strings = 1;
  std::string strings = rules.text_without_environment();
  strings.push_back(0);
  head.strings_size = static_cast<std::uint32_t>(strings.size());
  std::lock_guard held(mutex_);
  server& which = server_for(rules);
  answer out;
  std::string text;
  unique_fd none;
  if (!exchange(which, head, strings, {}, out, text, none)) throw std::runtime_error("the fork server does not answer");
  if (out.refused) throw std::runtime_error(text);
  return text;
}

void client::adopt_all(server& which) {
  std::lock_guard held(living_mutex_);
  for (const auto& [pidfd, pid] : which.living) {
    request head;
    head.kind = request_kind::adopt;
    answer unused;
    std::string text;
    unique_fd none;
    exchange(which, head, "", {pidfd}, unused, text, none);
  }
}

bool client::exchange(server& which, const request& head, const std::string& strings, const std::vector<int>& fds,
                      answer& out, std::string& text, unique_fd& pidfd) {
  const ssize_t n = control_message::send<descriptors_limit>(which.control.get(), head, strings, fds);
  if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
  checked(n, "sendmsg");  // something is short; the fork server is well
  if (head.kind == request_kind::adopt) return true;

  pollfd ready{which.control.get(), POLLIN, 0};
  int polled = 0;
  do polled = ::poll(&ready, 1, answer_timeout_ms);
  while (polled < 0 && errno == EINTR);
  if (polled <= 0) return false;
  std::array<char, report_limit> report;
  std::vector<unique_fd> came;
  const auto got = control_message::receive<1>(which.control.get(), out, report, came, MSG_DONTWAIT);
  if (!got.whole || out.magic != magic || out.text_size != got.rest) return false;
  text.assign(report.data(), out.text_size);
  if (got.cut_short && out.pid > 0) {  // no descriptor was free here; nobody else can reap this child
    ::kill(out.pid, SIGKILL);
    ::waitpid(out.pid, nullptr, __WALL);
    throw std::system_error(EMFILE, std::generic_category(), "no descriptor was free for a worker");
  }
  if (!came.empty()) pidfd = std::move(came.front());
  return out.error != 0 || out.refused || pidfd || head.kind == request_kind::examine;
}

void client::forget(int pidfd) {
  std::lock_guard held(living_mutex_);
  isolated_.living.erase(pidfd);
  networked_.living.erase(pidfd);
}

void client::stop() {
  std::lock_guard held(mutex_);
  if (std::exchange(stopped_, true)) return;
  for (server* which : {&isolated_, &networked_}) {
    which->control.reset();  // its end-of-file: the fork server kills what is left and exits
    if (!which->pidfd) continue;
    end_server(which->pidfd.get(), end_timeout_ms);
    if (observer_.ended) observer_.ended(which->network, which->pidfd.get(), nullptr);
    which->pidfd.reset();
  }
}

pid_t client::pid() const {
  std::lock_guard held(mutex_);
  return isolated_.pid;
}

}  // namespace bulkhead::fork_server
