/* Using the descriptors that a worker has, or might have. */
#include "attempts.h"

#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A descriptor that was left open in the worker: none must be, from 6 on. */
static long inherited(uintptr_t fd) { return escape_result(fcntl((int)fd, F_GETFD)); }
static long control_socket(uintptr_t fd) {
  char text[16];
  return escape_result(recv((int)fd, text, sizeof text, MSG_DONTWAIT | MSG_PEEK));
}
static int channel(void) { return 3; }

/* Sending a descriptor to the host, which did not ask for one. */
static long send_descriptor(uintptr_t fd) {
  char byte = 0;
  struct iovec part = {&byte, 0};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr header;
  } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {0};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int sent = (int)fd;
  memcpy(CMSG_DATA(header), &sent, sizeof sent);
  byte = 0;
  part.iov_len = 1;
  return escape_result(sendmsg(channel(), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}
/* Opened for writing, and written to: of a sealed file in memory the first may be had, the second not. */
static long open_and_write(const char* path) {
  const int fd = open(path, O_RDWR);
  if (fd < 0) return escape_result(-1);
  const long got = escape_result(pwrite(fd, "x", 1, 0));
  close(fd);
  return got;
}
static long reopen(uintptr_t fd) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", (int)fd);
  return open_and_write(path);
}
static long reopen_dev(uintptr_t fd) {
  char path[64];
  snprintf(path, sizeof path, "/dev/fd/%d", (int)fd);
  return open_and_write(path);
}
static long push_input(uintptr_t request) {
  char c = 'x';
  return escape_result(ioctl(0, request, &c));
}
/* By number: the C library has but 32 bits for the command. */
static long own_signals(uintptr_t command) {
  return escape_result(syscall(SYS_fcntl, (long)channel(), command, (long)escape_facts.host_pid));
}
static long lease(uintptr_t fd) { return escape_result(fcntl((int)fd, F_SETLEASE, F_WRLCK)); }
static long notify(uintptr_t fd) { return escape_result(fcntl((int)fd, F_NOTIFY, 1)); }
static long add_seals(uintptr_t fd) { return escape_result(fcntl((int)fd, F_ADD_SEALS, F_SEAL_WRITE)); }
static long grow_pipe(uintptr_t fd) { return escape_result(fcntl((int)fd, F_SETPIPE_SZ, 1 << 20)); }
static long pass_rights(uintptr_t option) {
  const int one = 1;
  return escape_result(setsockopt(channel(), SOL_SOCKET, (int)option, &one, sizeof one));
}
static long write_plugin(uintptr_t fd) { return escape_result(write((int)fd, "x", 1)); }
static long truncate_plugin(uintptr_t fd) { return escape_result(ftruncate((int)fd, 0)); }
static long map_plugin(uintptr_t fd) {
  void* mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0);
  return mapped == MAP_FAILED ? escape_result(-1) : 0;
}
static long execute_memory(uintptr_t unused) {
  (void)unused;
  const int fd = (int)syscall(SYS_memfd_create, "payload", 0L);
  return escape_result(fd);
}
static long execute_plugin(uintptr_t fd) {
  char* none[] = {NULL};
  return escape_result(syscall(SYS_execveat, (int)fd, "", none, none, AT_EMPTY_PATH));
}

#define INHERITED(fd) \
  { "descriptors", "use inherited descriptor " #fd, inherited, fd, "inventory:EBADF" }
#define CONTROL(fd) \
  { "descriptors", "read the fork server's socket as " #fd, control_socket, fd, "inventory:EBADF" }
static const struct escape_attempt list[] = {
    INHERITED(6),
    INHERITED(7),
    INHERITED(8),
    INHERITED(9),
    INHERITED(10),
    INHERITED(11),
    INHERITED(12),
    INHERITED(13),
    INHERITED(14),
    INHERITED(15),
    INHERITED(16),
    INHERITED(17),
    INHERITED(18),
    INHERITED(19),
    INHERITED(20),
    INHERITED(31),
    INHERITED(32),
    INHERITED(63),
    INHERITED(64),
    INHERITED(65),
    INHERITED(66),
    INHERITED(67),
    INHERITED(68),
    INHERITED(127),
    INHERITED(128),
    INHERITED(254),
    INHERITED(255),
    CONTROL(6),
    CONTROL(7),
    CONTROL(8),
    CONTROL(9),
    CONTROL(64),
    CONTROL(65),
    {"descriptors", "send the host a descriptor", send_descriptor, 0, "channel:EPERM"},
    {"descriptors", "send the host its own channel", send_descriptor, 3, "channel:EPERM"},
    {"descriptors", "reopen the channel", reopen, 3, "seccomp root:ENOENT kernel:ENXIO"},
    {"descriptors", "reopen the plugin's file for writing", reopen, 5, "seccomp root:ENOENT kernel:EPERM"},
    {"descriptors", "reopen the plugin's file through /dev/fd", reopen_dev, 5, "seccomp root:ENOENT kernel:EPERM"},
    {"descriptors", "push input to a terminal (TIOCSTI)", push_input, 0x5412, "seccomp kernel:ENOTTY"},
    {"descriptors", "push input to a console (TIOCLINUX)", push_input, 0x541c, "seccomp kernel:ENOTTY"},
    {"descriptors", "take a controlling terminal (TIOCSCTTY)", push_input, 0x540e, "seccomp kernel:ENOTTY"},
    {"descriptors", "push input to a terminal by a number with high bits", push_input, 0x100005412ul,
     "seccomp kernel:ENOTTY"},
    {"descriptors", "have the host signalled by a descriptor", own_signals, F_SETOWN, "seccomp pid:ESRCH"},
    {"descriptors", "have the host signalled by a number with high bits", own_signals, 0x100000000ul | F_SETOWN,
     "seccomp pid:ESRCH"},
    {"descriptors", "take a lease on the plugin's file", lease, 5, "seccomp kernel:EINVAL|EACCES|EAGAIN"},
    {"descriptors", "watch a directory by descriptor", notify, 5, "seccomp kernel:ENOTDIR|EINVAL"},
    {"descriptors", "seal the plugin's file", add_seals, 5, "seccomp kernel:EPERM|EINVAL"},
    {"descriptors", "grow the log's pipe", grow_pipe, 1, "seccomp"},
    {"descriptors", "let the channel pass descriptors again", pass_rights, 83, "seccomp"},
    {"descriptors", "let the channel pass credentials", pass_rights, SO_PASSCRED, "seccomp"},
    {"descriptors", "write to the plugin's file", write_plugin, 5, "kernel:EBADF|EPERM"},
    {"descriptors", "truncate the plugin's file", truncate_plugin, 5, "seccomp kernel:EINVAL|EBADF|EPERM"},
    {"descriptors", "map the plugin's file for writing", map_plugin, 5, "kernel:EACCES|EPERM"},
    {"descriptors", "make a file in memory", execute_memory, 0, "seccomp"},
    {"descriptors", "execute the plugin's file", execute_plugin, 5, "seccomp"},
};

struct escape_list escape_descriptors(void) {
  return (struct escape_list){list, sizeof list / sizeof *list};
}
