// See cgroup.hpp. The files and their meaning: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.
#include "sandbox/cgroup.hpp"

#include "sandbox/limits.hpp"
#include "sandbox/own_cgroup.hpp"
#include <bulkhead/ipc/system.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <set>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr const char* controllers[] = {"memory", "pids", "cpu"};
constexpr unsigned period_us = 100'000;
constexpr std::chrono::milliseconds removal_patience{200};

void put(const fs::path& file, const std::string& text) {
  const unique_fd opened(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!opened || ::write(opened.get(), text.data(), text.size()) < 0)
    throw std::system_error(errno, std::generic_category(), file.string());
}

// For what not every kernel has: swap accounting, killing as a group. False where it has not.
bool try_put(const fs::path& file, const std::string& text) {
  try {
    put(file, text);
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

std::set<pid_t> members(const fs::path& directory) {
  std::set<pid_t> out;
  std::istringstream in(contents(directory / "cgroup.procs"));
  for (pid_t each = 0; in >> each;)
    if (each > 0) out.insert(each);  // 0: of a PID namespace that this process does not see
  return out;
}

}  // namespace

// --- one worker's ---------------------------------------------------------------------------------------------------

cgroup::cgroup(bool unified, std::map<std::string, fs::path> directories)
    : unified_(unified), directories_(std::move(directories)) {
  for (const auto& [controller, path] : directories_) {
    if (::mkdir(path.c_str(), 0755) == 0 || errno == EEXIST) continue;
    const int why = errno;
    remove();
    throw std::system_error(why, std::generic_category(), path.string());
  }
}

cgroup::~cgroup() { remove(); }

// Those that were killed take a moment to go. One that hangs in the kernel leaves the cgroup to the next host.
void cgroup::remove() noexcept {
  const auto until = std::chrono::steady_clock::now() + removal_patience;
  for (const auto& [controller, path] : directories_)
    while (::rmdir(path.c_str()) != 0 && errno == EBUSY && std::chrono::steady_clock::now() < until) {
      end_members(path);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void cgroup::end_members(const fs::path& directory) const {
  if (unified_) try_put(directory / "cgroup.kill", "1");  // of Linux 5.14
  // Faster than they can multiply.
  else if (const auto pids = directories_.find("pids"); pids != directories_.end())
    try_put(pids->second / "pids.max", "0");
  std::map<pid_t, unique_fd> held;
  for (const pid_t each : members(directory))
    held.emplace(each, unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, each, 0))));
  // Whoever has such a number now and is in there is who is held, or who is held is no more.
  const auto still = members(directory);
  for (const auto& [pid, fd] : held)
    if (fd && still.contains(pid)) ::syscall(SYS_pidfd_send_signal, fd.get(), SIGKILL, nullptr, 0);
}

bool cgroup::limit(const policy::values& granted) {
  bool swap = true;
  const auto in = [&](const char* controller) { return directories_.at(unified_ ? "" : controller); };
  if (granted.counted_memory) {
    const std::string bytes = std::to_string(granted.memory);
    if (unified_) {
      put(in("memory") / "memory.max", bytes);
      swap = try_put(in("memory") / "memory.swap.max", "0");
      try_put(in("memory") / "memory.oom.group", "1");
    } else {
      put(in("memory") / "memory.limit_in_bytes", bytes);
      swap = try_put(in("memory") / "memory.memsw.limit_in_bytes", bytes);
    }
  }
  if (granted.milli_cpus > 0) {
    const std::string quota = std::to_string(std::uint64_t{granted.milli_cpus} * period_us / 1000);
    if (unified_) {
      put(in("cpu") / "cpu.max", quota + " " + std::to_string(period_us));
    } else {
      put(in("cpu") / "cpu.cfs_period_us", std::to_string(period_us));
      put(in("cpu") / "cpu.cfs_quota_us", quota);
    }
  }
  // Beside RLIMIT_NPROC, which a user may share with others.
  if (granted.threads > 0 && (unified_ || directories_.contains("pids")))
    put(in("pids") / "pids.max", std::to_string(granted.threads));
  return swap;
}

void cgroup::add(pid_t pid) const {
  for (const auto& [controller, path] : directories_) put(path / "cgroup.procs", std::to_string(pid));
}

void cgroup::kill_all() const {
  for (const auto& [controller, path] : directories_) end_members(path);
}

std::vector<unique_fd> cgroup::doors() const {
  std::vector<unique_fd> out;
  for (const auto& [controller, path] : directories_)
    out.emplace_back(checked(::open((path / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC), "open cgroup.procs"));
  return out;
}

bool cgroup::ran_out_of_memory() const {
  const auto found = directories_.find(unified_ ? "" : "memory");
  if (found == directories_.end()) return false;
  std::istringstream in(contents(found->second / (unified_ ? "memory.events" : "memory.oom_control")));
  std::string key;
  for (std::uint64_t value = 0; in >> key >> value;)
    if (key == "oom_kill" && value > 0) return true;
  return false;
}

// --- where they can be made -----------------------------------------------------------------------------------------

// What hosts have left here that were killed, or that had a child which outlived its cgroup's end. One with processes in
// it can't be removed.
void cgroup_maker::remove_left_behind() const {
  for (const auto& [controller, base] : bases_) {
    std::error_code failed;
    for (fs::directory_iterator each(base, failed), end; !failed && each != end; each.increment(failed)) {
      const std::string name = each->path().filename();
      unsigned pid = 0, number = 0;
      if (std::sscanf(name.c_str(), "bulkhead-%u-%u", &pid, &number) != 2) continue;
      if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) ::rmdir(each->path().c_str());
    }
  }
}

