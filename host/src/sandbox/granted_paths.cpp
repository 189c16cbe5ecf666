// See granted_paths.hpp. Paths are walked name by name, so that a place is known also when it is reached by another way.
#include "sandbox/granted_paths.hpp"

#include "sandbox/report_text.hpp"

#include <cerrno>
#include <climits>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>

namespace bulkhead::sandbox {
namespace {

constexpr int links_limit = 40;             // the kernel's own
constexpr std::size_t missing_limit = 600;  // bytes told of what is not there, more or less: a report is short

unique_fd top() { return unique_fd(::open("/", O_PATH | O_CLOEXEC)); }

}  // namespace

granted_paths::granted_paths(const policy::values& granted) : within_(granted.within) {
  for (const auto* list : {&granted.write, &granted.create})
    for (const std::string& path : *list)
      if (struct stat status{}; ::stat(path.c_str(), &status) == 0) changeable_.emplace(status.st_dev, status.st_ino);
}

// `changeable`: whether it begins where there may be links of others.
unique_fd granted_paths::walk(unique_fd from, std::string rest, bool changeable) const {
  unique_fd at = std::move(from);
  for (int links = 0; at && !rest.empty();) {
    const std::size_t slash = rest.find('/');
    const std::string name = rest.substr(0, slash);
    rest.erase(0, slash == std::string::npos ? slash : slash + 1);
    if (name.empty()) continue;
    unique_fd next(::openat(at.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat status {};
    if (!next || ::fstat(next.get(), &status) != 0) return {};
    if (!S_ISLNK(status.st_mode)) {
      changeable |= changeable_.contains({status.st_dev, status.st_ino});
      at = std::move(next);
      continue;
    }
    if (changeable || ++links > links_limit) {
      errno = ELOOP;
      return {};
    }
    char target[PATH_MAX]{};
    if (::readlinkat(next.get(), "", target, sizeof target - 1) <= 0) return {};
    rest = std::string(target) + "/" + rest;
    if (target[0] == '/') at = top();
  }
  return at;
}

unique_fd granted_paths::open(const std::string& path) {
  std::string outer;
  for (const std::string& each : within_)
    if (path.starts_with(each + "/") && (outer.empty() || each.size() < outer.size())) outer = each;
  unique_fd found = walk(top(), outer.empty() ? path : outer, false);
  if (found && !outer.empty()) found = walk(std::move(found), path.substr(outer.size()), true);
  const int error = errno;
  // What profiles grant need not be there: it depends on what is installed.
  static const std::set<std::string> expected = policy::network().granted().read;
  if (!found && error != ELOOP && !expected.contains(path) && missing_.size() < missing_limit)
    missing_ += (missing_.empty() ? "; " + std::string(not_there) : ", ") + path + " (" + std::strerror(error) + ")";
  if (!found && error == ELOOP)
    refused_ +=
        (refused_.empty() ? "; not granted, for the plugin could have made a symbolic link that is in it: " : ", ") +
        path;
  return found;
}

}  // namespace bulkhead::sandbox
