/* See uses.h. `target` and `victim` are files that lie inside and outside alike. */
#include "uses.h"

#include "attempts.h"

#include <stdio.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char* there(const struct scene* scene, const char* name) {
  static char path[room + 16];
  snprintf(path, sizeof path, "%s/%s", scene->path, name);
  return path;
}
static const char* here(const struct scene* scene, const char* name) {
  static char path[room + 16];
  snprintf(path, sizeof path, "%s/%s", scene->place, name);
  return path;
}

static ino_t inode(int directory, const char* name) {
  struct stat status;
  return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : status.st_ino;
}
/* Of something opened: whether it is what lies inside. Closes it. */
static long opened(int fd, ino_t inside) {
  struct stat status;
  if (fd < 0) return escape_result(fd);
  const int same = fstat(fd, &status) == 0 && status.st_ino == inside;
  close(fd);
  return same ? stayed_inside : escaped;
}
/* Of something made: whether it was made inside, where it is removed. */
static long made(const struct scene* scene, long result, int flags) {
  if (result < 0) return escape_result(result);
  if (result > 0) close((int)result);
  return unlinkat(scene->inside, "new", flags) == 0 ? stayed_inside : escaped;
}
static ino_t make_victim(const struct scene* scene) {
  const int fd = openat(scene->inside, "victim", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0) close(fd);
  return inode(scene->inside, "victim");
}

