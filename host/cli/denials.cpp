// See denials.hpp.
#include "denials.hpp"

#include "terminal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>

namespace bulkhead::cli {
namespace {

constexpr std::string_view always_readable[] = {"/lib/",           "/lib64/",          "/usr/lib/",      "/usr/lib64/",
                                                "/usr/local/lib/", "/etc/ld.so.cache", "/proc/self/fd/", "/dev/null",
                                                "/dev/zero",       "/dev/urandom",     "/dev/random"};

bool beneath(const std::string& path, const std::string& directory) {
  return path == directory || directory == "/" || path.starts_with(directory + "/");
}

// A file that is nowhere, which plugins look for all the time: nothing was denied.
bool is_nowhere(const violation& what) {
  if (what.result != "ENOENT") return false;
  std::error_code ignored;
  return what.grant.empty() || !std::filesystem::exists(what.grant.substr(what.grant.find(':') + 1), ignored);
}

// A call may fail for want of a grant and not be in the book. Where there may be children there are no signal handlers,
// which report what the filter lets through (sandbox/violation_trap.cpp).
void tell_what_is_reported(bool by_signals) {
#if !defined(__x86_64__)
  by_signals = false;
#endif
  fmt::print(stderr, "{}",
             by_signals ? "Reported are system calls that are not granted, and files and ports that are not.\n"
                        : "Reported are system calls that are not granted, but not files, programs and ports "
                          "that are not.\n");
}

}  // namespace

std::vector<std::string> least_grants(const std::set<std::string>& needed) {
  std::map<std::string, std::set<std::string>> paths;  // by kind
  std::vector<std::string> least;
  for (const std::string& grant : needed) {
    const std::size_t colon = grant.find(':');
    const std::string kind = grant.substr(0, colon);
    if (kind == "read" || kind == "write" || kind == "create") paths[kind].insert(grant.substr(colon + 1));
    else if (grant.find("PORT") == std::string::npos) least.push_back(grant);  // the call that follows names it
  }
  const auto covered = [&](const std::string& path, const std::string& kind) {
    return std::any_of(paths[kind].begin(), paths[kind].end(),
                       [&](const std::string& top) { return beneath(path, top); });
  };
  for (const char* kind : {"read", "write"})
    std::erase_if(paths[kind], [&](const std::string& path) {
      const bool usual = std::any_of(std::begin(always_readable), std::end(always_readable),
                                     [&](std::string_view top) { return path.starts_with(top); });
      return usual || covered(path, "create") || (std::string_view(kind) == "read" && covered(path, "write"));
    });
  for (const auto& [kind, all] : paths)
    for (const std::string& path : all)
      if (std::none_of(all.begin(), all.end(),
                       [&](const std::string& top) { return top != path && beneath(path, top); }))
        least.push_back(std::string(kind).append(":").append(path));
  std::sort(least.begin(), least.end());
  return least;
}

void denial_book::add(const violation& what) {
  std::lock_guard held(mutex_);
  for (entry& each : entries_)
    if (each.first.system_call == what.system_call && each.first.arguments == what.arguments &&
        each.first.result == what.result && each.first.program == what.program) {
      ++each.count;
      return;
    }
  entries_.push_back({what, 1});
}

void denial_book::explain(const policy& had) const {
  std::lock_guard held(mutex_);
  std::vector<entry> entries;
  std::copy_if(entries_.begin(), entries_.end(), std::back_inserter(entries),
               [](const entry& each) { return !is_nowhere(each.first); });
  fmt::print(stderr, "{}\n", entries.empty() ? "No denial was reported." : bold(stream::err, "Denied by the sandbox"));
  for (const auto& [what, count] : entries) {
    fmt::print(stderr, "  {}({})  {}{}\n", what.system_call, what.arguments, red(stream::err, what.result),
               count > 1 ? fmt::format("  {} times", count) : "");
    if (!what.method.empty()) fmt::print(stderr, "      in method {}\n", what.method);
    if (!what.program.empty()) fmt::print(stderr, "      in {}, process {}\n", what.program, what.pid);
    if (what.stack.size() > 1) fmt::print(stderr, "      at {} from {}\n", what.stack[0], what.stack[1]);
    if (what.grant.empty()) fmt::print(stderr, "      no grant allows it\n");
    else if (had.refused({what.grant}).empty())
      fmt::print(stderr,
                 "      {} is granted; what else denies it are rights of the file or what the manifest asks for\n",
                 what.grant);
    else fmt::print(stderr, "      --grant {} would allow it\n", green(stream::err, what.grant));
  }
  if (const bool children = had.granted().subprocesses; entries.empty() || children) tell_what_is_reported(!children);
}

void denial_book::learn(const std::string& plugin) const {
  std::lock_guard held(mutex_);
  std::set<std::string> needed;
  std::vector<std::string> never;
  for (const auto& [what, count] : entries_) {
    if (what.grant.empty()) never.push_back(what.system_call + "(" + what.arguments + ")");
    else needed.insert(what.grant);
  }
  const auto least = least_grants(needed);
  if (least.empty()) {
    fmt::print(stderr, "{}\n", bold(stream::err, plugin + " needs nothing beyond strict."));
  } else {
    fmt::print(stderr, "{}\n", bold(stream::err, "What " + plugin + " needed; review it before you grant it"));
    fmt::print(stderr, "\n# policy.toml\n");
    std::map<std::string, std::vector<std::string>> by_kind;
    for (const std::string& grant : least) {
      const std::size_t colon = grant.find(':');
      by_kind[grant.substr(0, colon)].push_back(colon == std::string::npos ? "" : grant.substr(colon + 1));
    }
    for (const auto& [kind, values] : by_kind) {
      const bool number = kind == "connect" || kind == "bind";
      std::string list;
      for (const std::string& value : values)
        list += (list.empty() ? "" : ", ") + (number ? value : "\"" + value + "\"");
      fmt::print(stderr, "{} = {}\n", kind, values.front().empty() ? "true" : "[" + list + "]");
    }
    fmt::print(stderr, "\n// in the plugin's source\n");
    for (std::size_t i = 0; i < least.size(); ++i)
      fmt::print(stderr, "BULKHEAD_MANIFEST(needs{}, \"request={}\");\n", i + 1, least[i]);
  }
  for (const std::string& each : never) fmt::print(stderr, "\nIt also made a call that no policy grants: {}\n", each);
}

}  // namespace bulkhead::cli
