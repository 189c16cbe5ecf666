/* Reading and writing what lies outside. */
#include "attempts.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

static const char* const paths[] = {"/etc/passwd",     "/etc/hostname",      "/etc/group",      "/etc/nsswitch.conf",
                                    "/proc/self/maps", "/proc/self/environ", "/proc/1/cmdline", "/proc/version",
                                    "/proc/self/mem",  "/sys/kernel",        "/dev/shm",        "/usr/bin/env",
                                    "/bin/sh",         "/var/log",           "/home",           "/tmp"};

static const char* path_of(uintptr_t which) {
  const size_t known = sizeof paths / sizeof *paths;
  return which < known ? paths[which] : escape_facts.secret;
}

static long read_by_open(uintptr_t which) { return escape_result(syscall(SYS_open, path_of(which), O_RDONLY)); }
static long read_by_openat(uintptr_t which) {
  return escape_result(syscall(SYS_openat, AT_FDCWD, path_of(which), O_RDONLY));
}
struct how {
  uint64_t flags, mode, resolve;
};
static long read_by_openat2(uintptr_t which) {
  struct how how = {O_RDONLY, 0, 0};
  return escape_result(syscall(SYS_openat2, AT_FDCWD, path_of(which), &how, sizeof how));
}
/* Up from a directory that may be opened. */
static long read_by_dotdot(uintptr_t which) {
  const int lib = open("/usr/lib", O_RDONLY | O_DIRECTORY);
  char path[300];
  snprintf(path, sizeof path, "../../../../../..%s", path_of(which));
  const long got = lib < 0 ? escape_result(lib) : escape_result(openat(lib, path, O_RDONLY));
  if (lib >= 0) close(lib);
  return got;
}
static long read_by_proc_root(uintptr_t which) {
  char path[300];
  snprintf(path, sizeof path, "/proc/self/root%s", path_of(which));
  return escape_result(open(path, O_RDONLY));
}
static long read_by_host_root(uintptr_t which) {
  char path[300];
  snprintf(path, sizeof path, "/proc/%d/root%s", escape_facts.host_pid, path_of(which));
  return escape_result(open(path, O_RDONLY));
}
static long read_by_working_directory(uintptr_t which) {
  if (chdir("/") != 0) return escape_result(-1);
  return escape_result(open(path_of(which) + 1, O_RDONLY));
}

/* Landlock does not know these. */
static long look_at(uintptr_t which) {
  struct stat status;
  return escape_result(stat(path_of(which), &status));
}
static long ask_for(uintptr_t which) { return escape_result(access(path_of(which), R_OK)); }
static long read_link(uintptr_t unused) {
  (void)unused;
  char to[300];
  return escape_result(readlink("/proc/self/exe", to, sizeof to));
}

