// See server_client.hpp. A child says on a pipe which step failed; execve() closes that pipe, so its end-of-file is success.
#include "process/server_client.hpp"

#include "control_message.hpp"

#include <boost/system/system_error.hpp>

#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

namespace bulkhead::process {
namespace {

constexpr std::array kinds = {"plain", "isolated", "networked"};
constexpr int dying_ms = 100, end_ms = 1000;
constexpr unsigned successors_limit = 10;  // of a server that can't live, say

[[noreturn]] void fail(int error, const std::string& what) {
  throw boost::system::system_error(error, boost::system::system_category(), what);
}

[[noreturn]] void fail_at(const failure& what, const spawn_request& wanted) {
  const std::string start = "spawn " + wanted.file + ": ";
  switch (what.step) {
    case step::directory: fail(what.error, start + "chdir to " + wanted.directory);
    case step::identity: fail(what.error, start + "changing user or group");
    case step::session: fail(what.error, start + "setsid or setpgid");
    case step::streams: fail(what.error, start + "placing its descriptors");
    case step::sandbox: fail(what.error, start + "entering its sandbox");
    case step::execute: break;
  }
  std::string hint;
  if (what.error == ENOEXEC) hint = " (no program, and no #! line)";
  if (what.error == ENOENT && wanted.file.find('/') != std::string::npos && ::access(wanted.file.c_str(), F_OK) == 0)
    hint = wanted.policy ? " (the interpreter that it names is not there, or not granted)"
                         : " (the interpreter that it names is not there)";
  fail(what.error, start + "execve" + hint);
}

unique_fd in_memfd(const std::string& text) {
  unique_fd file(checked(::memfd_create("bulkhead-spawn", MFD_CLOEXEC), "memfd_create"));
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(file.get(), text.data() + done, text.size() - done);
    done += static_cast<std::size_t>(checked(n, "write(memfd)"));
  }
  return file;
}

}  // namespace

server_client::server_client(const std::filesystem::path& configured, unsigned user)
    : program_(fork_server::find_worker_program(configured)), user_(user) {}

void server_client::start(std::size_t which) {
  server& made = servers_[which];
  std::vector<std::string> environment = {std::string("BULKHEAD_PROCESS_SERVER=") + kinds[which % kinds.size()],
                                          "BULKHEAD_WORKER_USER=" + std::to_string(user_)};
  if (which >= kinds.size()) environment.emplace_back("BULKHEAD_PROCESS_SERVER_DETACHED=1");
  made.process = fork_server::start_server(program_, "BULKHEAD_PROCESS_SERVER_FD", std::move(environment));
  for (auto& [pidfd, child] : made.living) {
    child.adopted = true;
    request head;
    head.kind = request_kind::adopt;
    head.pid = child.pid;
    head.flags = child.flags;
    answer unused;
    std::string text;
    unique_fd none;
    exchange(made, head, "", {pidfd}, unused, text, none);
  }
}

// Its children live on: another server is told of them.
void server_client::bury(server& dead) {
  fork_server::end_server(dead.process.pidfd.get(), dying_ms);
  dead.process = {};
}

