// See policy.hpp. Profiles and grants, each checked where it is made.
#include "sandbox/syscall_groups.hpp"
#include <bulkhead/policy.hpp>

#include <cmath>
#include <stdexcept>

namespace bulkhead {
namespace {

std::string absolute_path(const std::filesystem::path& path) {
  if (!path.is_absolute()) throw std::invalid_argument("policy: '" + path.string() + "' is not an absolute path");
  if (path.native().find_first_of(std::string_view("\n\0", 2)) != std::string::npos)
    throw std::invalid_argument("policy: a path with a line break or a zero byte in it");
  const std::string text = path.lexically_normal().string();
  return text.size() > 1 && text.ends_with('/') ? text.substr(0, text.size() - 1) : text;
}

}  // namespace

policy policy::files() {
  policy made;
  made.values_.profile = "files";
  made.values_.private_tmp = true;
  for (const char* path : {"/usr/share", "/etc/localtime", "/etc/ssl/certs", "/etc/fonts"}) made.allow_read(path);
  return made;
}

policy policy::network() {
  policy made = files();
  made.values_.profile = "network";
  for (const char* path : {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"})
    made.allow_read(path);
  return made.allow_connect(0);
}

policy policy::program() {
  policy made;
  made.values_.profile = "program";
  made.values_.all_files = true;
  made.values_.subprocesses = true;
  made.values_.threads = 0;
  for (const char* group : {"files-write", "jit", "unix-sockets", "program"}) made.values_.syscalls.insert(group);
  return made;
}

policy& policy::allow_read(const std::filesystem::path& path) {
  values_.read.insert(absolute_path(path));
  return *this;
}

policy& policy::allow_write(const std::filesystem::path& path) {
  values_.write.insert(absolute_path(path));
  return *this;
}

policy& policy::allow_create(const std::filesystem::path& path) {
  values_.create.insert(absolute_path(path));
  return *this;
}

policy& policy::allow_connect(std::uint16_t port) {
  values_.connect.insert(port);
  return *this;
}

policy& policy::allow_bind(std::uint16_t port) {
  values_.bind.insert(port);
  return *this;
}

policy& policy::allow_handles() {
  values_.handles = true;
  return *this;
}

policy& policy::allow_subprocesses() {
  values_.subprocesses = true;
  return *this;
}

policy& policy::allow_syscalls(const std::string& group_or_name) {
  if (!sandbox::known_syscalls(group_or_name))
    throw std::invalid_argument("policy: '" + group_or_name + "' is neither a group of system calls nor one of them");
  if (sandbox::never_granted(group_or_name))
    throw std::invalid_argument("policy: the system call '" + group_or_name + "' is never granted");
  values_.syscalls.insert(group_or_name);
  return *this;
}

policy& policy::environment(const std::string& name, const std::string& value) {
  if (name.empty() || (name + value).find_first_of(std::string_view("\n\0", 2)) != std::string::npos ||
      name.find('=') != std::string::npos)
    throw std::invalid_argument("policy: an environment entry with an impossible name or value: '" + name + "'");
  values_.environment.insert(name + "=" + value);
  return *this;
}

policy& policy::memory_limit(std::size_t bytes) {
  values_.memory = bytes;
  values_.counted_memory = bytes > 0;
  return *this;
}

policy& policy::default_memory_limit(std::size_t bytes) {
  values_.memory = bytes;
  return *this;
}

policy& policy::cpu_limit(std::chrono::nanoseconds time) {
  values_.cpu_ms = static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::milliseconds>(time).count());
  return *this;
}

policy& policy::cpus(double count) {
  if (!(count >= 0.01 && count <= 100'000)) throw std::invalid_argument("policy: cpus must be from 0.01 to 100000");
  values_.milli_cpus = static_cast<unsigned>(std::lround(count * 1000));
  return *this;
}

policy& policy::threads(unsigned count) {
  values_.threads = count;
  return *this;
}

policy& policy::descriptors(unsigned count) {
  if (count < 64) throw std::invalid_argument("policy: a worker takes 64 descriptors at least");
  values_.descriptors = count;
  return *this;
}

policy& policy::file_size_limit(std::size_t bytes) {
  values_.file_size = bytes;
  return *this;
}

policy& policy::kill_on_denial() {
  values_.kill = true;
  return *this;
}

policy& policy::at_least(sandbox_level level) {
  values_.required = level;
  return *this;
}

policy& policy::without(const std::string& layer) {
  // Not the namespaces, which the fork server enters once for all its workers.
  static const std::set<std::string> names = {"limits", "privileges", "root", "pid", "landlock", "seccomp"};
  if (!names.contains(layer)) throw std::invalid_argument("policy: there is no layer '" + layer + "' to be left out");
  values_.without.insert(layer);
  return *this;
}

policy& policy::landlock_abi_at_most(int abi) {
  values_.landlock_abi = abi;
  return *this;
}

policy& policy::explain() {
  values_.explain = true;
  return *this;
}

policy& policy::learn() {
  values_.learn = true;
  return *this;
}

}  // namespace bulkhead
