/* Ways to break out, each a function that returns what it got: a number from 0 on when it has got somewhere, or the
 * negative errno with which it was stopped. `stops` names the layers that stand in its way, the first to be met first,
 * each with the errors by which it is known: "seccomp root:ENOENT landlock:EACCES privileges:EACCES". */
#ifndef ESCAPE_ATTEMPTS_H
#define ESCAPE_ATTEMPTS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an attacker might know of the machine. */
struct escape_facts {
  int host_pid, fork_server_pid, sibling_pid;
  int port;          /* somebody listens there, on the host's 127.0.0.1 */
  char abstract[64]; /* and on this abstract socket */
  char secret[256];  /* a file that anybody may read, outside the sandbox */
  char target[256];  /* a directory that anybody may write to, outside the sandbox */
};
extern struct escape_facts escape_facts;

struct escape_attempt {
  const char* family;
  const char* name;
  long (*run)(uintptr_t detail);
  uintptr_t detail;
  const char* stops;
};

struct escape_list {
  const struct escape_attempt* first;
  size_t count;
};

struct escape_list escape_files(void);
struct escape_list escape_descriptors(void);
struct escape_list escape_network(void);
struct escape_list escape_processes(void);
struct escape_list escape_kernel(void);
struct escape_list escape_memory(void);
/* For a plugin that is granted parts of `target`. */
struct escape_list escape_links(void);
struct escape_list escape_pairs(void);
struct escape_list escape_disk(void);
/* For a plugin whose host passes it descriptors, or takes them. */
struct escape_list escape_shared_memory(void);
struct escape_list escape_returned_memory(void);

/* errno as the result of a failed call. */
static inline long escape_result(long value) { return value < 0 ? -(long)errno : value; }

/* One system call by number in one of the three tables, every argument -1. */
enum escape_table { escape_native, escape_x32, escape_i386 };
long escape_raw(enum escape_table table, long number);

#ifdef __cplusplus
}
#endif

#endif