spawned_child server_client::spawn(const spawn_request& wanted) {
  request head;
  head.flags = wanted.flags;
  head.user = wanted.user;
  head.group = wanted.group;
  head.pid = ::getpgrp();
  head.streams = static_cast<std::uint32_t>(wanted.streams.size());
  head.cgroups = static_cast<std::uint32_t>(wanted.cgroups.size());
  head.arguments = static_cast<std::uint32_t>(wanted.arguments.size());
  head.environment = static_cast<std::uint32_t>(wanted.environment.size());
  std::string strings;
  const auto add = [&](const std::string& text) { strings.append(text.c_str(), std::strlen(text.c_str()) + 1); };
  if (wanted.policy) add(wanted.policy->text_without_environment());
  add(wanted.file);
  add(wanted.directory);
  for (const std::string& each : wanted.arguments) add(each);
  for (const std::string& each : wanted.environment) add(each);
  head.strings_size = strings.size();

  int ends[2];
  checked(::pipe2(ends, O_CLOEXEC), "pipe2");
  const unique_fd failures(ends[0]);
  unique_fd theirs(ends[1]);
  std::vector<int> fds = {theirs.get()};
  fds.push_back(wanted.end);
  if (wanted.policy) fds.push_back(wanted.reports);
  fds.insert(fds.end(), wanted.cgroups.begin(), wanted.cgroups.end());
  fds.insert(fds.end(), wanted.streams.begin(), wanted.streams.end());
  unique_fd memfd;
  if (strings.size() > inline_limit) {
    memfd = in_memfd(strings);
    fds.push_back(memfd.get());
    head.flags |= strings_in_memfd;
    strings.clear();
  }

  spawned_child made;
  {
    std::lock_guard held(mutex_);
    if (stopped_) throw std::runtime_error("the launcher has been shut down");
    const auto* rules = wanted.policy ? &wanted.policy->granted() : nullptr;
    const std::size_t kind = !rules ? 0 : rules->needs_network() || rules->learn ? 2 : 1;
    const std::size_t which = kind + (head.flags & detached ? kinds.size() : 0);
    server& with = servers_[which];
    answer out;
    std::string text;
    bool told = false;
    for (int attempt = 0; attempt < 2 && !told; ++attempt) {
      if (!with.process.control) start(which);
      told = exchange(with, head, strings, fds, out, text, made.pidfd);
      if (!told) bury(with);
    }
    if (!told) throw std::runtime_error("spawn " + wanted.file + ": the process server died, twice");
    with.successors = 0;
    if (out.refused) throw std::runtime_error("spawn " + wanted.file + ": " + text);
    const char* const place = wanted.flags & own_pid_namespace && !wanted.policy ? " in a PID namespace" : "";
    if (out.error) fail(out.error, "spawn " + wanted.file + ": making a process" + place);
    made.pid = out.pid;
    made.layers = std::move(text);
    made.uncounted = out.uncounted != 0;
    if (made.uncounted) return made;
    if (!made.pidfd) {  // no descriptor was free here for it
      kill(with, made.pid);
      fail(EMFILE, "spawn " + wanted.file + ": a pidfd");
    }
    if (!(head.flags & detached)) with.living[made.pidfd.get()] = {made.pid, head.flags};
  }
  theirs.reset();  // its other copies are the child's
  failure what;
  ssize_t n = 0;
  do n = ::read(failures.get(), &what, sizeof what);
  while (n < 0 && errno == EINTR);
  if (n == 0) return made;
  forget(made.pidfd.get());
  fail_at(what, wanted);
}

bool server_client::exchange(server& with, const request& head, const std::string& strings, const std::vector<int>& fds,
                             answer& out, std::string& text, unique_fd& pidfd) {
  const int socket = with.process.control.get();
  if (control_message::send<descriptors_limit>(socket, head, strings, fds) < 0) return false;
  if (head.kind != request_kind::spawn) return true;

  // It answers, or dies: to execute a program takes as long as its file system does.
  std::array<char, 16384> report;
  std::vector<unique_fd> came;
  const auto got = control_message::receive<1>(socket, out, report, came);
  if (!got.whole || out.magic != magic || out.text_size != got.rest) return false;
  text.assign(report.data(), out.text_size);
  if (!came.empty()) pidfd = std::move(came.front());
  return true;
}

void server_client::kill(server& with, pid_t pid) {
  request head;
  head.kind = request_kind::kill;
  head.pid = pid;
  answer unused;
  std::string text;
  unique_fd none;
  exchange(with, head, "", {}, unused, text, none);
}

void server_client::disown(int pidfd, pid_t pid) {
  std::lock_guard held(mutex_);
  for (server& each : servers_) {
    if (const auto found = each.living.find(pidfd); found != each.living.end() && found->second.pid == pid)
      each.living.erase(found);
    if (each.process.control) kill(each, pid);
  }
}

void server_client::forget(int pidfd) {
  std::lock_guard held(mutex_);
  for (server& each : servers_) each.living.erase(pidfd);
}

unique_fd server_client::replace_server_of(int pidfd) noexcept {
  std::lock_guard held(mutex_);
  if (stopped_) return {};
  for (std::size_t which = 0; which < servers_.size(); ++which) {
    server& its = servers_[which];
    const auto found = its.living.find(pidfd);
    if (found == its.living.end()) continue;
    const bool replaced = found->second.adopted && its.process.control;
    if (!replaced || fork_server::has_ended(its.process.pidfd.get(), 0)) {
      if (its.process.control) bury(its);
      if (++its.successors > successors_limit) return {};
      try {
        start(which);
      } catch (const std::exception&) {  // no descriptor is free, say
        return {};
      }
    }
    return unique_fd(::fcntl(its.process.pidfd.get(), F_DUPFD_CLOEXEC, 0));
  }
  return {};
}

void server_client::stop() {
  std::lock_guard held(mutex_);
  if (std::exchange(stopped_, true)) return;
  for (server& each : servers_) {
    if (!each.process.control) continue;
    each.process.control.reset();  // its end-of-file: the server kills what is left and exits
    fork_server::end_server(each.process.pidfd.get(), end_ms);
    each.process = {};
  }
}

pid_t server_client::pid() const {
  std::lock_guard held(mutex_);
  return servers_[0].process.pid;
}

}  // namespace bulkhead::process
