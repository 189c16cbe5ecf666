/* What the host passes to the attack plugin, and takes from it; see shared.c. */
#ifndef ESCAPE_SHARED_H
#define ESCAPE_SHARED_H

#ifdef __cplusplus
extern "C" {
#endif

enum { escape_memory_size = 8192 };

enum escape_kind {
  escape_sealed,    /* memory, nothing of it to be changed by anybody */
  escape_mapped,    /* memory that the host alone can write to, for it had mapped it before it sealed it */
  escape_shared,    /* memory that both write to; its size is sealed */
  escape_opened,    /* memory without a seal, opened for reading */
  escape_file,      /* a file, opened for reading */
  escape_path,      /* one, opened for nothing */
  escape_directory, /* a directory */
  escape_returned,  /* memory that the plugin makes, seals and returns */
  escape_kinds
};

void escape_take(int kind, int fd);
int escape_make_memory(void);
long escape_seal(void);

#ifdef __cplusplus
}
#endif

#endif
