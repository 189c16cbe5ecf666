// See policy.hpp. The text form is the one form that travels: to the fork server, from manifests, out of learning.
#include "sandbox/syscall_groups.hpp"
#include <bulkhead/policy.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
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

std::uint64_t number(std::string_view key, std::string_view text, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most)
    throw std::invalid_argument("policy: " + std::string(key) + ":" + std::string(text) + " is not a number up to " +
                                std::to_string(most));
  return value;
}

// Whether `path` lies beneath one of `granted`.
bool covered(const std::set<std::string>& granted, const std::string& path) {
  return std::any_of(granted.begin(), granted.end(), [&](const std::string& top) {
    return path == top || top == "/" || (path.size() > top.size() && path.starts_with(top) && path[top.size()] == '/');
  });
}

bool covered(const std::set<std::uint16_t>& granted, std::uint16_t port) {
  return granted.contains(0) || granted.contains(port);
}

constexpr std::string_view level_names[] = {"none", "limited", "confined", "full"};

}  // namespace

std::string_view to_string(sandbox_level level) { return level_names[static_cast<std::size_t>(level)]; }

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
  static const std::set<std::string> names = {"limits", "privileges", "namespaces", "root",
                                              "pid",    "landlock",   "seccomp"};
  if (!names.contains(layer)) throw std::invalid_argument("policy: there is no layer '" + layer + "'");
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

policy& policy::add(std::string_view line) {
  const std::size_t colon = line.find(':');
  const std::string_view key = line.substr(0, colon);
  const bool has_value = colon != std::string_view::npos;
  const std::string value(has_value ? line.substr(colon + 1) : "");
  const auto flag = [&](bool& field) {
    if (has_value) throw std::invalid_argument("policy: '" + std::string(key) + "' takes no value");
    field = true;
  };
  if (key == "read") return allow_read(value);
  if (key == "write") return allow_write(value);
  if (key == "create") return allow_create(value);
  if (key == "connect") return allow_connect(static_cast<std::uint16_t>(number(key, value, 65535)));
  if (key == "bind") return allow_bind(static_cast<std::uint16_t>(number(key, value, 65535)));
  if (key == "syscalls") return allow_syscalls(value);
  if (key == "memory") return memory_limit(number(key, value, UINT64_MAX));
  if (key == "filesize") return file_size_limit(number(key, value, UINT64_MAX));
  if (key == "threads") return threads(static_cast<unsigned>(number(key, value, 1u << 20)));
  if (key == "cpu") return cpu_limit(std::chrono::milliseconds(number(key, value, UINT32_MAX)));
  if (key == "cpus") {
    double count = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
    if (error != std::errc() || end != value.data() + value.size())
      throw std::invalid_argument("policy: cpus:" + value + " is not a number");
    return cpus(count);
  }
  if (key == "without") return without(value);
  if (key == "landlock-abi") return landlock_abi_at_most(static_cast<int>(number(key, value, 1000)));
  if (key == "environment") {
    const std::size_t equals = value.find('=');
    if (equals == std::string::npos) throw std::invalid_argument("policy: environment:" + value + " has no '='");
    return environment(value.substr(0, equals), value.substr(equals + 1));
  }
  if (key == "level") {
    for (std::size_t i = 0; i < std::size(level_names); ++i)
      if (value == level_names[i]) return at_least(static_cast<sandbox_level>(i));
    throw std::invalid_argument("policy: level:" + value + " is not none, limited, confined or full");
  }
  if (key == "profile") {
    const values before = values_;
    if (value == "strict") *this = strict();
    else if (value == "files") *this = files();
    else if (value == "network") *this = network();
    else if (value == "program") *this = program();
    else throw std::invalid_argument("policy: profile:" + value + " is not strict, files, network or program");
    if (!(before == values{})) throw std::invalid_argument("policy: a profile has to come first");
    return *this;
  }
  if (key == "handles") flag(values_.handles);
  else if (key == "subprocesses") flag(values_.subprocesses);
  else if (key == "kill") flag(values_.kill);
  else if (key == "explain") flag(values_.explain);
  else if (key == "learn") flag(values_.learn);
  else if (key == "all-files") flag(values_.all_files);
  else if (key == "private-tmp") flag(values_.private_tmp);
  else throw std::invalid_argument("policy: there is no grant '" + std::string(key) + "'");
  return *this;
}

namespace {
// 1500 as "1.5".
std::string milli(unsigned value) {
  std::string text = std::to_string(value / 1000) + "." + std::to_string(1000 + value % 1000).substr(1);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}
}  // namespace

