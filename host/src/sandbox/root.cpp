// See root.hpp. Sources are cloned as detached mounts before anything is mounted, so that no mount point of ours can
// hide a granted path. Then the root goes up over some directory that exists, and pivot_root makes it the only one.
#include "sandbox/root.hpp"

#include "sandbox/granted_paths.hpp"
#include "sandbox/library_roots.hpp"

#include <algorithm>
#include <climits>
#include <vector>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace bulkhead::sandbox {
namespace {

constexpr std::size_t library_limit = std::size_t{512} << 20;

struct source {
  std::string path;  // absolute, the same inside and outside
  std::string link;  // its target, when it is a symbolic link that is copied as such
  unique_fd tree;    // the detached mount
  bool directory = false;
  std::uint64_t attributes = 0;
};

struct attributes_of {
  static constexpr std::uint64_t read_only = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  static constexpr std::uint64_t writable = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  static constexpr std::uint64_t device = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
};

void set_attributes(int mount, std::uint64_t attributes) {
  mount_attr wanted{};
  wanted.attr_set = attributes;
  wanted.propagation = MS_PRIVATE;  // what the host mounts in there later would come without these attributes
  checked(::mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &wanted, sizeof wanted), "mount_setattr");
}

// `place` is what is there; none: nothing to be seen.
void collect(std::vector<source>& list, const std::string& path, const unique_fd& place, std::uint64_t attributes) {
  if (!place) return;
  source made{path, "", {}, false, attributes};
  made.tree.reset(::open_tree(place.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH));
  if (!made.tree) throw_errno("open_tree " + path);
  struct stat status {};
  made.directory = ::fstat(made.tree.get(), &status) == 0 && S_ISDIR(status.st_mode);
  set_attributes(made.tree.get(), attributes);
  list.push_back(std::move(made));
}

unique_fd followed(const char* path) { return unique_fd(::open(path, O_PATH | O_CLOEXEC)); }

std::vector<source> collect_all(const policy::values& granted, granted_paths& paths) {
  std::vector<source> list;
  for (const std::string& path : library_roots()) {
    char target[PATH_MAX]{};
    if (::readlink(path.c_str(), target, sizeof target - 1) > 0) list.push_back({path, target, {}, false, 0});
    else collect(list, path, followed(path.c_str()), attributes_of::read_only);
  }
  for (const char* path : harmless_devices) collect(list, path, followed(path), attributes_of::device);
#ifdef BULKHEAD_SANITIZED
  collect(list, "/proc", followed("/proc"), MOUNT_ATTR_NOSUID);  // a sanitizer's runtime reads /proc/self/maps
#endif
  for (const std::string& path : granted.read) collect(list, path, paths.open(path), attributes_of::read_only);
  for (const std::string& path : granted.write) collect(list, path, paths.open(path), attributes_of::writable);
  for (const std::string& path : granted.create) collect(list, path, paths.open(path), attributes_of::writable);
  // Parents before what lies in them.
  std::stable_sort(list.begin(), list.end(), [](const source& a, const source& b) { return a.path < b.path; });
  return list;
}

// What is at `path` in the new root, whose links lead nowhere else: what is mounted there already may change meanwhile.
unique_fd there(int root, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT;
  return unique_fd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

// The same, made if there is nothing.
unique_fd mount_point(int root, const std::string& path, bool directory) {
  if (unique_fd found = there(root, path)) return found;
  const std::size_t slash = path.rfind('/');
  const unique_fd parent = slash == 0 ? there(root, "/") : mount_point(root, path.substr(0, slash), true);
  const char* name = path.c_str() + slash + 1;
  const auto made = directory ? ::mkdirat(parent.get(), name, 0755) : ::mknodat(parent.get(), name, S_IFREG | 0644, 0);
  checked(made, ("make " + path).c_str());
  return unique_fd(checked(there(root, path).release(), ("open " + path).c_str()));
}

void place(int root, const source& each) {
  if (each.path == "/") throw std::system_error(EINVAL, std::generic_category(), "a root with all of / in it");
  if (each.link.empty()) {
    const unique_fd point = mount_point(root, each.path, each.directory);
    checked(::move_mount(each.tree.get(), "", point.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
            "move_mount");
    return;
  }
  const std::size_t slash = each.path.rfind('/');
  if (slash > 0) mount_point(root, each.path.substr(0, slash), true);
  if (::symlinkat(each.link.c_str(), root, each.path.c_str() + 1) != 0 && errno != EEXIST)
    throw_errno("symlink " + each.path);
}

void copy_library(int root, int library) {
  struct stat status {};
  checked(::fstat(library, &status), "fstat");
  if (static_cast<std::size_t>(status.st_size) > library_limit)
    throw std::system_error(EFBIG, std::generic_category(), "the plugin's file");
  const unique_fd copy(
      checked(::openat(root, library_in_root + 1, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555), "create"));
  off_t done = 0;
  while (done < status.st_size)
    if (::sendfile(copy.get(), library, &done, static_cast<std::size_t>(status.st_size - done)) <= 0)
      throw_errno("copying the plugin's file");
}

unique_fd make_tmpfs(const char* size) {
  const unique_fd context(checked(::fsopen("tmpfs", FSOPEN_CLOEXEC), "fsopen(tmpfs)"));
  ::fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0755", 0);
  ::fsconfig(context.get(), FSCONFIG_SET_STRING, "size", size, 0);
  checked(::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), "fsconfig(tmpfs)");
  return unique_fd(
      checked(::fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV), "fsmount(tmpfs)"));
}

}  // namespace

void enter_mounts(int mount_namespace) { checked(::setns(mount_namespace, CLONE_NEWNS), "setns(mount namespace)"); }

unique_fd build_root(const namespaces& spaces, const policy::values& granted, int library, std::string& left_out) {
  enter_mounts(spaces.host_view());
  checked(::unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)");
  unique_fd made(checked(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), "open /proc/self/ns/mnt"));
  granted_paths paths(granted);
  const std::vector<source> sources = collect_all(granted, paths);
  left_out = paths.left_out();

  const unique_fd root = make_tmpfs("520m");
  int attached = -1;
  for (const char* place : {"/tmp", "/mnt", "/usr"})
    if ((attached = ::move_mount(root.get(), "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH)) == 0) break;
  checked(attached, "move_mount of the new root");
  for (const source& each : sources) place(root.get(), each);
  if (granted.private_tmp && ::mkdirat(root.get(), "tmp", 0755) != 0 && errno != EEXIST) throw_errno("mkdir /tmp");
  if (library >= 0) copy_library(root.get(), library);
  mount_attr read_only{};
  read_only.attr_set = MOUNT_ATTR_RDONLY;
  checked(::mount_setattr(root.get(), "", AT_EMPTY_PATH, &read_only, sizeof read_only),
          "mount_setattr of the new root");

  checked(::fchdir(root.get()), "fchdir");
  checked(::syscall(SYS_pivot_root, ".", "."), "pivot_root");  // the old root is now mounted over the new one
  checked(::umount2(".", MNT_DETACH), "umount of the old root");
  checked(::chdir("/"), "chdir");
  return made;
}

void make_private_tmp() {
  checked(::unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)");
  const unique_fd tmp = make_tmpfs("64m");
  set_attributes(tmp.get(), attributes_of::writable);
  checked(::move_mount(tmp.get(), "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH), "move_mount of /tmp");
}

}  // namespace bulkhead::sandbox
