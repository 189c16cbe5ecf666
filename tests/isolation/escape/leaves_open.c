/* Loaded into the worker program before anything else: leaves a descriptor open in each worker, after its birth has closed
 * all and before the inventory. */
#include <stdlib.h>

#include <dlfcn.h>
#include <fcntl.h>

int clearenv(void) {
  fcntl(0, F_DUPFD, 100);
  int (*real)(void);
  *(void**)&real = dlsym(RTLD_NEXT, "clearenv");
  return real();
}