std::string policy::to_text() const {
  std::string text;
  const auto line = [&](const std::string& what) { text += what + "\n"; };
  const auto lines = [&](const char* key, const std::set<std::string>& all) {
    for (const std::string& each : all) line(std::string(key) + ":" + each);
  };
  const auto count = [&](const char* key, std::uint64_t value, std::uint64_t usual) {
    if (value != usual) line(std::string(key) + ":" + std::to_string(value));
  };
  const auto flag = [&](const char* key, bool value) {
    if (value) line(key);
  };
  const values& v = values_;
  lines("read", v.read);
  lines("write", v.write);
  lines("create", v.create);
  for (const auto port : v.connect) line("connect:" + std::to_string(port));
  for (const auto port : v.bind) line("bind:" + std::to_string(port));
  lines("syscalls", v.syscalls);
  lines("environment", v.environment);
  flag("handles", v.handles);
  flag("subprocesses", v.subprocesses);
  flag("all-files", v.all_files);
  flag("private-tmp", v.private_tmp);
  count("memory", v.memory, 0);
  count("cpu", v.cpu_ms, 0);
  count("threads", v.threads, values{}.threads);
  if (v.milli_cpus > 0) line("cpus:" + milli(v.milli_cpus));
  count("filesize", v.file_size, 0);
  flag("kill", v.kill);
  flag("explain", v.explain);
  flag("learn", v.learn);
  lines("without", v.without);
  count("landlock-abi", static_cast<std::uint64_t>(v.landlock_abi), 1000);
  if (v.required != sandbox_level::confined) line("level:" + std::string(to_string(v.required)));
  return text;
}

policy policy::from_text(std::string_view text) {
  policy made;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    if (!line.empty()) made.add(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return made;
}

namespace {

// Whether one request, in text form, is within what `most` grants.
bool allows(const policy::values& most, const policy::values& asked) {
  const auto paths = [&](const std::set<std::string>& wanted, auto... granted) {
    return std::all_of(wanted.begin(), wanted.end(),
                       [&](const std::string& path) { return (covered(*granted, path) || ...); });
  };
  const auto ports = [](const std::set<std::uint16_t>& wanted, const std::set<std::uint16_t>& granted) {
    return std::all_of(wanted.begin(), wanted.end(), [&](std::uint16_t port) { return covered(granted, port); });
  };
  const policy::values unlimited;
  return (most.all_files || paths(asked.read, &most.read, &most.write, &most.create)) &&
         paths(asked.write, &most.write, &most.create) && paths(asked.create, &most.create) &&
         ports(asked.connect, most.connect) && ports(asked.bind, most.bind) && (!asked.handles || most.handles) &&
         (!asked.subprocesses || most.subprocesses) &&
         std::includes(most.syscalls.begin(), most.syscalls.end(), asked.syscalls.begin(), asked.syscalls.end()) &&
         (most.memory == 0 || asked.memory <= most.memory) &&
         (asked.threads == unlimited.threads || most.threads == 0 || asked.threads <= most.threads);
}

std::optional<policy> parsed(const std::string& request) {
  // Only what a plugin may ask for; the rest is the host's business.
  static constexpr std::string_view keys[] = {"read",     "write",  "create",  "connect", "bind",
                                              "syscalls", "memory", "threads", "handles", "subprocesses"};
  const std::string_view key = std::string_view(request).substr(0, request.find(':'));
  if (std::find(std::begin(keys), std::end(keys), key) == std::end(keys)) return std::nullopt;
  try {
    return policy{}.add(request);
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

}  // namespace

policy policy::intersect(const std::vector<std::string>& requests) const {
  policy made = *this;
  values& v = made.values_;
  v.read.clear();
  v.write.clear();
  v.create.clear();
  v.connect.clear();
  v.bind.clear();
  v.syscalls.clear();
  v.handles = v.subprocesses = v.all_files = false;
  for (const std::string& request : requests) {
    const auto asked = parsed(request);
    const std::string_view key = std::string_view(request).substr(0, request.find(':'));
    if (!asked || key == "memory" || key == "threads") continue;  // limits are the host's to set
    if (allows(values_, asked->granted())) made.add(request);
  }
  return made;
}

std::vector<std::string> policy::refused(const std::vector<std::string>& requests) const {
  std::vector<std::string> list;
  for (const std::string& request : requests) {
    const auto asked = parsed(request);
    if (!asked || !allows(values_, asked->granted())) list.push_back(request);
  }
  return list;
}

std::vector<std::string> policy::unasked(const std::vector<std::string>& requests) const {
  const std::string kept = "\n" + intersect(requests).to_text();
  std::vector<std::string> list;
  std::istringstream grants(to_text());
  for (std::string line; std::getline(grants, line);)
    if (kept.find("\n" + line + "\n") == std::string::npos) list.push_back(line);
  return list;
}

}  // namespace bulkhead
