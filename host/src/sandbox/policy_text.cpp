// The text form of a policy, the one form that travels: to the fork server, from manifests, out of learning.
#include <bulkhead/policy.hpp>

#include <charconv>
#include <stdexcept>

namespace bulkhead {
namespace {

std::uint64_t number(std::string_view key, std::string_view text, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most)
    throw std::invalid_argument("policy: " + std::string(key) + ":" + std::string(text) + " is not a number up to " +
                                std::to_string(most));
  return value;
}

constexpr std::string_view level_names[] = {"none", "limited", "confined", "full"};

// 1500 as "1.5".
std::string milli(unsigned value) {
  std::string text = std::to_string(value / 1000) + "." + std::to_string(1000 + value % 1000).substr(1);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

std::string_view to_string(sandbox_level level) { return level_names[static_cast<std::size_t>(level)]; }

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
  if (key == "descriptors") return descriptors(static_cast<unsigned>(number(key, value, 1u << 20)));
  if (key == "cpu") return cpu_limit(std::chrono::milliseconds(number(key, value, UINT32_MAX)));
  if (key == "cpus") {
    double count = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
    if (error != std::errc() || end != value.data() + value.size())
      throw std::invalid_argument("policy: cpus:" + value + " is not a number");
    return cpus(count);
  }
  if (key == "without") return without(value);
  if (key == "within") {
    values_.within.insert(value);
    return *this;
  }
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
  lines("within", v.within);
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
  count("descriptors", v.descriptors, values{}.descriptors);
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

}  // namespace bulkhead
