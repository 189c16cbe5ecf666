/* What a plugin can do with the descriptors that its host passes to it, beyond what they were passed for: memory whose
 * size or bytes change under the host, more rights by opening again, more files by way of a directory. */
#include "shared.h"

#include "attempts.h"

#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int passed[escape_kinds] = {-1, -1, -1, -1, -1, -1, -1, -1};
enum { page = 4096, plugin_file = 5 };

void escape_take(int kind, int fd) {
  if (kind < 0 || kind >= escape_kinds) return;
  if (passed[kind] >= 0) close(passed[kind]);
  passed[kind] = fd;
}

int escape_make_memory(void) {
  const int fd = memfd_create("escape", MFD_ALLOW_SEALING);
  char bytes[escape_memory_size];
  memset(bytes, 'a', sizeof bytes);
  if (fd < 0 || write(fd, bytes, sizeof bytes) != sizeof bytes) return -1;
  escape_take(escape_returned, fd);
  return fd;
}
long escape_seal(void) {
  return escape_result(
      fcntl(passed[escape_returned], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
}

static const char* by_proc(uintptr_t kind) {
  static char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", passed[kind]);
  return path;
}

/* Bytes. */
static long change(uintptr_t kind) { return escape_result(write(passed[kind], "changed", 7)); }
static long append(uintptr_t kind) { return escape_result(pwrite(passed[kind], "more", 4, escape_memory_size)); }
static long change_by_vector(uintptr_t kind) {
  const struct iovec part = {"changed", 7};
  return escape_result(pwritev2(passed[kind], &part, 1, 0, RWF_APPEND));
}
static long change_mapped(uintptr_t kind) {
  char* bytes = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, passed[kind], 0);
  if (bytes == MAP_FAILED) return escape_result(-1);
  bytes[0] = 'x';
  munmap(bytes, page);
  return 0;
}
static long change_protected(uintptr_t kind) {
  char* bytes = mmap(NULL, page, PROT_READ, MAP_SHARED, passed[kind], 0);
  if (bytes == MAP_FAILED) return -ENOTRECOVERABLE;
  const long got = escape_result(mprotect(bytes, page, PROT_READ | PROT_WRITE));
  if (got >= 0) bytes[0] = 'x';
  munmap(bytes, page);
  return got;
}
static long change_duplicate(uintptr_t kind) {
  const int fd = fcntl(passed[kind], F_DUPFD, 10);
  if (fd < 0 || fcntl(fd, F_SETFL, O_RDWR | O_APPEND) < 0) return -ENOTRECOVERABLE;
  const long got = escape_result(write(fd, "changed", 7));
  fcntl(fd, F_SETFL, 0);
  close(fd);
  return got;
}
static long change_reopened(uintptr_t kind) {
  const int fd = open(by_proc(kind), O_RDWR);
  if (fd < 0) return escape_result(fd);
  const long got = escape_result(pwrite(fd, "changed", 7, 0));
  close(fd);
  return got;
}
static long send_into(uintptr_t kind) {
  off_t from = 0;
  lseek(passed[kind], 0, SEEK_SET);
  return escape_result(sendfile(passed[kind], plugin_file, &from, 16));
}
static long copy_into(uintptr_t kind) {
  loff_t from = 0, to = 0;
  return escape_result(copy_file_range(plugin_file, &from, passed[kind], &to, 16, 0));
}
static long splice_into(uintptr_t kind) {
  int ends[2];
  loff_t to = 0;
  if (pipe(ends) < 0 || write(ends[1], "changed", 7) != 7) return -ENOTRECOVERABLE;
  const long got = escape_result(splice(ends[0], NULL, passed[kind], &to, 7, 0));
  close(ends[0]);
  close(ends[1]);
  return got;
}

/* Size and pages: what makes a host that has mapped it fault, or read zeroes. */
static long shrink(uintptr_t kind) { return escape_result(ftruncate(passed[kind], 0)); }
static long grow(uintptr_t kind) { return escape_result(ftruncate(passed[kind], 4 * escape_memory_size)); }
static long shrink_by_name(uintptr_t kind) { return escape_result(truncate(by_proc(kind), 0)); }
static long shrink_reopened(uintptr_t kind) { return escape_result(open(by_proc(kind), O_WRONLY | O_TRUNC)); }
static long allocate(uintptr_t kind) {
  return escape_result(fallocate(passed[kind], 0, escape_memory_size, escape_memory_size));
}
static long punch(uintptr_t kind) {
  return escape_result(fallocate(passed[kind], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, page));
}
static long take_pages(uintptr_t kind) {
  void* bytes = mmap(NULL, page, PROT_READ, MAP_SHARED, passed[kind], 0);
  if (bytes == MAP_FAILED) return -ENOTRECOVERABLE;
  const long got = escape_result(madvise(bytes, page, MADV_REMOVE));
  munmap(bytes, page);
  return got;
}
static long take_writable_pages(uintptr_t kind) {
  void* bytes = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, passed[kind], 0);
  if (bytes == MAP_FAILED) return -ENOTRECOVERABLE;
  const long got = escape_result(madvise(bytes, page, MADV_REMOVE));
  munmap(bytes, page);
  return got;
}
static long lock_out(uintptr_t kind) { return escape_result(fcntl(passed[kind], F_ADD_SEALS, F_SEAL_FUTURE_WRITE)); }
static long seal_while_mapped(uintptr_t unused) {
  (void)unused;
  const int fd = memfd_create("escape", MFD_ALLOW_SEALING);
  if (fd < 0 || ftruncate(fd, page) < 0) return -ENOTRECOVERABLE;
  void* bytes = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return -ENOTRECOVERABLE;
  const long got = escape_result(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  munmap(bytes, page);
  close(fd);
  return got;
}

/* The file behind it. */
static long read_it(uintptr_t kind) {
  char text[8];
  return escape_result(pread(passed[kind], text, sizeof text, 0));
}
static long read_reopened(uintptr_t kind) { return escape_result(open(by_proc(kind), O_RDONLY)); }
static long read_empty_path(uintptr_t kind) { return escape_result(openat(passed[kind], "", O_RDONLY)); }
static long name_it(uintptr_t kind) {
  return escape_result(linkat(passed[kind], "", AT_FDCWD, "/tmp/named", AT_EMPTY_PATH));
}
static long execute(uintptr_t kind) {
  char* none[] = {NULL};
  return escape_result(syscall(SYS_execveat, passed[kind], "", none, none, AT_EMPTY_PATH));
}
static long change_mode(uintptr_t kind) { return escape_result(fchmod(passed[kind], 0777)); }
static long change_times(uintptr_t kind) {
  const struct timespec old[2] = {{1, 0}, {1, 0}};
  return escape_result(futimens(passed[kind], old));
}
static long take_lease(uintptr_t kind) { return escape_result(fcntl(passed[kind], F_SETLEASE, F_RDLCK)); }
static long lock_whole(uintptr_t kind) { return escape_result(flock(passed[kind], LOCK_EX | LOCK_NB)); }
static long lock_range(uintptr_t kind) {
  struct flock range = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
  return escape_result(fcntl(passed[kind], F_OFD_SETLK, &range));
}

/* What lies around a directory. */
static long read_in(uintptr_t kind) { return escape_result(openat(passed[kind], "secret", O_RDONLY)); }
static long read_above(uintptr_t kind) { return escape_result(openat(passed[kind], "../../../etc/passwd", O_RDONLY)); }
static long write_in(uintptr_t kind) { return escape_result(openat(passed[kind], "existing", O_WRONLY)); }
static long make_in(uintptr_t kind) { return escape_result(openat(passed[kind], "new", O_WRONLY | O_CREAT, 0666)); }
static long make_directory_in(uintptr_t kind) { return escape_result(mkdirat(passed[kind], "new", 0777)); }
static long link_in(uintptr_t kind) { return escape_result(symlinkat("secret", passed[kind], "new")); }
static long remove_in(uintptr_t kind) { return escape_result(unlinkat(passed[kind], "existing", 0)); }
static long rename_in(uintptr_t kind) {
  return escape_result(renameat(passed[kind], "existing", passed[kind], "renamed"));
}
static long step_in(uintptr_t kind) {
  if (fchdir(passed[kind]) < 0) return escape_result(-1);
  const long got = escape_result(open("secret", O_RDONLY));
  return chdir("/") < 0 ? -ENOTRECOVERABLE : got;
}

#define SEALED "passed memory, sealed"
#define MAPPED "passed memory, sealed for others"
#define SHARED "passed memory, to write"
#define OPENED "passed memory, read-only"
#define RETURNED "returned memory"
#define BYTES(family, kind)                                                                                    \
  {family, "write", change, kind, "seals:EPERM"}, {family, "write past the end", append, kind, "seals:EPERM"}, \
      {family, "write by vector", change_by_vector, kind, "seals:EPERM"},                                      \
      {family, "write by a mapping", change_mapped, kind, "seals:EPERM"},                                      \
      {family, "make a mapping writable", change_protected, kind, "seals:EACCES"}, {                           \
    family, "write by a duplicate with other flags", change_duplicate, kind, "seals:EPERM"                     \
  }
#define PAGES(family, kind, first)                                                                          \
  {family, "shrink", shrink, kind, first "seals:EPERM"}, {family, "grow", grow, kind, first "seals:EPERM"}, \
      {family, "allocate past the end", allocate, kind, first "seals:EPERM"},                               \
      {family, "punch a hole", punch, kind, first "seals:EPERM"}, {                                         \
    family, "seal it further", lock_out, kind, first "seals:EPERM"                                          \
  }
#define OTHERS(family, kind)                                                                          \
  {family, "remove pages", take_pages, kind, "seccomp seals:EACCES|EPERM"},                           \
      {family, "write by sendfile", send_into, kind, "seccomp seals:EPERM"},                          \
      {family, "write by copy_file_range", copy_into, kind, "seccomp seals:EPERM"},                   \
      {family, "write by splice", splice_into, kind, "seccomp seals:EPERM"},                          \
      {family, "open again for writing", change_reopened, kind, "seccomp root:ENOENT seals:EPERM"},   \
      {family, "shrink by its name", shrink_by_name, kind, "seccomp root:ENOENT seals:EPERM"}, {      \
    family, "shrink while opening it again", shrink_reopened, kind, "seccomp root:ENOENT seals:EPERM" \
  }
#define FILES(family, kind)                                                                                          \
  {family, "execute", execute, kind, "seccomp"}, {family, "change its mode", change_mode, kind, "seccomp"},          \
      {family, "change its times", change_times, kind, "seccomp"},                                                   \
      {family, "take a lease on it", take_lease, kind, "seccomp"}, {family, "lock it", lock_whole, kind, "seccomp"}, \
      {family, "lock a range of it", lock_range, kind, "seccomp"}, {                                                 \
    family, "give it a name", name_it, kind, "seccomp"                                                               \
  }
#define OPENED_READ_ONLY(family, kind, reopen)                                                                   \
  {family, "write", change, kind, "kernel:EBADF"}, {family, "write past the end", append, kind, "kernel:EBADF"}, \
      {family, "write by a mapping", change_mapped, kind, "kernel:EACCES"},                                      \
      {family, "make a mapping writable", change_protected, kind, "kernel:EACCES"},                              \
      {family, "write by a duplicate with other flags", change_duplicate, kind, "kernel:EBADF"},                 \
      {family, "shrink", shrink, kind, "seccomp kernel:EINVAL|EBADF"},                                           \
      {family, "grow", grow, kind, "seccomp kernel:EINVAL|EBADF"},                                               \
      {family, "punch a hole", punch, kind, "seccomp kernel:EBADF"},                                             \
      {family, "remove pages", take_pages, kind, "seccomp kernel:EACCES"},                                       \
      {family, "write by sendfile", send_into, kind, "seccomp kernel:EBADF"},                                    \
      {family, "open again for writing", change_reopened, kind, reopen},                                         \
      {family, "shrink by its name", shrink_by_name, kind, reopen}, {                                            \
    family, "shrink while opening it again", shrink_reopened, kind, reopen                                       \
  }

static const struct escape_attempt shared[] = {
    BYTES(SEALED, escape_sealed),
    PAGES(SEALED, escape_sealed, "seccomp "),
    OTHERS(SEALED, escape_sealed),
    FILES(SEALED, escape_sealed),
    BYTES(MAPPED, escape_mapped),
    PAGES(MAPPED, escape_mapped, "seccomp "),
    OTHERS(MAPPED, escape_mapped),
    FILES(MAPPED, escape_mapped),
    {SHARED, "write past the end", append, escape_shared, "seals:EPERM"},
    {SHARED, "shrink", shrink, escape_shared, "seccomp seals:EPERM"},
    {SHARED, "grow", grow, escape_shared, "seccomp seals:EPERM"},
    {SHARED, "lock the host out by a seal", lock_out, escape_shared, "seccomp seals:EPERM"},
    /* These, no seal stops as long as it may be written. */
    {SHARED, "punch a hole", punch, escape_shared, "seccomp"},
    {SHARED, "remove pages", take_writable_pages, escape_shared, "seccomp"},
    OPENED_READ_ONLY(OPENED, escape_opened, "seccomp root:ENOENT"),
    {OPENED, "seal it", lock_out, escape_opened, "seccomp kernel:EPERM"},
    FILES(OPENED, escape_opened),
    OPENED_READ_ONLY("a passed file", escape_file, "seccomp root:ENOENT landlock:EACCES"),
    FILES("a passed file", escape_file),
    {"a passed O_PATH", "read", read_it, escape_path, "kernel:EBADF"},
    {"a passed O_PATH", "open again for reading", read_reopened, escape_path, "root:ENOENT landlock:EACCES"},
    {"a passed O_PATH", "open again for writing", change_reopened, escape_path, "seccomp root:ENOENT landlock:EACCES"},
    {"a passed O_PATH", "open by an empty path", read_empty_path, escape_path, "kernel:ENOENT"},
    {"a passed O_PATH", "execute", execute, escape_path, "seccomp"},
    {"a passed O_PATH", "give it a name", name_it, escape_path, "seccomp"},
    {"a passed directory", "read a file in it", read_in, escape_directory, "landlock:EACCES"},
    {"a passed directory", "read a file above it", read_above, escape_directory, "landlock:EACCES"},
    {"a passed directory", "write to a file in it", write_in, escape_directory, "seccomp landlock:EACCES"},
    {"a passed directory", "make a file in it", make_in, escape_directory, "seccomp landlock:EACCES"},
    {"a passed directory", "make a directory in it", make_directory_in, escape_directory, "seccomp landlock:EACCES"},
    {"a passed directory", "make a link in it", link_in, escape_directory, "seccomp landlock:EACCES"},
    {"a passed directory", "remove a file in it", remove_in, escape_directory, "seccomp landlock:EACCES"},
    {"a passed directory", "rename a file in it", rename_in, escape_directory, "seccomp landlock:EACCES"},
    {"a passed directory", "step into it and read", step_in, escape_directory, "seccomp landlock:EACCES"},
};
static const struct escape_attempt returned[] = {
    BYTES(RETURNED, escape_returned),
    PAGES(RETURNED, escape_returned, ""),
    OTHERS(RETURNED, escape_returned),
    {RETURNED, "seal it with a writable mapping kept", seal_while_mapped, 0, "kernel:EBUSY"},
};

struct escape_list escape_shared_memory(void) {
  return (struct escape_list){shared, sizeof shared / sizeof *shared};
}
struct escape_list escape_returned_memory(void) {
  return (struct escape_list){returned, sizeof returned / sizeof *returned};
}