static const char* inside(const char* name) {
  static char path[300];
  snprintf(path, sizeof path, "%s/%s", escape_facts.target, name);
  return path;
}
static long write_new(uintptr_t unused) {
  (void)unused;
  return escape_result(open(inside("new"), O_WRONLY | O_CREAT, 0600));
}
static long write_existing(uintptr_t flags) { return escape_result(open(inside("existing"), (int)flags)); }
static long write_by_creat(uintptr_t unused) {
  (void)unused;
  return escape_result(syscall(SYS_creat, inside("created"), 0600));
}
static long write_nameless(uintptr_t unused) {
  (void)unused;
  return escape_result(open(escape_facts.target, O_RDWR | O_TMPFILE, 0600));
}
static long write_truncate(uintptr_t unused) {
  (void)unused;
  return escape_result(truncate(inside("existing"), 0));
}
static long make_directory(uintptr_t unused) {
  (void)unused;
  return escape_result(mkdir(inside("directory"), 0700));
}
static long make_link(uintptr_t unused) {
  (void)unused;
  return escape_result(symlink("/etc/passwd", inside("link")));
}
static long make_hard_link(uintptr_t unused) {
  (void)unused;
  char from[300];
  snprintf(from, sizeof from, "%s", inside("existing"));
  return escape_result(link(from, inside("hard")));
}
static long make_device(uintptr_t unused) {
  (void)unused;
  return escape_result(mknod(inside("device"), S_IFCHR | 0600, 0x101));
}
static long make_fifo(uintptr_t unused) {
  (void)unused;
  return escape_result(mknod(inside("fifo"), S_IFIFO | 0600, 0));
}
static long rename_file(uintptr_t unused) {
  (void)unused;
  char from[300];
  snprintf(from, sizeof from, "%s", inside("existing"));
  return escape_result(rename(from, inside("renamed")));
}
static long remove_file(uintptr_t unused) {
  (void)unused;
  return escape_result(unlink(inside("existing")));
}
static long change_mode(uintptr_t unused) {
  (void)unused;
  return escape_result(chmod(inside("existing"), 04777));
}
static long change_owner(uintptr_t unused) {
  (void)unused;
  return escape_result(chown(inside("existing"), 0, 0));
}
static long change_times(uintptr_t unused) {
  (void)unused;
  return escape_result(utimensat(AT_FDCWD, inside("existing"), NULL, 0));
}
static long set_attribute(uintptr_t unused) {
  (void)unused;
  return escape_result(syscall(SYS_setxattr, inside("existing"), "user.x", "1", 1L, 0L));
}
static long write_library(uintptr_t unused) {
  (void)unused;
  return escape_result(open("/usr/lib/evil.so", O_WRONLY | O_CREAT, 0755));
}
static long write_own_file(uintptr_t unused) {
  (void)unused;
  return escape_result(open("/plugin.so", O_WRONLY));
}
static long list_root(uintptr_t unused) {
  (void)unused;
  return escape_result(open("/", O_RDONLY | O_DIRECTORY));
}
static long list_etc(uintptr_t unused) {
  (void)unused;
  return escape_result(open("/etc", O_RDONLY | O_DIRECTORY));
}
static long by_handle(uintptr_t unused) {
  (void)unused;
  struct {
    unsigned bytes;
    int type;
    unsigned char handle[8];
  } root = {8, 1, {2, 0, 0, 0, 0, 0, 0, 0}};
  const int lib = open("/usr/lib", O_RDONLY | O_DIRECTORY);
  const long got = escape_result(syscall(SYS_open_by_handle_at, lib, &root, O_RDONLY));
  if (lib >= 0) close(lib);
  return got;
}
static long name_handle(uintptr_t unused) {
  (void)unused;
  unsigned char handle[136] = {128};
  int mount = 0;
  return escape_result(syscall(SYS_name_to_handle_at, AT_FDCWD, "/usr", handle, &mount, 0L));
}
static long change_root(uintptr_t unused) {
  (void)unused;
  return escape_result(chroot("/usr"));
}

