/* Out of what is granted by links and renames. A way is a path that leads outside, or that another thread lets lead
 * inside and outside in turn, thousands of times; a use is what is then done there. Each way is tried with each use.
 *
 * Granted are, of the directory `target`: granted/ to create in, writable/ to write what exists, readable/ to read.
 * Outside are its other entries. Where a use got to is told by inodes; the host looks after what lies outside. */
#include "attempts.h"
#include "uses.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { needed_tries = 2000, needed_each = 20, most_seconds = 20 };

typedef void set_up(struct scene* scene);
typedef int swap(const struct scene* scene, int outside);

static void want(int result, struct scene* scene) {
  if (result < 0) scene->broken = errno;
}
static void in_target(char* to, size_t room, const char* name) {
  if ((size_t)snprintf(to, room, "%s/%s", escape_facts.target, name) >= room) *to = 0;
}
static const char* in_place(const struct scene* scene, const char* name) {
  static _Thread_local char path[room];
  if ((size_t)snprintf(path, sizeof path, "%s/%s", scene->place, name) >= sizeof path) *path = 0;
  return path;
}
static void link_to(struct scene* scene, const char* to, const char* name) {
  want(symlink(to, in_place(scene, name)), scene);
}
static void lead_by(struct scene* scene, const char* name) {
  if ((size_t)snprintf(scene->path, sizeof scene->path, "%s/%s", scene->place, name) >= sizeof scene->path)
    scene->broken = ENAMETOOLONG;
}
static void inside_is(struct scene* scene, const char* path) {
  struct stat status;
  scene->inside = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  want(scene->inside, scene);
  want(fstat(scene->inside, &status), scene);
  scene->directory = status.st_ino;
  const int fd = openat(scene->inside, "target", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  want(fd, scene);
  want(fstat(fd, &status), scene);
  scene->target = status.st_ino;
  close(fd);
}

/* Ways that lead outside. */
static void by_absolute_link(struct scene* scene) {
  char outside[room];
  in_target(outside, sizeof outside, "elsewhere");
  link_to(scene, outside, "link");
  lead_by(scene, "link");
}
static void by_relative_link(struct scene* scene) {
  link_to(scene, "../../elsewhere", "link");
  lead_by(scene, "link");
}
static void by_chain(struct scene* scene) {
  link_to(scene, "../../elsewhere", "third");
  link_to(scene, "third", "second");
  link_to(scene, "second/.", "first");
  lead_by(scene, "first");
}
static void by_dots(struct scene* scene) { lead_by(scene, "../../elsewhere"); }
static void by_working_directory(struct scene* scene) {
  want(chdir(scene->place), scene);
  strcpy(scene->path, "../../elsewhere");
}
static void by_proc_root(struct scene* scene) {
  char outside[room];
  if ((size_t)snprintf(outside, sizeof outside, "/proc/self/root%s/elsewhere", escape_facts.target) >= sizeof outside)
    scene->broken = ENAMETOOLONG;
  link_to(scene, outside, "link");
  lead_by(scene, "link");
}
static void by_proc_cwd(struct scene* scene) {
  want(chdir(scene->place), scene);
  link_to(scene, "/proc/self/cwd/../../elsewhere", "link");
  lead_by(scene, "link");
}
static void by_proc_fd(struct scene* scene) {
  snprintf(scene->path, sizeof scene->path, "/proc/self/fd/%d/../../elsewhere", scene->inside);
}
static void by_moved_directory(struct scene* scene) {
  char moved[room];
  want(mkdir(in_place(scene, "a"), 0777), scene);
  want(mkdir(in_place(scene, "a/b"), 0777), scene);
  want(chdir(in_place(scene, "a/b")), scene);
  strcpy(moved, in_place(scene, "a/b"));
  want(rename(moved, in_place(scene, "b")), scene);
  strcpy(scene->path, "../../../elsewhere");
}

/* Ways that lead inside and outside in turn. */
static int replace_link(const struct scene* scene, const char* inside, const char* outside, int lead_out) {
  char made[room];
  strcpy(made, in_place(scene, "made"));
  unlink(made);
  return symlink(lead_out ? outside : inside, made) < 0 ? -1 : rename(made, in_place(scene, "link"));
}
static void by_replaced_link(struct scene* scene) {
  want(mkdir(in_place(scene, "real"), 0777), scene);
  inside_is(scene, in_place(scene, "real"));
  link_to(scene, "real", "link");
  lead_by(scene, "link");
}
static int replace(const struct scene* scene, int out) { return replace_link(scene, "real", "../../elsewhere", out); }
static int replace_by_readable(const struct scene* scene, int out) {
  return replace_link(scene, "real", "../../readable", out);
}
static void by_exchanged_directory(struct scene* scene) {
  want(mkdir(in_place(scene, "real"), 0777), scene);
  inside_is(scene, in_place(scene, "real"));
  link_to(scene, "../../elsewhere", "link");
  lead_by(scene, "real");
}
static int exchange(const struct scene* scene, int out) {
  char other[room];
  (void)out;
  strcpy(other, in_place(scene, "link"));
  return renameat2(AT_FDCWD, in_place(scene, "real"), AT_FDCWD, other, RENAME_EXCHANGE);
}
static void by_moving_directory(struct scene* scene) {
  char inside[room];
  in_target(inside, sizeof inside, "granted/elsewhere");
  if (mkdir(inside, 0777) < 0 && errno != EEXIST) scene->broken = errno;
  inside_is(scene, inside);
  want(mkdir(in_place(scene, "a"), 0777), scene);
  want(mkdir(in_place(scene, "a/b"), 0777), scene);
  want(chdir(in_place(scene, "a/b")), scene);
  strcpy(scene->path, "../../../elsewhere");
}
static int move(const struct scene* scene, int out) {
  char deep[room];
  strcpy(deep, in_place(scene, "a/b"));
  return out ? rename(deep, in_place(scene, "b")) : rename(in_place(scene, "b"), deep);
}
/* The host's part is to move granted/moved to elsewhere/moved and back. */
static void by_directory_of_another(struct scene* scene) {
  char path[room];
  in_target(path, sizeof path, "granted");
  inside_is(scene, path);
  in_target(path, sizeof path, "granted/moved");
  while (chdir(path) < 0)
    if (errno != ENOENT && errno != EACCES) {
      scene->broken = errno;
      break;
    }
  strcpy(scene->path, "..");
}
static int left_to_the_host(const struct scene* scene, int out) {
  (void)scene, (void)out;
  return 0;
}

/* Ways to what is granted, but not for every use. */
static void to_readable(struct scene* scene) { lead_by(scene, "../../readable"); }
static void to_writable(struct scene* scene) { lead_by(scene, "../../writable"); }

static const struct way {
  const char *family, *name;
  set_up* prepare;
  swap* swap;
  const char* stops; /* of the use */
  enum right least;  /* uses that need less are allowed there */
} ways[] = {
#define OUTSIDE "root:ENOENT landlock:EACCES|EXDEV"
#define CHANGE "root:ENOENT|EROFS seccomp"
#define READ_ONLY "root:EROFS|EXDEV landlock:EACCES|EXDEV"
    {"links in a grant", "by an absolute link", by_absolute_link, NULL, OUTSIDE, to_read},
    {"links in a grant", "by a relative link", by_relative_link, NULL, OUTSIDE, to_read},
    {"links in a grant", "by a chain of links", by_chain, NULL, OUTSIDE, to_read},
    {"links in a grant", "by way of ..", by_dots, NULL, OUTSIDE, to_read},
    {"links in a grant", "up from the working directory", by_working_directory, NULL, OUTSIDE, to_read},
    {"links in a grant", "by a link to /proc/self/root", by_proc_root, NULL, OUTSIDE, to_read},
    {"links in a grant", "by a link to /proc/self/cwd", by_proc_cwd, NULL, OUTSIDE, to_read},
    {"links in a grant", "up from /proc/self/fd", by_proc_fd, NULL, OUTSIDE, to_read},
    {"links in a grant", "up from a directory that was moved", by_moved_directory, NULL, OUTSIDE, to_read},
    {"swaps in a grant", "while a link is replaced", by_replaced_link, replace, OUTSIDE, to_read},
    {"swaps in a grant", "while a directory and a link are exchanged", by_exchanged_directory, exchange, OUTSIDE,
     to_read},
    {"swaps in a grant", "while the directory is moved", by_moving_directory, move, OUTSIDE, to_read},
    {"swaps by another", "while somebody moves the directory out", by_directory_of_another, left_to_the_host, OUTSIDE,
     to_read},
    {"narrow grants", "where only reading is granted", to_readable, NULL, READ_ONLY, to_write},
    {"narrow grants", "while a link is replaced by one to what may be read", by_replaced_link, replace_by_readable,
     READ_ONLY, to_write},
    {"narrow grants", "where only what exists may be written", to_writable, NULL, "landlock:EACCES", to_make},
};

struct swapper {
  const struct scene* scene;
  swap* swap;
  int stop, failed;
};
static void* keep_swapping(void* argument) {
  struct swapper* self = argument;
  for (int out = 1; !__atomic_load_n(&self->stop, __ATOMIC_RELAXED); out = !out)
    if (self->swap(self->scene, out) < 0) {
      __atomic_store_n(&self->failed, errno, __ATOMIC_RELAXED);
      break;
    }
  return NULL;
}

/* Until it has led inside and outside often enough. Two different errors come back as one number, see range.cpp. */
static long race(const struct scene* scene, const struct use* use, struct swapper* other) {
  long tries = 0, inside = 0, refused = 0, first = 0, second = 0;
  const time_t end = time(NULL) + most_seconds;
  while (tries < needed_tries || inside < needed_each || refused < needed_each) {
    const long got = use->run(scene);
    if (got == escaped) return got;
    ++tries;
    inside += got == stayed_inside;
    refused += got < 0;
    if (got < 0 && !first) first = got;
    if (got < 0 && got != first) second = got;
    if (__atomic_load_n(&other->failed, __ATOMIC_RELAXED)) return -ENOTRECOVERABLE;
    if (time(NULL) > end) return -ETIME; /* it was no race */
  }
  return first + 4096 * second;
}

static long run(uintptr_t detail) {
  const struct way* way = &ways[detail / 64];
  const struct use* use = &escape_uses[detail % 64];
  struct scene scene = {.inside = -1};
  snprintf(scene.place, sizeof scene.place, "%s/granted/XXXXXX", escape_facts.target);
  if (!mkdtemp(scene.place)) return -ENOTRECOVERABLE;
  inside_is(&scene, scene.place);
  const int home = scene.inside;
  way->prepare(&scene);
  const int own = open(in_place(&scene, "own"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  want(own, &scene);
  close(own);
  long got = -ENOTRECOVERABLE;
  if (!scene.broken && way->swap) {
    struct swapper other = {&scene, way->swap, 0, 0};
    pthread_t thread;
    if (pthread_create(&thread, NULL, keep_swapping, &other) == 0) {
      got = race(&scene, use, &other);
      __atomic_store_n(&other.stop, 1, __ATOMIC_RELAXED);
      pthread_join(thread, NULL);
    }
  } else if (!scene.broken) {
    got = use->run(&scene);
  }
  if (scene.inside != home) close(scene.inside);
  close(home);
  if (chdir("/") < 0) return -ENOTRECOVERABLE;
  return got;
}

struct escape_list escape_links(void) {
  enum { most = sizeof ways / sizeof *ways * escape_use_count };
  static struct escape_attempt list[most];
  static char names[most][128];
  size_t count = 0;
  for (size_t way = 0; way < sizeof ways / sizeof *ways; ++way)
    for (size_t use = 0; use < escape_use_count; ++use) {
      const enum right needs = escape_uses[use].needs;
      if (needs < ways[way].least) continue;
      /* There, EXDEV would not tell which layer it was. */
      if (escape_uses[use].between && ways[way].least == to_make) continue;
      /* Denied by its number, it gets nowhere; and what may be written may be changed. */
      if (needs == to_change && (ways[way].swap || ways[way].least == to_make)) continue;
      const char* stops = needs == to_change ? CHANGE : ways[way].stops;
      snprintf(names[count], sizeof *names, "%s %s", escape_uses[use].name, ways[way].name);
      list[count] = (struct escape_attempt){ways[way].family, names[count], run, way * 64 + use, stops};
      ++count;
    }
  return (struct escape_list){list, count};
}
