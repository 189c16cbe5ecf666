// A library that lies outside the library roots. Where it is loaded it leaves a file beside it, as far as it may write there.
#define _GNU_SOURCE
#include <stdio.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int bulkhead_test_outside(void);
EXPORTED int bulkhead_test_outside(void) { return 42; }

static void leave_mark(void) {
  Dl_info self;
  char path[4096];
  if (!dladdr((void*)&bulkhead_test_outside, &self)) return;
  snprintf(path, sizeof path, "%s.loaded", self.dli_fname);
  const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
}

__attribute__((constructor)) static void loaded(void) { leave_mark(); }

// What LD_AUDIT asks a library for.
EXPORTED unsigned la_version(unsigned version);
EXPORTED unsigned la_version(unsigned version) {
  leave_mark();
  return version;
}