#define OUTSIDE "root:ENOENT landlock:EACCES"
#define WRITING "seccomp root:ENOENT|EROFS|EXDEV landlock:EACCES"
#define READ(way, which, path) \
  { "files", "read " path " by " #way, read_by_##way, which, OUTSIDE }
#define READ_ALL(way)                                                                                                  \
  READ(way, 0, "/etc/passwd"), READ(way, 1, "/etc/hostname"), READ(way, 2, "/etc/group"),                              \
      READ(way, 3, "/etc/nsswitch.conf"), READ(way, 4, "/proc/self/maps"), READ(way, 5, "/proc/self/environ"),         \
      READ(way, 6, "/proc/1/cmdline"), READ(way, 7, "/proc/version"), READ(way, 8, "/proc/self/mem"),                  \
      READ(way, 9, "/sys/kernel"), READ(way, 10, "/dev/shm"), READ(way, 11, "/usr/bin/env"), READ(way, 12, "/bin/sh"), \
      READ(way, 13, "/var/log"), READ(way, 14, "/home"), READ(way, 15, "/tmp"), READ(way, 99, "the secret")

static const struct escape_attempt list[] = {
    READ_ALL(open),
    READ_ALL(openat),
    READ_ALL(dotdot),
    {"files", "read the secret by openat2", read_by_openat2, 99, "seccomp root:ENOENT landlock:EACCES"},
    {"files", "read /etc/passwd by openat2", read_by_openat2, 0, "seccomp root:ENOENT landlock:EACCES"},
    {"files", "read the secret through /proc/self/root", read_by_proc_root, 99, OUTSIDE},
    {"files", "read the secret through /proc/HOST/root", read_by_host_root, 99, OUTSIDE},
    {"files", "read the secret from the working directory", read_by_working_directory, 99,
     "seccomp root:ENOENT landlock:EACCES"},
    {"files", "make a file", write_new, 0, WRITING},
    {"files", "open a file for writing", write_existing, O_WRONLY, WRITING},
    {"files", "open a file for reading and writing", write_existing, O_RDWR, WRITING},
    {"files", "truncate a file while opening it", write_existing, O_RDONLY | O_TRUNC, WRITING},
    {"files", "make a file by creat", write_by_creat, 0, WRITING},
    {"files", "make a nameless file", write_nameless, 0, WRITING},
    {"files", "truncate a file by name", write_truncate, 0, WRITING},
    {"files", "make a directory", make_directory, 0, WRITING},
    {"files", "make a symbolic link", make_link, 0, WRITING},
    {"files", "make a hard link", make_hard_link, 0, WRITING},
    {"files", "make a device", make_device, 0, "seccomp root:ENOENT|EROFS landlock:EACCES|EPERM"},
    {"files", "make a FIFO", make_fifo, 0, WRITING},
    {"files", "rename a file", rename_file, 0, WRITING},
    {"files", "remove a file", remove_file, 0, WRITING},
    {"files", "look at /etc/passwd", look_at, 0, "root:ENOENT"},
    {"files", "look at the secret", look_at, 99, "root:ENOENT"},
    {"files", "ask whether /etc/passwd may be read", ask_for, 0, "root:ENOENT"},
    {"files", "ask whether the secret may be read", ask_for, 99, "root:ENOENT"},
    {"files", "read where /proc/self/exe leads", read_link, 0, "root:ENOENT"},
    {"files", "change a file's mode", change_mode, 0, "seccomp root:ENOENT user:EPERM"},
    {"files", "change a file's owner", change_owner, 0, "seccomp root:ENOENT privileges:EPERM|EINVAL"},
    {"files", "change a file's times", change_times, 0, "seccomp root:ENOENT"},
    {"files", "set an extended attribute", set_attribute, 0, "seccomp root:ENOENT"},
    {"files", "write among the libraries", write_library, 0, "seccomp root:EROFS landlock:EACCES privileges:EACCES"},
    {"files", "write to the plugin's own file", write_own_file, 0, "seccomp root:EROFS|EACCES"},
    {"files", "list the root directory", list_root, 0, "landlock:EACCES"},
    {"files", "list /etc", list_etc, 0, "landlock:EACCES"},
    {"files", "open the file system's root by its handle", by_handle, 0, "seccomp privileges:EPERM"},
    {"files", "ask for a file's handle", name_handle, 0, "seccomp"},
    {"files", "change the root directory", change_root, 0, "seccomp privileges:EPERM"},
};

struct escape_list escape_files(void) {
  return (struct escape_list){list, sizeof list / sizeof *list};
}

/* Where files may be made, of 1 MiB each. */
static long fill_disk(uintptr_t bytes) {
  static char block[1 << 16];
  char path[300];
  snprintf(path, sizeof path, "%s/granted/bomb", escape_facts.target);
  signal(SIGXFSZ, SIG_IGN);
  const int fd = open(path, O_WRONLY | O_CREAT, 0600);
  if (fd < 0) return escape_result(-1);
  long got = 0;
  for (uintptr_t done = 0; done < bytes && got >= 0; done += sizeof block)
    got = escape_result(write(fd, block, sizeof block));
  close(fd);
  unlink(path);
  return got;
}

static const struct escape_attempt disk[] = {{"files", "write a file of 2 MiB", fill_disk, 2 << 20, "limits:EFBIG"}};

struct escape_list escape_disk(void) {
  return (struct escape_list){disk, sizeof disk / sizeof *disk};
}