void cgroup_maker::find() {
  if (std::exchange(found_, true)) return;
  find_bases();
  remove_left_behind();
}

void cgroup_maker::find_bases() {
  if (!delegated_.empty()) return find_unified(delegated_);
  // A machine with both has its controllers in version 1.
  find_legacy();
  if (!bases_.empty()) return;
  if (const auto unified = cgroup_mounts("cgroup2"); !unified.empty())
    find_unified(unified.front().directory(own_cgroup("")));
  else why_not_ = "no cgroup file system is mounted";
}

fs::path vacate_own_cgroup(const fs::path& files) {
  const auto mounts = cgroup_mounts("cgroup2", files);
  if (mounts.empty()) return {};
  const fs::path own = mounts.front().directory(own_cgroup("", files)), leaf = own / "host";
  const std::string there = contents(own / "cgroup.controllers");
  const auto delegated = [&](const char* each) { return has_word(there, each); };
  if (!std::all_of(std::begin(controllers), std::end(controllers), delegated)) return {};
  if (members(own) != std::set{::getpid()}) return {};
  if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) return {};
  if (try_put(leaf / "cgroup.procs", std::to_string(::getpid()))) return own;
  ::rmdir(leaf.c_str());
  return {};
}

void cgroup_maker::find_unified(const fs::path& base) {
  const std::string there = contents(base / "cgroup.controllers");
  for (const char* each : controllers) {
    if (!has_word(there, each)) {
      why_not_ = "the controller " + std::string(each) + " is not there for " + base.string() +
                 "; delegate it (systemd: Delegate=yes)";
      return;
    }
    if (has_word(contents(base / "cgroup.subtree_control"), each)) continue;
    try {
      put(base / "cgroup.subtree_control", "+" + std::string(each));
    } catch (const std::system_error& e) {
      why_not_ = e.code() == std::errc::device_or_resource_busy
                     ? base.string() +
                           " holds processes itself, this host perhaps; name an empty cgroup that is "
                           "delegated to it in host_options::cgroup"
                     : e.what() + std::string("; delegate a cgroup to this user (systemd: Delegate=yes)");
      return;
    }
  }
  unified_ = true;
  bases_[""] = base;
}

void cgroup_maker::find_legacy() {
  for (const cgroup_mount& each : cgroup_mounts("cgroup"))
    for (const char* controller : controllers)
      if (has_controller(each, controller)) bases_[controller] = each.directory(own_cgroup(controller));
}

bool cgroup_maker::wanted(const policy::values& granted, const sandbox_report& rest) {
  if (wanted(granted) || !granted.subprocesses) return wanted(granted);
  return std::any_of(rest.layers.begin(), rest.layers.end(), [&](const sandbox_layer& each) {
    return (each.name == "pid" && !each.in_force) ||
           (each.name == "limits" && granted.threads > 0 && each.detail.find(threads_not_counted) != std::string::npos);
  });
}

std::unique_ptr<cgroup> cgroup_maker::make(const policy::values& granted, sandbox_layer& layer) {
  layer = {"cgroup", false, ""};
  // Then it was asked for on behalf of the children alone.
  const std::string otherwise = wanted(granted) ? "" : "; so the plugin's children are not counted, or may outlive it";
  std::map<std::string, fs::path> directories;
  bool unified = false;
  {
    std::lock_guard held(mutex_);
    find();
    unified = unified_;
    const std::string name = "bulkhead-" + std::to_string(::getpid()) + "-" + std::to_string(next_++);
    for (const auto& [controller, base] : bases_) {
      const bool needed = unified || (controller == "memory" ? granted.counted_memory
                                      : controller == "cpu"  ? granted.milli_cpus > 0
                                                             : granted.threads > 0 || granted.subprocesses);
      if (needed) directories[controller] = base / name;
    }
    layer.detail = why_not_;
  }
  const auto lacks = [&](const char* controller) { return !unified && !directories.contains(controller); };
  const char* const lacking = granted.counted_memory && lacks("memory") ? "memory"
                              : granted.milli_cpus > 0 && lacks("cpu")  ? "cpu"
                              : !wanted(granted) && lacks("pids")       ? "pids"
                                                                        : nullptr;
  if (layer.detail.empty() && lacking)
    layer.detail = "the controller " + std::string(lacking) + " of cgroup version 1 is not mounted";
  if (!layer.detail.empty()) {
    layer.detail += otherwise;
    return nullptr;
  }
  try {
    auto made = std::make_unique<cgroup>(unified, directories);
    const bool swap = made->limit(granted);
    layer.in_force = true;
    layer.detail = unified ? "version 2" : "version 1";
    if (granted.counted_memory)
      layer.detail +=
          ", memory " + std::to_string(granted.memory >> 20) + " MiB" + (swap ? "" : " (swap is not counted)");
    if (granted.threads > 0 && !lacks("pids")) layer.detail += ", processes " + std::to_string(granted.threads);
    if (granted.milli_cpus > 0) layer.detail += ", CPUs " + std::to_string(granted.milli_cpus / 1000.0).substr(0, 5);
    return made;
  } catch (const std::system_error& e) {
    layer.detail = std::string(e.what()) + "; delegate a cgroup to this user (systemd: Delegate=yes)" + otherwise;
    return nullptr;
  }
}

sandbox_layer cgroup_maker::examine(const policy::values& granted) {
  sandbox_layer layer;
  make(granted, layer);
  return layer;
}

}  // namespace bulkhead::sandbox