static long read_file(const struct scene* scene) {
  return opened(open(there(scene, "target"), O_RDONLY), scene->target);
}
static long write_file(const struct scene* scene) {
  const int fd = open(there(scene, "target"), O_RDWR);
  if (fd >= 0 && pwrite(fd, "changed", 7, 0) < 0) {
    close(fd);
    return -ENOTRECOVERABLE;
  }
  return opened(fd, scene->target);
}
static long truncate_file(const struct scene* scene) {
  return opened(open(there(scene, "target"), O_WRONLY | O_TRUNC), scene->target);
}
/* Where it got to, only the host sees, and by the size inside. */
static long truncate_by_name(const struct scene* scene) {
  struct stat status;
  const int fd = openat(scene->inside, "target", O_WRONLY | O_CLOEXEC);
  const int filled = fd >= 0 && pwrite(fd, "filled", 6, 0) == 6;
  close(fd);
  if (!filled) return -ENOTRECOVERABLE;
  if (truncate(there(scene, "target"), 0) < 0) return escape_result(-1);
  if (fstatat(scene->inside, "target", &status, 0) < 0) return -ENOTRECOVERABLE;
  return status.st_size == 0 ? stayed_inside : escaped;
}
static long list_directory(const struct scene* scene) {
  return opened(open(scene->path, O_RDONLY | O_DIRECTORY), scene->directory);
}
static long read_beneath(const struct scene* scene) {
  const int directory = open(scene->path, O_PATH | O_DIRECTORY);
  if (directory < 0) return escape_result(directory);
  const long got = opened(openat(directory, "target", O_RDONLY), scene->target);
  close(directory);
  return got;
}
static long read_from_inside(const struct scene* scene) {
  const int before = open(".", O_PATH | O_DIRECTORY);
  if (before < 0) return -ENOTRECOVERABLE;
  const long entered = escape_result(chdir(scene->path));
  const long got = entered < 0 ? entered : opened(open("target", O_RDONLY), scene->target);
  const int back = fchdir(before);
  close(before);
  return back < 0 ? -ENOTRECOVERABLE : got;
}
static long make_file(const struct scene* scene) {
  return made(scene, open(there(scene, "new"), O_WRONLY | O_CREAT | O_EXCL, 0666), 0);
}
static long make_directory(const struct scene* scene) {
  return made(scene, mkdir(there(scene, "new"), 0777), AT_REMOVEDIR);
}
static long make_link(const struct scene* scene) { return made(scene, symlink("target", there(scene, "new")), 0); }
static long link_out(const struct scene* scene) {
  unlink(here(scene, "stolen"));
  if (link(there(scene, "target"), here(scene, "stolen")) < 0) return escape_result(-1);
  return inode(AT_FDCWD, here(scene, "stolen")) == scene->target ? stayed_inside : escaped;
}
static long link_in(const struct scene* scene) { return made(scene, link(here(scene, "own"), there(scene, "new")), 0); }
static long rename_out(const struct scene* scene) {
  const ino_t victim = make_victim(scene);
  if (!victim) return -ENOTRECOVERABLE;
  if (rename(there(scene, "victim"), here(scene, "stolen")) < 0) return escape_result(-1);
  return inode(AT_FDCWD, here(scene, "stolen")) == victim ? stayed_inside : escaped;
}
static long rename_in(const struct scene* scene) {
  const int fd = open(here(scene, "spare"), O_WRONLY | O_CREAT, 0666);
  if (fd < 0) return -ENOTRECOVERABLE;
  close(fd);
  return made(scene, rename(here(scene, "spare"), there(scene, "new")), 0);
}
static long exchange_files(const struct scene* scene) {
  if (renameat2(AT_FDCWD, there(scene, "target"), AT_FDCWD, here(scene, "own"), RENAME_EXCHANGE) < 0)
    return escape_result(-1);
  if (inode(AT_FDCWD, here(scene, "own")) != scene->target) return escaped;
  const int back = renameat2(scene->inside, "target", AT_FDCWD, here(scene, "own"), RENAME_EXCHANGE);
  return back < 0 ? -ENOTRECOVERABLE : stayed_inside;
}
static long remove_file(const struct scene* scene) {
  if (!make_victim(scene)) return -ENOTRECOVERABLE;
  if (unlink(there(scene, "victim")) < 0) return escape_result(-1);
  return inode(scene->inside, "victim") ? escaped : stayed_inside;
}
/* Landlock knows neither modes nor times; only the file's owner may change them. */
static long change_mode(const struct scene* scene) {
  if (fchmodat(scene->inside, "target", 0600, 0) < 0) return escape_result(-1);
  if (chmod(there(scene, "target"), 0666) < 0) return escape_result(-1);
  struct stat status;
  if (fstatat(scene->inside, "target", &status, 0) < 0) return -ENOTRECOVERABLE;
  return (status.st_mode & 0777) == 0666 ? stayed_inside : escaped;
}
static long change_times(const struct scene* scene) {
  const struct timespec old[2] = {{1, 0}, {1, 0}}, now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  if (utimensat(scene->inside, "target", now, 0) < 0) return escape_result(-1);
  if (utimensat(AT_FDCWD, there(scene, "target"), old, 0) < 0) return escape_result(-1);
  struct stat status;
  if (fstatat(scene->inside, "target", &status, 0) < 0) return -ENOTRECOVERABLE;
  return status.st_mtim.tv_sec == 1 ? stayed_inside : escaped;
}

const struct use escape_uses[escape_use_count] = {
    {"read a file", read_file, to_read, 0},
    {"list the directory", list_directory, to_read, 0},
    {"read beneath an O_PATH descriptor", read_beneath, to_read, 0},
    {"step in and read a file", read_from_inside, to_read, 0},
    {"write to a file", write_file, to_write, 0},
    {"truncate a file while opening it", truncate_file, to_write, 0},
    {"truncate a file by name", truncate_by_name, to_write, 0},
    {"make a file", make_file, to_make, 0},
    {"make a directory", make_directory, to_make, 0},
    {"make a link", make_link, to_make, 0},
    {"make a hard link to a file", link_out, to_make, 1},
    {"make a hard link", link_in, to_make, 1},
    {"move a file out", rename_out, to_make, 1},
    {"move a file in", rename_in, to_make, 1},
    {"exchange a file", exchange_files, to_make, 1},
    {"remove a file", remove_file, to_make, 0},
    {"change a file's mode", change_mode, to_change, 0},
    {"change a file's times", change_times, to_change, 0},
};
