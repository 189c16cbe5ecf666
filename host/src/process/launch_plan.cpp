// See launch_plan.hpp.
#include "process/launch_plan.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include <unistd.h>

namespace bulkhead::process {
namespace {

namespace fs = std::filesystem;

void check(const std::string& text, const char* what) {
  if (text.find('\0') != std::string::npos)
    throw std::invalid_argument(std::string("spawn: ") + what + " with a zero byte in it");
}

std::string_view name_of(std::string_view variable) { return variable.substr(0, variable.find('=')); }

// As the child will find it; the name itself when it won't. Relative names are those of `directory`.
std::string resolved(const std::string& file, const std::vector<std::string>& environment, const fs::path& directory) {
  std::error_code ignored;
  if (file.find('/') != std::string::npos) return fs::absolute(directory / file, ignored).string();
  std::string path = "/usr/local/bin:/usr/bin:/bin";
  for (const std::string& each : environment)
    if (name_of(each) == "PATH") path = each.substr(5);
  std::istringstream places(path);
  for (std::string place; std::getline(places, place, ':');)
    if (const fs::path candidate = directory / (place.empty() ? "." : place) / file;
        ::access(candidate.c_str(), X_OK) == 0 && !fs::is_directory(candidate, ignored))
      return fs::absolute(candidate, ignored).string();
  return file;
}

// What a program needs to begin: its own file, and if that is a script, the interpreter's.
void grant_start(policy& rules, const std::string& file, const std::vector<std::string>& environment,
                 const fs::path& directory, int depth = 0) {
  if (!file.starts_with('/') || depth > 3) return;
  rules.allow_read(file);
  std::ifstream in(file, std::ios::binary);
  std::string line;
  if (in.get() != '#' || in.get() != '!' || !std::getline(in, line) || line.size() > 255) return;
  std::istringstream words(line);
  std::string interpreter, argument;
  words >> interpreter >> argument;
  grant_start(rules, interpreter, environment, directory, depth + 1);
  if (fs::path(interpreter).filename() == "env" && !argument.empty() && argument[0] != '-')
    grant_start(rules, resolved(argument, environment, directory), environment, directory, depth + 1);
}

}  // namespace

std::vector<std::string> environment_of(const process_options& options) {
  std::vector<std::string> out;
  if (options.env) out = *options.env;
  else
    for (char** each = environ; *each; ++each) out.emplace_back(*each);
  for (const std::string& added : options.add_env) {
    std::erase_if(out, [&](const std::string& each) { return name_of(each) == name_of(added); });
    out.push_back(added);
  }
  return out;
}

spawn_request plan(const std::string& file, const std::vector<std::string>& arguments, const process_options& options) {
  if (file.empty()) throw std::invalid_argument("spawn: the file's name is empty");
  if (options.streams.size() < 3 || options.streams.size() > streams_limit)
    throw std::invalid_argument(
        "spawn: process_options::streams must have from 3 to 64 entries, beginning with 0, 1, 2");
  if (options.policy && (options.uid || options.gid))
    throw std::invalid_argument("spawn: with a policy the user can't be chosen; see launcher_options::worker_user");
  spawn_request out;
  out.environment = environment_of(options);
  out.file = file;
  out.arguments.push_back(options.argv0.empty() ? file : options.argv0);
  out.arguments.insert(out.arguments.end(), arguments.begin(), arguments.end());
  check(file, "a file's name");
  for (const std::string& each : out.arguments) check(each, "an argument");
  for (const std::string& each : out.environment) {
    check(each, "a variable");
    if (each.find('=') == std::string::npos || each[0] == '=')
      throw std::invalid_argument("spawn: '" + each + "' in the environment is not NAME=value");
  }
  std::error_code ignored;  // an application whose own directory is gone starts children there all the same
  if (!options.directory.empty()) out.directory = fs::absolute(options.directory, ignored).string();
  else if (!options.policy) out.directory = fs::current_path(ignored).string();
  check(out.directory, "a directory");
  out.user = options.uid.value_or(0);
  out.group = options.gid.value_or(0);
  const bool namespaced = options.policy || options.scope == kill_scope::pid_namespace;
  out.flags = (options.uid ? has_user : 0u) | (options.gid ? has_group : 0u) | (options.detached ? detached : 0u) |
              (options.scope != kill_scope::child ? own_process_group : 0u) | (options.policy ? sandboxed : 0u) |
              (namespaced ? own_pid_namespace : 0u);
  if (options.policy) {
    out.policy = options.policy;
    out.policy->allow_subprocesses().allow_syscalls("program");
    out.file = resolved(file, out.environment, options.directory);
    grant_start(*out.policy, out.file, out.environment, options.directory);
    if (const unsigned threads = out.policy->granted().threads) out.policy->threads(threads + 1);  // its init
    for (const std::string& each : out.policy->granted().environment) out.environment.push_back(each);
  }
  return out;
}

}  // namespace bulkhead::process
