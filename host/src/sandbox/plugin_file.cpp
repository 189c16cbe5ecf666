// See plugin_file.hpp.
#include "sandbox/plugin_file.hpp"

#include "sandbox/sha256.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <linux/openat2.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

namespace bulkhead::sandbox {
namespace {

constexpr std::uint64_t size_limit = std::uint64_t{512} << 20;
constexpr std::size_t copies_kept = 64;

[[noreturn]] void refuse(const std::string& what, const std::string& why) {
  throw std::runtime_error(what + " " + why);
}

// Who may have a hand in the host already: root, the host's own user, and whoever owns the program that is running.
struct trusted {
  std::vector<uid_t> users = {0, ::geteuid()};
  trusted() {
    struct stat program {};
    if (::stat("/proc/self/exe", &program) == 0) users.push_back(program.st_uid);
  }
  bool owns(const struct stat& of) const { return std::find(users.begin(), users.end(), of.st_uid) != users.end(); }
};

// Whether its group has nobody but its owner: root's, or one as Debian makes for each user, which bears the user's name.
bool group_is_private(const struct stat& of) {
  if (of.st_gid == 0) return true;
  std::vector<char> names(std::size_t{16} << 10), members(std::size_t{64} << 10);
  passwd user{}, *owner = nullptr;
  group its{}, *found = nullptr;
  if (::getpwuid_r(of.st_uid, &user, names.data(), names.size(), &owner) != 0 || !owner ||
      ::getgrgid_r(of.st_gid, &its, members.data(), members.size(), &found) != 0 || !found)
    return false;
  const std::string_view name = owner->pw_name;
  if (owner->pw_gid != of.st_gid || found->gr_name != name) return false;
  for (char** each = found->gr_mem; *each; ++each)
    if (*each != name) return false;
  return true;
}

// Whether others than its owner and its group have rights of their own; then the mode's for the group are the most that
// any of them has.
bool has_access_list(int fd) {
  const std::string name = "/proc/self/fd/" + std::to_string(fd);  // fgetxattr() takes none of O_PATH
  return ::getxattr(name.c_str(), "system.posix_acl_access", nullptr, 0) >= 0 ||
         (errno != ENODATA && errno != EOPNOTSUPP);
}

void check_writers(const std::string& what, int fd, const trusted& allowed) {
  struct stat of {};
  checked(::fstat(fd, &of), "fstat");
  if (!allowed.owns(of))
    refuse(what, "belongs to another user (" + std::to_string(of.st_uid) + "), who could change it at any time");
  // In a sticky directory only the owner of an entry can replace it, and the entry's owner is checked as well.
  if (S_ISDIR(of.st_mode) && (of.st_mode & S_ISVTX)) return;
  if (of.st_mode & S_IWOTH) refuse(what, "can be written to by everybody: chmod o-w");
  if (!(of.st_mode & S_IWGRP)) return;
  if (has_access_list(fd)) refuse(what, "can be written to by whom its access list names: setfacl -b, or chmod g-w");
  if (!group_is_private(of))
    refuse(what, "can be written to by a group (" + std::to_string(of.st_gid) + ") that others may be in: chmod g-w");
}

unique_fd open_without_links(const std::string& path) {
  constexpr std::uint64_t flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
  open_how how{};
  how.flags = flags;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  unique_fd fd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
  if (!fd && (errno == ENOSYS || errno == EPERM))
    fd.reset(::open(path.c_str(), static_cast<int>(flags)));  // an old filter
  if (!fd)
    refuse(path, errno == ELOOP ? "is a symbolic link" : std::string("can't be opened: ") + std::strerror(errno));
  return fd;
}

// Of the directories the names are resolved first, then nothing in them may be a link when the file is opened.
std::string resolved(const std::filesystem::path& file) {
  std::error_code failure;
  const auto directory = std::filesystem::canonical(std::filesystem::absolute(file).parent_path(), failure);
  if (failure) refuse(file.string(), "can't be opened: " + failure.message());
  return (directory / file.filename()).string();
}

void check_directories(const std::filesystem::path& file, const trusted& allowed) {
  for (auto at = file.parent_path();; at = at.parent_path()) {
    const unique_fd opened(::open(at.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!opened) refuse(at.string(), std::string("can't be looked at: ") + std::strerror(errno));
    check_writers(at.string(), opened.get(), allowed);
    if (at == at.parent_path()) return;
  }
}

std::shared_ptr<const plugin_file> copy_of(int file, const std::string& name, std::uint64_t size) {
  auto made = std::make_shared<plugin_file>();
  made->copy.reset(checked(::memfd_create("bulkhead-plugin", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  sha256 hash;
  std::vector<std::uint8_t> chunk(std::size_t{64} << 10);
  std::uint64_t done = 0;
  for (;;) {
    const ssize_t n = ::pread(file, chunk.data(), chunk.size(), static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(name, std::string("can't be read: ") + std::strerror(errno));
    if (n == 0) break;
    done += static_cast<std::uint64_t>(n);
    if (done > size) refuse(name, "grew while it was read");
    hash.add({chunk.data(), static_cast<std::size_t>(n)});
    for (ssize_t written = 0; written < n;)
      written += checked(::write(made->copy.get(), chunk.data() + written, static_cast<std::size_t>(n - written)),
                         "write to a memfd");
  }
  checked(::fcntl(made->copy.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL),
          "fcntl(F_ADD_SEALS)");
  made->sha256 = hash.finish();
  return made;
}

}  // namespace

std::shared_ptr<const plugin_file> plugin_files::open(const std::filesystem::path& file) {
  const std::string path = resolved(file);
  const unique_fd opened = open_without_links(path);
  struct stat status {};
  checked(::fstat(opened.get(), &status), "fstat");
  if (!S_ISREG(status.st_mode)) refuse(path, "is not a regular file");
  if (static_cast<std::uint64_t>(status.st_size) > size_limit) refuse(path, "is larger than 512 MiB");
  const trusted allowed;
  check_writers(path, opened.get(), allowed);
  check_directories(path, allowed);

  std::string identity;
  for (const auto part : {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
                          static_cast<std::uint64_t>(status.st_size), static_cast<std::uint64_t>(status.st_ctim.tv_sec),
                          static_cast<std::uint64_t>(status.st_ctim.tv_nsec)})
    identity += std::to_string(part) + " ";
  std::lock_guard held(mutex_);
  for (auto at = known_.begin(); at != known_.end(); ++at)
    if (at->identity == identity) {
      known_.splice(known_.begin(), known_, at);
      return at->file;
    }
  auto copy = copy_of(opened.get(), path, static_cast<std::uint64_t>(status.st_size));
  // A change within the clock's tick would not show.
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec - status.st_ctim.tv_sec < 2) return copy;
  known_.push_front({identity, std::move(copy)});
  if (known_.size() > copies_kept) known_.pop_back();
  return known_.front().file;
}

}  // namespace bulkhead::sandbox
