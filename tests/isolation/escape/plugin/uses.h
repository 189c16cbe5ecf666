/* What is done with a directory that a path leads to; see links.c. */
#ifndef ESCAPE_USES_H
#define ESCAPE_USES_H

#include <sys/types.h>

enum { room = 512, stayed_inside = 0, escaped = 1 };

struct scene {
  char place[320];         /* a directory of this attempt, inside */
  char path[room];         /* leads to a directory, inside or outside */
  int inside;              /* that directory, when it is inside */
  ino_t directory, target; /* and the file `target` in it */
  int broken;              /* an error that left the attempt unmade */
};

enum right { to_read, to_write, to_make, to_change };

struct use {
  const char* name;
  /* stayed_inside, escaped, or the negative errno. */
  long (*run)(const struct scene* scene);
  enum right needs; /* the right without which it must fail */
  int between;      /* it is one of two directories */
};

enum { escape_use_count = 18 };
extern const struct use escape_uses[escape_use_count];

#endif
